"""What a docker CLI sends for a command line: a socket that answers pings, records requests and refuses them.

``python -m tests.cli.record`` is not needed by the tests; it renews recorded.json with the docker CLI of the PATH::

    .venv/bin/python tests/cli/record.py
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RECORDED = HERE / "recorded.json"
CASES = [line for line in (HERE / "create_cases.txt").read_text().splitlines() if line and not line.startswith("#")]
ENVIRON = {"FROMENV": "from the environment"}
LIMIT = 30.0


class Recorded(NamedTuple):
    method: str
    target: str
    body: bytes


@contextlib.contextmanager
def recorder(folder: Path) -> Iterator[tuple[str, list[Recorded]]]:
    """(DOCKER_HOST, the requests seen so far without pings). Each is refused with status 418."""
    seen: list[Recorded] = []
    path = folder / "record.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        thread = threading.Thread(target=_accept, args=(listener, seen), daemon=True)
        thread.start()
        try:
            yield f"unix://{path}", seen
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(LIMIT)
            path.unlink()


def _accept(listener: socket.socket, seen: list[Recorded]) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, seen), daemon=True).start()


def _serve(connection: socket.socket, seen: list[Recorded]) -> None:
    with connection, connection.makefile("rb") as stream:
        while line := stream.readline():
            method, target, _ = line.decode().split(" ")
            length = 0
            while (field := stream.readline().strip()) != b"":
                name, _, value = field.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            body = stream.read(length)
            if target.endswith("/_ping"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nOstype: linux\r\nContent-Length: 0\r\n\r\n")
                continue
            seen.append(Recorded(method, re.sub(r"^/v[\d.]+", "", target), body))
            told = b'{"message":"recorded"}'
            head = b"HTTP/1.1 418 Teapot\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(told)
            connection.sendall(head + told)


def sent(command: Sequence[str], words: Sequence[str]) -> list[Recorded]:
    """What ``command words...`` sends, run in this directory."""
    with tempfile.TemporaryDirectory() as folder, recorder(Path(folder)) as (host, seen):
        environ = {key: value for key, value in os.environ.items() if key != "ABSENT"}
        environ |= {"DOCKER_HOST": host, "DOCKER_CONFIG": folder, **ENVIRON}
        subprocess.run(
            [*command, *words], env=environ, cwd=HERE, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT
        )
        return list(seen)


def main() -> None:
    version = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    cases: dict[str, Any] = {}
    for case in CASES:
        found = sent(["docker", "create"], shlex.split(case))
        cases[case] = {"target": found[0].target, "body": compact(json.loads(found[0].body))} if found else None
    RECORDED.write_text(json.dumps({"docker": version.strip(","), "cases": cases}, indent=1, sort_keys=True) + "\n")


_KEYS_COUNT = frozenset(
    ["Annotations", "EndpointsConfig", "ExposedPorts", "Labels", "PortBindings", "StorageOpt", "Sysctls", "Tmpfs", "Volumes"]
)
"""Maps whose keys say something even where the value is empty."""
_NULL_DIFFERS = frozenset({"Entrypoint", "Init", "MaskedPaths", "ReadonlyPaths", "StopTimeout"})
"""Fields where empty or zero is not the same as absent."""


def compact(document: Any, name: str = "") -> Any:
    """Without Go's zero values, which say nothing; lists keep their places."""
    if isinstance(document, dict):
        found = {key: compact(value, key) for key, value in document.items()}
        if name in _KEYS_COUNT:
            return found
        return {
            key: value
            for key, value in found.items()
            if value not in (None, "", 0, False, [], {}, [0, 0]) or (key in _NULL_DIFFERS and value is not None)
        }
    if isinstance(document, list):
        found = [compact(value) for value in document]
        return sorted(found) if name == "Env" else found  # docker's CLI sends variables in Go's map order, any order
    if isinstance(document, str):
        return document.replace(str(HERE), "/HERE")
    return document


if __name__ == "__main__":
    main()
