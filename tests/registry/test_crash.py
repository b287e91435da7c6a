"""kill -9 under load, full disks, locked databases: what was acknowledged is there and intact, what was not is no lie.

DOCKYARD_CRASHES=200 kills so often (a handful in ordinary runs); DOCKYARD_SEED chooses the moments.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3

from dockyard.registry.core import Config
from dockyard.testing.registries import free_port
from dockyard.testing.registry_server import CONFIG_TYPE, LAYER_TYPE, MANIFEST, Client, digest, served

CRASHES = int(os.environ.get("DOCKYARD_CRASHES", "5"))
SEED = int(os.environ.get("DOCKYARD_SEED", "1"))
_START = 60.0
WORKERS = 3


@dataclass
class Told:
    """What the registry has acknowledged."""

    blobs: dict[str, int] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)


class Daemon:
    def __init__(self, data: Path) -> None:
        self.data, self.port = data, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = (sys.executable, "-m", "dockyard.cli", "registry", "--data", str(self.data), "serve", "--auth", "none")
        with (self.data / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, "--listen", f"127.0.0.1:{self.port}"], stdout=log, stderr=log)
        end = time.monotonic() + _START
        while True:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                if urllib3.request("GET", f"http://127.0.0.1:{self.port}/health", retries=False, timeout=5.0).status == 200:
                    return
            assert self.process.poll() is None, (self.data / "log").read_text()[-3000:]
            assert time.monotonic() < end, (self.data / "log").read_text()[-3000:]
            time.sleep(0.05)  # a real process is starting; bounded by _START

    def kill(self, how: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(60)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    it = Daemon(tmp_path)
    it.start()
    yield it
    if it.process is not None and it.process.poll() is None:
        it.kill()


class Pusher(threading.Thread):
    """Pushes, in its own repository, until told to stop; every acknowledgement is written down when it has come."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__()
        self.repo = f"crash/{number}"
        self.client = Client(port)
        self.random = random.Random(SEED * 1000 + number)
        self.told = Told()
        self.ended = False
        self.failures: list[str] = []
        self.steps = 0

    def run(self) -> None:
        while not self.ended:
            try:
                self.random.choice((self.image, self.image, self.chunks, self.look))()
            except (urllib3.exceptions.HTTPError, OSError):
                time.sleep(0.02)  # it was killed; it comes back
            self.steps += 1

    def _expect(self, answer: Any, *statuses: int) -> None:
        if answer.status not in statuses:
            self.failures.append(f"{answer.status} {answer.data[:300]!r}")
            raise urllib3.exceptions.HTTPError("unexpected")

    def blob(self, data: bytes) -> str:
        begun = self.client("POST", f"/v2/{self.repo}/blobs/uploads/")
        self._expect(begun, 202)
        d = digest(data)
        done = self.client("PUT", f"{begun.headers['location']}?digest={d}", data)
        if done.status != 404:  # a begun upload may be forgotten by a crash; nothing was acknowledged for it
            self._expect(done, 201)
            self.told.blobs[d] = len(data)
        else:
            raise urllib3.exceptions.HTTPError("forgotten")
        return d

    def image(self) -> None:
        config, layer = self.random.randbytes(100), self.random.randbytes(self.random.choice((500, 40_000, 300_000)))
        body = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG_TYPE, "digest": self.blob(config), "size": len(config)},
            "layers": [{"mediaType": LAYER_TYPE, "digest": self.blob(layer), "size": len(layer)}],
        }  # fmt: skip
        raw, tag = json.dumps(body).encode(), f"t{self.random.randrange(8)}"
        # Until the answer is there, the tag may be what it was or what it becomes.
        before = self.told.tags.pop(tag, "")
        answer = None
        try:
            answer = self.client("PUT", f"/v2/{self.repo}/manifests/{tag}", raw, Content_Type=MANIFEST)
            self._expect(answer, 201)
        finally:
            if answer is not None and answer.status == 201:
                self.told.tags[tag] = digest(raw)
            elif before:
                self.told.tags[tag] = f"{before}|{digest(raw)}"

    def chunks(self) -> None:
        """An upload that is left open, to be found again after the crash."""
        begun = self.client("POST", f"/v2/{self.repo}/blobs/uploads/")
        self._expect(begun, 202)
        place = begun.headers["location"]
        whole = b""
        for _ in range(3):
            piece = self.random.randbytes(self.random.choice((1000, 50_000)))
            answer = self.client("PATCH", place, piece)
            if answer.status == 404 and not whole:
                return
            self._expect(answer, 202)
            whole += piece
            self.told.uploads[place] = whole

    def look(self) -> None:
        if self.told.tags:
            tag, expected = self.random.choice(list(self.told.tags.items()))
            answer = self.client("GET", f"/v2/{self.repo}/manifests/{tag}")
            self._expect(answer, 200)
            if digest(answer.data) not in expected.split("|"):
                self.failures.append(f"{tag} is {digest(answer.data)}, not {expected}")


def verify(client: Client, pusher: Pusher) -> None:
    told, repo = pusher.told, pusher.repo
    assert not pusher.failures
    for d in told.blobs:
        got = client("GET", f"/v2/{repo}/blobs/{d}")
        assert (got.status, digest(got.data)) == (200, d)
    for tag, expected in told.tags.items():
        got = client("GET", f"/v2/{repo}/manifests/{tag}")
        assert got.status == 200
        assert digest(got.data) in expected.split("|")
    listed = json.loads(client("GET", f"/v2/{repo}/tags/list").data).get("tags") or []
    for tag in listed:  # no half manifest, acknowledged or not
        body = json.loads(client("GET", f"/v2/{repo}/manifests/{tag}").data)
        for part in (body["config"], *body["layers"]):
            got = client("GET", f"/v2/{repo}/blobs/{part['digest']}")
            assert (got.status, digest(got.data)) == (200, part["digest"])


def resume(client: Client, pusher: Pusher, *, most: int) -> None:
    """Open uploads go on where they were acknowledged."""
    for place, sent in list(pusher.told.uploads.items())[:most]:
        status = client("GET", place)
        assert status.status == 204, status.data
        size = int(status.headers["range"].partition("-")[2]) + 1
        assert size >= len(sent), "acknowledged bytes are there"
        last = b"the rest"
        if size == len(sent):
            assert client("PATCH", place, last, Content_Range=f"{size}-{size + len(last) - 1}").status == 202
            whole = sent + last
            done = client("PUT", f"{place}?digest={digest(whole)}")
            assert done.status == 201, done.data
            assert client("GET", f"/v2/{pusher.repo}/blobs/{digest(whole)}").data == whole
        else:
            assert client("DELETE", place).status == 204
        del pusher.told.uploads[place]


@pytest.mark.timeout(120 + 20 * CRASHES)
def test_killed_under_load(daemon: Daemon) -> None:
    moments = random.Random(SEED)
    pushers = [Pusher(daemon.port, number) for number in range(WORKERS)]
    client = Client(daemon.port)
    for pusher in pushers:
        pusher.start()
    try:
        for number in range(CRASHES):
            time.sleep(moments.uniform(0.05, 0.8))  # the load runs; any moment is a good one to die
            daemon.kill()
            daemon.start()
            if number % 10 == 9:
                print(f"{number + 1} kills, {sum(len(p.told.blobs) for p in pushers)} blobs acknowledged", flush=True)
    finally:
        for pusher in pushers:
            pusher.ended = True
        for pusher in pushers:
            pusher.join(100)
    assert sum(len(p.told.blobs) for p in pushers) > CRASHES, "the load was one"
    for pusher in pushers:
        verify(client, pusher)
        resume(client, pusher, most=50)
    daemon.kill()
    with contextlib.closing(sqlite3.connect(daemon.data / "registry.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    daemon.start()
    command = (sys.executable, "-m", "dockyard.cli", "registry", "--data", str(daemon.data), "gc")
    assert subprocess.run(command, capture_output=True, timeout=100).returncode == 0
    for pusher in pushers:
        verify(client, pusher)


# ---- faults that are not deaths


def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockyard.registry.database._BUSY_SECONDS", 0.2)
    with served(tmp_path, Config(auth="none")) as it:
        client = it.client()
        raw, pushed = client.manifest("t/app", "v1")
        with contextlib.closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = client("PUT", "/v2/t/app/manifests/v2", raw, Content_Type=MANIFEST)
            assert (answer.status, json.loads(answer.data)["errors"][0]["code"]) == (503, "UNKNOWN")
            assert client("GET", "/v2/t/app/manifests/v1").data == raw, "reading goes on"
            other.execute("ROLLBACK")
        assert client("GET", "/v2/t/app/manifests/v2").status == 404
        assert client("PUT", "/v2/t/app/manifests/v2", raw, Content_Type=MANIFEST).status == 201
        assert client("HEAD", "/v2/t/app/manifests/v2").headers["docker-content-digest"] == pushed


@pytest.mark.root
def test_a_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(small)], check=True)
    try:
        with served(small, Config(auth="none")) as it:
            client = it.client()
            raw, _ = client.manifest("t/app", "v1")
            fitting = os.urandom(500_000)
            client.blob("t/app", fitting)
            place = client("POST", "/v2/t/app/blobs/uploads/").headers["location"]
            statuses = [client("PATCH", place, os.urandom(2_000_000)).status for _ in range(6)]
            assert 507 in statuses
            assert set(statuses) <= {202, 507}
            assert client("GET", "/v2/t/app/manifests/v1").data == raw
            assert client("GET", f"/v2/t/app/blobs/{digest(fitting)}").data == fitting
            assert client("PUT", "/v2/t/app/manifests/v2", raw, Content_Type=MANIFEST).status in {201, 507}
            assert client("DELETE", place).status == 204, "giving it up makes room"
            again = os.urandom(500_000)
            client.blob("t/app", again)
            assert client("GET", f"/v2/t/app/blobs/{digest(again)}").data == again
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_bytes_that_vanished_are_told(tmp_path: Path) -> None:
    """Somebody removed a file below us: 404 for that blob, nothing else suffers."""
    with served(tmp_path, Config(auth="none")) as it:
        client = it.client()
        lost, kept = os.urandom(50_000), os.urandom(50_000)
        for data in (lost, kept):
            client.blob("t/app", data)
        next((tmp_path / "blobs").rglob(f"{hashlib.sha256(lost).hexdigest()}-*")).unlink()
        for _ in range(2):
            assert client("GET", f"/v2/t/app/blobs/{digest(lost)}").status == 404
        assert client("GET", f"/v2/t/app/blobs/{digest(kept)}").data == kept


def test_a_client_that_leaves_may_come_back(tmp_path: Path) -> None:
    import socket

    with served(tmp_path, Config(auth="none")) as it:
        client = it.client()
        place = client("POST", "/v2/t/app/blobs/uploads/").headers["location"]
        sent = os.urandom(200_000)
        with socket.create_connection(("127.0.0.1", it.port)) as sock:
            sock.sendall(f"PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n".encode() + sent)
        end = time.monotonic() + 30
        while (status := client("GET", place)).headers["range"] == "0-0" and time.monotonic() < end:
            time.sleep(0.05)  # the server notices the loss; bounded
        size = int(status.headers["range"].partition("-")[2]) + 1
        assert 0 < size <= len(sent)
        rest = sent[size:] + b"end"
        assert client("PATCH", place, rest, Content_Range=f"{size}-{size + len(rest) - 1}").status == 202
        assert client("PUT", f"{place}?digest={digest(sent + b'end')}").status == 201
