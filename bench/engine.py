"""Starting, listing and keeping containers beside dockerd and podman. ``python -m bench.engine [--quick] [--write]``.

The docker CLI is the same for all, as is the image (a busybox tree that every engine loads from one file). Root. Each
engine has its own data root, socket, network and mount namespace; nothing of the host's is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import peers
from bench.peers import OURS, Report, docker, say
from dockyard.testing import kit
from dockyard.testing.engines import PrivateEngine

IMAGE = "busybox:latest"
PAGE = Path(__file__).parents[1] / "docs" / "engine-numbers.md"


class Wire:
    """One kept connection; requests are answered one after another, and only as much is parsed as must be."""

    def __init__(self, engine: PrivateEngine) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(engine.socket))
        self._buffer = b""

    def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        kind = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body) if body else b""
        self._socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode() + kind + b"\r\n" + body)
        return self.read()

    def read(self) -> tuple[int, bytes]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._more()
        head, self._buffer = self._buffer[:end].lower(), self._buffer[end + 4 :]
        status = int(head[9:12])
        if b"transfer-encoding: chunked" in head:
            return status, self._chunks()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        return status, self._exactly(length)

    def _more(self) -> None:
        piece = self._socket.recv(1 << 18)
        if not piece:
            raise ConnectionError("the engine closed the connection")
        self._buffer += piece

    def _exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._more()
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        return data

    def _chunks(self) -> bytes:
        whole = []
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                self._more()
            size = int(self._buffer[:end], 16)
            self._buffer = self._buffer[end + 2 :]
            whole.append(self._exactly(size))
            self._exactly(2)
            if size == 0:
                return b"".join(whole)

    def close(self) -> None:
        self._socket.close()


def can_run(engine: PrivateEngine) -> str:
    """Why this engine cannot run a container here; "" if it can."""
    try:
        docker(engine, "run", "--rm", "--network", "none", IMAGE, "true")
    except RuntimeError as error:
        return str(error)
    return ""


def run_once(running: dict[str, PrivateEngine], kinds: list[str], count: int, report: Report) -> None:
    for network, goal in (("none", "3 x"), ("bridge", "3 x")):
        words = ("run", "--rm", "--network", network, IMAGE, "true")
        able = [kind for kind in kinds if works(running[kind], network, report)]
        for kind in able:
            docker(running[kind], *words)
        taken = peers.rounds(count, able, lambda kind, words=words: docker(running[kind], *words))  # type: ignore[misc]
        report.times(f"`docker run --rm --network {network} {IMAGE} true`", taken, goal=goal)


def works(engine: PrivateEngine, network: str, report: Report) -> bool:
    try:
        docker(engine, "run", "--rm", "--network", network, IMAGE, "true")
    except RuntimeError as error:
        report.note(f"{engine.kind} cannot run with --network {network} here: {error}")
        return False
    return True


def many_at_once(running: dict[str, PrivateEngine], kinds: list[str], count: int, report: Report) -> None:
    """40 runs, ten at a time."""

    def forty(kind: str) -> float:
        begin = time.perf_counter()
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda _: docker(running[kind], "run", "--rm", IMAGE, "true"), range(40)))
        return time.perf_counter() - begin

    taken = peers.rounds(count, kinds, forty)
    rates = {kind: 40 / statistics.median(values) for kind, values in taken.items()}
    report.row("40 x `docker run --rm` (bridge), 10 at a time", "/s", rates, goal="3 x", less=False)


def exec_once(running: dict[str, PrivateEngine], kinds: list[str], count: int, report: Report) -> None:
    names = {kind: f"exec-{os.getpid()}" for kind in kinds}
    for kind in kinds:
        docker(running[kind], "run", "-d", "--network", "none", "--name", names[kind], IMAGE, "sleep", "1000")
    taken = peers.rounds(count, kinds, lambda kind: docker(running[kind], "exec", names[kind], "true"))
    report.times("`docker exec NAME true`", taken)
    for kind in kinds:
        docker(running[kind], "rm", "-f", names[kind])


def fill(engine: PrivateEngine, count: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: docker(engine, "run", "-d", IMAGE, "sleep", "100000"), range(count)))


def memory(running: dict[str, PrivateEngine], kinds: list[str], count: int, report: Report) -> None:
    """What ``count`` idle containers cost, without their own processes."""
    for kind in kinds:
        fill(running[kind], count)
        say(f"{kind}: {count} containers run")
    time.sleep(3)  # what was only needed for starting is given back
    each = {kind: peers.pss(peers.keepers(running[kind])) / count for kind in kinds}
    report.row(f"idle container ({count} of them), PSS outside the workload", "MB", dict(each), goal="<= 1 MB")
    whole = {kind: peers.pss(running[kind].pids()) for kind in kinds}
    report.row(f"daemon with {count} containers, PSS", "MB", dict(whole), goal="<= 90 MB")


def rate(wire: Wire, path: str, seconds: float) -> float:
    """Answers a second on one connection."""
    status, _ = wire.call("GET", path)
    assert status == 200, f"{path}: {status}"
    done, end = 0, time.perf_counter() + seconds
    begin = time.perf_counter()
    while time.perf_counter() < end:
        wire.call("GET", path)
        done += 1
    return done / (time.perf_counter() - begin)


def rates(running: dict[str, PrivateEngine], kinds: list[str], count: int, seconds: float, report: Report) -> None:
    paths = {"GET /_ping": "/_ping", f"GET /containers/json with {count}": "/containers/json?all=1"}
    for what, path in paths.items():
        report_rates(what, dict.fromkeys(kinds, path), running, seconds, report)
    ids = {kind: first_id(running[kind]) for kind in kinds}
    inspect = {kind: f"/containers/{found}/json" for kind, found in ids.items()}
    report_rates("GET /containers/{id}/json", inspect, running, seconds, report)


def report_rates(
    what: str, paths: dict[str, str], running: dict[str, PrivateEngine], seconds: float, report: Report
) -> None:
    wires = {kind: Wire(running[kind]) for kind in paths}
    try:
        taken = peers.rounds(5, list(paths), lambda kind: rate(wires[kind], paths[kind], seconds))
    finally:
        for wire in wires.values():
            wire.close()
    medians = {kind: statistics.median(values) for kind, values in taken.items()}
    report.row(what, "/s", dict(medians), goal="dockerd's", less=False)


def first_id(engine: PrivateEngine) -> str:
    wire = Wire(engine)
    _, body = wire.call("GET", "/containers/json?all=1&limit=1")
    wire.close()
    found: str = json.loads(body)[0]["Id"]
    return found


def thousand(running: dict[str, PrivateEngine], kinds: list[str], seconds: float, report: Report, count: int) -> None:
    """A list of a thousand: containers that were only created are listed as well."""
    able = []
    for kind in kinds:
        wire = Wire(running[kind])
        _, body = wire.call("GET", "/containers/json?all=1")
        have = len(json.loads(body))
        wish = json.dumps({"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}).encode()
        begin = time.perf_counter()
        for _ in range(count - have):
            status, answer = wire.call("POST", "/containers/create", wish)
            assert status == 201, answer
        say(f"{kind}: {count - have} containers created in {time.perf_counter() - begin:.1f} s")
        wire.close()
        able.append(kind)
    report_rates(f"GET /containers/json with {count}", dict.fromkeys(able, "/containers/json?all=1"), running, seconds, report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, no thousand containers")
    parser.add_argument("--only", default="", help="run, many, exec, memory, rates, thousand (comma separated)")
    parser.add_argument("--peers", default="dockerd,podman")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="write docs/engine-numbers.md")
    given = parser.parse_args()
    kinds = [OURS, *(name for name in given.peers.split(",") if name)]
    peers.install(*kinds[1:])
    only = set(given.only.split(",")) - {""}
    report = Report("Engine: measured side by side", kinds)
    count = 5 if given.quick else given.rounds
    with peers.engines(kinds) as running:
        archive = str(kit.archive(peers.SCRATCH / "kit.tar"))
        for kind in kinds:
            docker(running[kind], "load", "-q", "-i", archive)
        able = []
        for kind in kinds:
            if why := can_run(running[kind]):
                report.note(f"{kind} runs no containers on this host: {why}")
            else:
                able.append(kind)
        parts = {
            "run": lambda: run_once(running, able, count, report),
            "many": lambda: many_at_once(running, able, 1 if given.quick else 2, report),
            "exec": lambda: exec_once(running, able, count, report),
            "memory": lambda: memory(running, able, 50, report),
            "rates": lambda: rates(running, able, 50, 0.5 if given.quick else 1.0, report),
            "thousand": lambda: thousand(running, [kind for kind in kinds if kind != "podman"], 1.0, report, 1000),
        }
        for name, part in parts.items():
            if (not only or name in only) and not (given.quick and name == "thousand" and name not in only):
                part()
        print(report.text())
    if given.write:
        report.write(PAGE)


if __name__ == "__main__":
    main()
