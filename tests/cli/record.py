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
from urllib.parse import parse_qs

HERE = Path(__file__).parent
RECORDED = HERE / "recorded.json"
RECORDED_VERBS = HERE / "recorded_verbs.json"


def _lines(name: str) -> list[str]:
    return [line for line in (HERE / name).read_text().splitlines() if line and not line.startswith("#")]


CASES, VERBS = _lines("create_cases.txt"), _lines("verb_cases.txt")
PREPARED = {
    r"GET /containers/web/json": {"Id": "web", "State": {"Running": True}, "Config": {"Tty": False, "OpenStdin": False}},
    r"POST /containers/web/exec": {"Id": "made"},
    r"POST /containers/web/wait.*": {"StatusCode": 0},
    r"GET /info": {"OSType": "linux", "Runtimes": {}},
}
"""Answers that let a command go on to the request that matters; all others are refused."""
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
            length, chunked = 0, False
            while (field := stream.readline().strip()) != b"":
                name, _, value = field.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                chunked = chunked or (name.lower(), value.strip()) == (b"transfer-encoding", b"chunked")
            body = stream.read(length)
            while chunked and (size := int(stream.readline(), 16)) >= 0:
                body += stream.read(size)
                stream.readline()
                chunked = size > 0
            if target.endswith("/_ping"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nOstype: linux\r\nContent-Length: 0\r\n\r\n")
                continue
            target = re.sub(r"^/v[\d.]+", "", target)
            seen.append(Recorded(method, target, body))
            known = next((told for form, told in PREPARED.items() if re.fullmatch(form, f"{method} {target}")), None)
            told = json.dumps(known or {"message": "recorded"}).encode()
            status = b"200 OK" if known else b"418 Teapot"
            head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(told))
            connection.sendall(head + (b"" if method == "HEAD" else told))


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
    verbs = {case: asked(sent(["docker"], shlex.split(case))) for case in VERBS}
    RECORDED_VERBS.write_text(json.dumps({"docker": version.strip(","), "cases": verbs}, indent=1, sort_keys=True) + "\n")
    RECORDED.write_text(json.dumps({"docker": version.strip(","), "cases": cases}, indent=1, sort_keys=True) + "\n")


def asked(requests: Sequence[Recorded]) -> list[list[Any]]:
    """What was asked for, so that two clients can be compared: method, path, query, document. Inspecting before a change
    is left out: one client looks where the other goes ahead and is told by the engine."""
    rows = []
    for request in requests:
        path, _, query = request.target.partition("?")
        pairs = {key: [_query_value(key, value) for value in values] for key, values in parse_qs(query).items()}
        body = request.body.strip()
        document = compact(json.loads(body)) if body[:1] in (b"{", b"[") else None
        rows.append([request.method, path, {key: value for key, value in pairs.items() if value != [""]}, document or None])
    changing = [row for row in rows if row[0] != "GET"]
    return changing or rows[-1:]


def _query_value(key: str, value: str) -> Any:
    """Documents parsed; switches in one spelling (``t`` is a number)."""
    if value[:1] in ("{", "["):
        return json.loads(value)
    return value if key == "t" else {"true": "1", "false": "", "0": ""}.get(value, value)


_KEYS_COUNT = frozenset(
    ["Annotations", "EndpointsConfig", "ExposedPorts", "Labels", "PortBindings", "StorageOpt", "Sysctls", "Tmpfs", "Volumes"]
)
"""Maps whose keys say something even where the value is empty."""
_NULL_DIFFERS = frozenset({"EnableIPv4", "EnableIPv6", "Entrypoint", "Init", "MaskedPaths", "ReadonlyPaths", "StopTimeout"})
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
