"""The registry beside Debian's docker-registry, in one go: ``python -m bench.registry [--quick] [--write FILE]``.

Both serve on loopback, each as one command does; ours with accounts on and a bearer token in every request, the peer
with no authentication at all, which is its faster setting. wrk makes the load with 32 connections, the best of three runs
that take turns; pushes come from four processes. Needs wrk and docker-registry.

Blobs of 20 MB are measured twice. wrk reads in pieces of 8 KB and so needs half a second of processor for a GB, more
than our server: it measures itself. The other client, four processes with a connection each, asks the kernel to drop
the bytes (MSG_TRUNC of tcp(7)); they cross the socket all the same, and both servers get the same client.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import multiprocessing
import os
import re
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockyard.testing.registries import debian_registry, free_port

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
REPO = "bench/app"
PASSWORD = "bench password"
REPOSITORIES = 100_000
UPLOAD_BYTES = 2_000_000_000
ROUNDS = 3


@dataclass
class Side:
    name: str
    port: int
    pid: int
    root: Path
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request(method, path, body, self.headers | {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def blob(self, data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        _, headers, _ = self.request("POST", f"/v2/{REPO}/blobs/uploads/", Content_Length="0")
        place = headers["location"].partition(f":{self.port}")[2] or headers["location"]
        mark = "&" if "?" in place else "?"
        status, _, answer = self.request("PUT", f"{place}{mark}digest={digest}", data)
        assert status == 201, answer
        return digest

    def processor(self) -> float:
        """Seconds of processor that the server has used, in user and in kernel mode."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024


@contextlib.contextmanager
def ours(root: Path, *more: str) -> Iterator[Side]:
    command = [sys.executable, "-m", "dockyard.cli", "registry", "--data", str(root)]
    add = [*command, "user", "add", "bench", "--admin", "--password-stdin"]
    subprocess.run(add, input=PASSWORD + "\n", text=True, check=True)
    port = free_port()
    with (root / "log").open("wb") as log:
        process = subprocess.Popen([*command, "serve", "--listen", f"127.0.0.1:{port}", *more], stdout=log, stderr=log)
    side = Side("dockyard", port, process.pid, root)
    try:
        wait_for(lambda: side.request("GET", "/health")[0] == 200)
        login(side)
        yield side
    finally:
        process.terminate()
        process.wait(30)


def login(side: Side) -> None:
    import base64

    basic = "Basic " + base64.b64encode(f"bench:{PASSWORD}".encode()).decode()
    scope = f"/token?service=dockyard-registry&scope=repository:{REPO}:pull,push&scope=registry:catalog:*"
    _, _, body = side.request("GET", scope, Authorization=basic)
    side.headers["Authorization"] = "Bearer " + json.loads(body)["token"]


@contextlib.contextmanager
def peer(root: Path) -> Iterator[Side]:
    with debian_registry(root) as host:
        port = int(host.partition(":")[2])
        found = subprocess.run(["pgrep", "-f", str(root / "config.yml")], capture_output=True, text=True).stdout.split()
        yield Side("docker-registry", port, int(found[0]), root)


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.05)
    raise RuntimeError("the registry does not answer")


def seed(side: Side) -> dict[str, str]:
    config, small, large = b'{"os":"linux"}', os.urandom(10 * 1024), os.urandom(20 * 1000 * 1000)
    digests = [side.blob(data) for data in (config, small, large)]
    body = {
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digests[0], "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": d, "size": s}
                   for d, s in ((digests[1], len(small)), (digests[2], len(large)))],
    }  # fmt: skip
    status, _, answer = side.request("PUT", f"/v2/{REPO}/manifests/v1", json.dumps(body).encode(), Content_Type=MANIFEST_TYPE)
    assert status == 201, answer
    return {"manifest": f"/v2/{REPO}/manifests/v1", "10 KB": f"/v2/{REPO}/blobs/{digests[1]}",
            "20 MB": f"/v2/{REPO}/blobs/{digests[2]}"}  # fmt: skip


def wrk(side: Side, path: str, threads: int, connections: int, seconds: float) -> tuple[float, float]:
    """(requests, bytes) a second."""
    headers = [word for key, value in side.headers.items() for word in ("-H", f"{key}: {value}")]
    command = ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{seconds:.0f}s", "-H", f"Accept: {MANIFEST_TYPE}", *headers]
    text = subprocess.run([*command, f"http://127.0.0.1:{side.port}{path}"], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in text, text
    requests = re.search(r"Requests/sec:\s+([\d.]+)", text)
    moved = re.search(r"Transfer/sec:\s+([\d.]+)(\w+)", text)
    assert requests
    assert moved
    return float(requests[1]), float(moved[1]) * {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}[moved[2]]


_WINDOW = 1 << 20


def _drain(side: Side, path: str, seconds: float, out: Any) -> None:
    """One connection, one blob after the other; the bytes are counted and dropped by the kernel."""
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{side.port}", *(f"{k}: {v}" for k, v in side.headers.items()), "", ""]
    request, buffer, total = "\r\n".join(lines).encode(), bytearray(_WINDOW), 0
    end = time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", side.port), timeout=60) as sock:
        while time.monotonic() < end:
            sock.sendall(request)
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(4096)
            head, _, early = head.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            assert length, head
            assert b" 200 " in head, head
            left = int(length[1]) - len(early)
            while left and (got := sock.recv_into(buffer, min(left, _WINDOW), socket.MSG_TRUNC)):
                left -= got
            assert not left, "cut"
            total += int(length[1])
    out.put(total)


def drained(side: Side, path: str, connections: int, seconds: float) -> tuple[float, float]:
    """(bytes a second, seconds of the server's processor for a GB)."""
    out: Any = multiprocessing.Queue()
    workers = [multiprocessing.Process(target=_drain, args=(side, path, seconds, out)) for _ in range(connections)]
    used, begin = side.processor(), time.monotonic()
    for worker in workers:
        worker.start()
    total = sum(out.get(timeout=120) for _ in workers)
    spent, used = time.monotonic() - begin, side.processor() - used
    for worker in workers:
        worker.join(30)
    return total / spent, used / (total / 1e9)


def _push(side: Side, seconds: float, size: int, out: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=60)
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = os.urandom(size)
        connection.request("POST", f"/v2/{REPO}/blobs/uploads/", headers=side.headers | {"Content-Length": "0"})
        answer = connection.getresponse()
        answer.read()
        place = answer.headers["location"]
        place = place.partition(f":{side.port}")[2] or place
        place += ("&" if "?" in place else "?") + "digest=sha256:" + hashlib.sha256(data).hexdigest()
        connection.request("PUT", place, data, side.headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201, answer.status
        done += 1
    out.put(done)


def pushes(side: Side, seconds: float, size: int) -> float:
    out: Any = multiprocessing.Queue()
    workers = [multiprocessing.Process(target=_push, args=(side, seconds, size, out)) for _ in range(4)]
    for worker in workers:
        worker.start()
    total = sum(out.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(30)
    return total / seconds


# ---- a hundred thousand repositories

_WORDS = ("api", "web", "db", "cache", "queue", "auth", "mail", "search", "report", "image", "payment", "stock", "gateway")


def names(count: int) -> Iterator[str]:
    for number in range(count):
        team = f"team-{number % 500:03d}"
        yield f"{team}/{_WORDS[number % 13]}-{_WORDS[number // 13 % 13]}-{number:06d}"


def many_ours(side: Side, count: int) -> None:
    with contextlib.closing(sqlite3.connect(side.root / "registry.db", timeout=60)) as db, db:
        db.executemany(
            "INSERT INTO repositories (name, namespace, public, description, created, updated) VALUES (?, ?, 1, ?, 0, 0)",
            ((n, n.partition("/")[0], f"service {i % 997} of the shop") for i, n in enumerate(names(count))),
        )
        db.execute("UPDATE epoch SET value = value + 1")


def many_peer(side: Side, count: int) -> None:
    base = side.root / "data" / "docker" / "registry" / "v2" / "repositories"
    for name in names(count):
        (base / name / "_layers").mkdir(parents=True)


def times(side: Side, paths: list[str]) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=600)
    spent = []
    for path in paths:
        begin = time.perf_counter()
        connection.request("GET", path, headers=side.headers)
        answer = connection.getresponse()
        answer.read()
        spent.append((time.perf_counter() - begin) * 1000)
        assert answer.status == 200, answer.status
    return sorted(spent)


def percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def typed() -> list[str]:
    """What somebody types, letter by letter."""
    words = ("payment-gateway", "team-042/web", "search", "000123", "zzz-nothing", "stock-mail-01")
    return [f"/v1/search?q={word[:end]}&n=25" for word in words for end in range(1, len(word) + 1)]


# ---- memory

_CHUNK = os.urandom(1 << 20)


def upload_memory(side: Side, total: int) -> tuple[int, int, float]:
    """(resident before, highest while it came, bytes a second)."""
    _, headers, _ = side.request("POST", f"/v2/{REPO}/blobs/uploads/", Content_Length="0")
    place = headers["location"].partition(f":{side.port}")[2] or headers["location"]
    before = side.rss()
    highest, running = before, True

    def watch() -> None:
        nonlocal highest
        while running:
            highest = max(highest, side.rss())
            time.sleep(0.02)

    def pieces() -> Iterator[bytes]:
        left = total
        while left > 0:
            yield _CHUNK[: min(left, len(_CHUNK))]
            left -= len(_CHUNK)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    status, _, answer = side.request("PATCH", place, pieces(), Content_Length=str(total), Content_Type="application/octet-stream")
    spent = time.perf_counter() - begin
    running = False
    watcher.join()
    assert status == 202, answer
    return before, highest, total / spent


# ---- the report


def run(quick: bool) -> list[str]:
    seconds = 1.0 if quick else 3.0
    rows: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-registry-") as scratch:
        with ours(Path(scratch) / "ours") as we, peer(Path(scratch) / "peer") as they:
            paths = {side.name: seed(side) for side in (we, they)}
            rows += reading(we, they, paths, seconds)
            rows += writing(we, they, seconds)
            rows += memory(we, they, UPLOAD_BYTES // 10 if quick else UPLOAD_BYTES)
        with ours(Path(scratch) / "many") as we, peer(Path(scratch) / "many-peer") as they:
            count = REPOSITORIES // 10 if quick else REPOSITORIES
            many_ours(we, count)
            many_peer(they, count)
            rows += lists(we, they, count)
    return rows


def row(what: str, unit: str, mine: float, theirs: float | None, target: str, digits: int = 0) -> str:
    other = "–" if theirs is None else f"{theirs:,.{digits}f}"
    ratio = "–" if not theirs else f"{mine / theirs:.1f}"
    line = f"| {what} | {unit} | {mine:,.{digits}f} | {other} | {ratio} | {target} |"
    print(line, flush=True)
    return line


def reading(we: Side, they: Side, paths: dict[str, dict[str, str]], seconds: float) -> list[str]:
    rows = []
    for what, threads, connections, target in (("manifest", 1, 32, "≥ 10,000"), ("10 KB", 1, 32, "≥ 8,000"), ("20 MB", 2, 4, "")):
        best: dict[str, tuple[float, float]] = {}
        for _ in range(ROUNDS):
            for side in (we, they):
                login(side) if side is we else None
                best[side.name] = max(best.get(side.name, (0.0, 0.0)), wrk(side, paths[side.name][what], threads, connections, seconds))
        mine, theirs = best[we.name], best[they.name]
        if what == "20 MB":
            rows.append(row("blob of 20 MB, wrk", "GB/s", mine[1] / 1e9, theirs[1] / 1e9, target, 2))
        else:
            rows.append(row("manifest by tag" if what == "manifest" else "blob of 10 KB", "/s", mine[0], theirs[0], target))
    return rows + large(we, they, paths, seconds)


def large(we: Side, they: Side, paths: dict[str, dict[str, str]], seconds: float) -> list[str]:
    found: dict[str, list[tuple[float, float]]] = {we.name: [], they.name: []}
    for _ in range(ROUNDS):
        for side in (we, they):
            login(side) if side is we else None
            found[side.name].append(drained(side, paths[side.name]["20 MB"], 4, seconds))
    (mine, cost), (theirs, other) = max(found[we.name]), max(found[they.name])
    return [
        row("blob of 20 MB, bytes dropped by the kernel", "GB/s", mine / 1e9, theirs / 1e9, "≥ 2 ×", 2),
        row("blob of 20 MB, the server's processor", "s/GB", cost, other, "", 2),
    ]


def writing(we: Side, they: Side, seconds: float) -> list[str]:
    best: dict[tuple[str, int], float] = {}
    for _ in range(ROUNDS):
        for side in (we, they):
            login(side) if side is we else None
            for size in (1000, 1_000_000):
                best[side.name, size] = max(best.get((side.name, size), 0.0), pushes(side, seconds, size))
    return [
        row(f"push of {what}", "/s", best[we.name, size], best[they.name, size], target)
        for what, size, target in (("1 KB", 1000, "≥ 600"), ("1 MB", 1_000_000, ""))
    ]


def memory(we: Side, they: Side, total: int) -> list[str]:
    login(we)
    rows, seen = [], {}
    for side in (we, they):
        seen[side.name] = upload_memory(side, total)
    mine, theirs = seen[we.name], seen[they.name]
    what = f"upload of {total / 1e9:.1f} GB"
    rows.append(row(what, "MB/s", mine[2] / 1e6, theirs[2] / 1e6, ""))
    rows.append(row(f"{what}: memory grows by", "MB", (mine[1] - mine[0]) / 1e6, (theirs[1] - theirs[0]) / 1e6, "flat"))
    return rows


def lists(we: Side, they: Side, count: int) -> list[str]:
    rows = []
    middle = "team-250"
    for what, path in (("first page", "/v2/_catalog?n=100"), ("page in the middle", f"/v2/_catalog?n=100&last={middle}")):
        mine = percentile(times(we, [path] * 50), 0.99)
        theirs = percentile(times(they, [path] * 3), 0.5)
        rows.append(row(f"catalogue of {count:,}, {what}", "ms p99", mine, theirs, "≤ 20", 1))
    spent = times(we, typed() * 4)
    rows.append(row(f"search as you type over {count:,}, p50", "ms", statistics.median(spent), None, "", 1))
    rows.append(row(f"search as you type over {count:,}, p99", "ms", percentile(spent, 0.99), None, "≤ 50", 1))
    return rows


HEAD = """| what | unit | Dockyard | docker-registry 2.8.2 | ratio | wanted |
|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--write", default="", metavar="FILE", help="put the table between the marks of this page")
    args = parser.parse_args()
    print(HEAD)
    rows = run(args.quick)
    if args.write:
        page = Path(args.write)
        before, _, rest = page.read_text().partition("<!-- numbers -->\n")
        table = "\n".join([HEAD, *rows])
        page.write_text(f"{before}<!-- numbers -->\n{table}\n<!-- end -->{rest.partition('<!-- end -->')[2]}")


if __name__ == "__main__":
    main()
