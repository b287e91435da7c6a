"""kill -9 of the engine at random while clients work: what was acknowledged holds, and nothing leaks.

Workers create, start, stop, rename and remove containers of their own; each keeps a ledger of what the engine has
acknowledged. A request that got no answer leaves its container in doubt until it is looked at again. After every crash
the new engine is compared with the ledgers, and at the end everything is removed. ``DOCKYARD_CRASH_SECONDS`` and
``DOCKYARD_CRASH_SEED`` make longer runs (``make crash``).
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dockyard.client import Client
from dockyard.errors import Conflict, DockyardError, NotFound, NotModified
from dockyard.testing import kit
from dockyard.testing.host import Host, until

SECONDS = float(os.environ.get("DOCKYARD_CRASH_SECONDS", "25"))
SEED = int(os.environ.get("DOCKYARD_CRASH_SEED", "4"))
WORKERS = 4
KILLED = 137
SETTLE_LIMIT = 30.0
LONGEST_LIFE = 3.0
"""Seconds that a daemon lives at most."""
LEAST_CRASHES, LEAST_REQUESTS = 3, 20
"""Below these the run goes on, however slow the machine; the test's timeout is the bound."""

pytestmark = [pytest.mark.root, pytest.mark.timeout(SECONDS * 4 + 180)]


@dataclass
class Entry:
    """What the engine has acknowledged of one container. ``None``: in doubt, a request got no answer."""

    name: str
    code: int | None
    """What it exits with by itself; None: it sleeps until it is ended."""
    transient: bool = False
    """--rm: it goes by itself when it has ended."""
    identity: str = ""
    there: bool | None = None
    running: bool | None = False
    pid: int = 0
    killed: bool = False
    """A stop or a removal was asked for since its last start, and may have been quicker than its own end."""


@dataclass
class Worker:
    seed: int
    socket: Path
    number: int
    ledger: dict[str, Entry] = field(default_factory=dict)
    made: int = 0
    done: int = 0
    faults: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event, pause: threading.Event, idle: threading.Semaphore) -> None:
        draw = random.Random(self.seed * 1000 + self.number)
        with Client(f"unix://{self.socket}", timeout=30) as client:
            while not stop.is_set():
                if pause.is_set():
                    idle.release()
                    while pause.is_set() and not stop.is_set():
                        time.sleep(0.01)
                    continue
                try:
                    self._step(client, draw)
                except Exception as error:  # noqa: BLE001 - told by the test, from its own thread
                    self.faults.append(f"{type(error).__name__}: {error}")
                    return

    def _step(self, client: Client, draw: random.Random) -> None:
        settled = [entry for entry in self.ledger.values() if entry.there and entry.running is not None]
        if len(settled) < 3 or draw.random() < 0.2:
            return self._create(client, draw)
        entry = draw.choice(settled)
        action = draw.choice((self._start, self._start, self._stop, self._remove, self._rename, self._look))
        return action(client, entry)

    def _asked(self, ask: Callable[[], Any], *expected: type[DockyardError]) -> Any:
        """The answer; False for an error that the state allows; None when the engine went away meanwhile."""
        try:
            answer = ask()
        except expected:
            return False
        except DockyardError as error:
            if error.evidence.get("status"):
                raise
            time.sleep(0.02)  # nobody listens: a daemon is on its way
            return None
        self.done += 1
        return answer if answer is not None else True

    def _create(self, client: Client, draw: random.Random) -> None:
        code = draw.choice((None, None, draw.randrange(1, 100)))
        self.made += 1
        name = f"w{self.number}-{self.made}"
        entry = self.ledger[name] = Entry(name, code, code is not None and draw.random() < 0.3)
        command = ["sleep", "100000"] if code is None else ["sh", "-c", f"exit {code}"]
        wish: dict[str, Any] = {"Image": "busybox:latest", "Cmd": command, "StopSignal": "KILL", "HostConfig": {"AutoRemove": entry.transient}}
        if draw.random() < 0.3:
            wish["HostConfig"]["NetworkMode"] = "none"
        if draw.random() < 0.3:
            wish["Volumes"] = {"/data": {}}
        made = self._asked(lambda: client.request("POST", "/containers/create", {"name": name}, wish))
        if made:
            entry.identity, entry.there = made["Id"], True

    def _start(self, client: Client, entry: Entry) -> None:
        entry.running, entry.killed = None, False
        entry.there = None if entry.transient else entry.there
        told = self._asked(lambda: client.request("POST", f"/containers/{entry.name}/start"), NotModified)
        if told is not False:
            entry.pid = 0  # a new process; the old one was stopped
        if told is not None:
            entry.running = entry.code is None

    def _stop(self, client: Client, entry: Entry) -> None:
        before, entry.running, entry.killed = entry.running, None, True
        if self._asked(lambda: client.request("POST", f"/containers/{entry.name}/stop", {"t": 5}), NotModified) is not None or not before:
            entry.running = False

    def _remove(self, client: Client, entry: Entry) -> None:
        entry.killed = True
        entry.there = entry.running = None  # a forced removal kills first: a crash in between leaves an ended container
        if self._asked(lambda: client.request("DELETE", f"/containers/{entry.name}", {"force": True, "v": True}), NotFound) is not None:
            entry.there = False

    def _rename(self, client: Client, entry: Entry) -> None:
        new = f"{entry.name}r"
        was, entry.there = entry.there, None
        told = self._asked(lambda: client.request("POST", f"/containers/{entry.name}/rename", {"name": new}), Conflict)
        if told is None:
            return  # one name or the other: found by its identity
        entry.there = was
        if told:
            self.ledger[new] = self.ledger.pop(entry.name)
            entry.name = new

    def _look(self, client: Client, entry: Entry) -> None:
        document = self._asked(lambda: client.request("GET", f"/containers/{entry.name}/json"))
        if document:
            self.check(document, entry)

    def check(self, document: Any, entry: Entry) -> None:
        state = document["State"]
        if entry.running and not state["Running"]:
            self.faults.append(f"{entry.name} was started and is {state['Status']} ({state['ExitCode']}, {state['Error']!r})")
        if entry.running and entry.pid and state["Pid"] != entry.pid:
            self.faults.append(f"{entry.name} has another process than before: {entry.pid}, {state['Pid']}")
        codes = (entry.code, *([KILLED] if entry.killed else []))
        if entry.code is not None and state["Status"] == "exited" and state["ExitCode"] not in codes:
            self.faults.append(f"{entry.name} exited with {entry.code}, the engine says {state['ExitCode']}: {state['Error']!r}")
        entry.pid = state["Pid"] if entry.running else 0

    def compare(self, client: Client) -> None:
        """With an engine that has just recovered; doubts are settled by what it says."""
        rows = {row["Id"]: row for row in client.request("GET", "/containers/json", {"all": True})}
        by_name = {row["Names"][0][1:]: row for row in rows.values()}
        for name, entry in list(self.ledger.items()):
            row = rows.get(entry.identity) or by_name.get(name)
            if entry.there and row is None:
                self.faults.append(f"{name} was created and is lost")
            if entry.there is False and row is not None:
                self.faults.append(f"{name} was removed and is {row['State']}")
            if row is None or row["State"] in {"removing", "dead"}:
                del self.ledger[name]
                continue
            entry.identity, entry.there = row["Id"], True
            document = client.request("GET", f"/containers/{entry.identity}/json")
            del self.ledger[name]
            entry.name = document["Name"][1:]
            self.ledger[entry.name] = entry
            if entry.running is None:
                entry.running, entry.pid = document["State"]["Running"] and entry.code is None, 0
            self.check(document, entry)


def _kill(host: Host) -> None:
    assert host.daemon is not None
    host.daemon.kill()
    host.daemon.wait(20)


def test_what_was_acknowledged_survives_random_crashes(host: Host, tmp_path: Path) -> None:
    draw = random.Random(SEED)
    client = host.start()
    archive = kit.archive(tmp_path / "images.tar")
    list(client.objects("POST", "/images/load", body=archive.read_bytes(), headers={"Content-Type": "application/x-tar"}))
    workers = [Worker(SEED, host.root / "e.sock", number) for number in range(WORKERS)]
    stop, pause, idle = threading.Event(), threading.Event(), threading.Semaphore(0)
    threads = [threading.Thread(target=worker.run, args=(stop, pause, idle), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    crashes, end = 0, time.monotonic() + SECONDS
    try:
        while time.monotonic() < end or crashes < LEAST_CRASHES or sum(worker.done for worker in workers) < LEAST_REQUESTS:
            time.sleep(draw.uniform(0.1, LONGEST_LIFE))
            _kill(host)
            crashes += 1
            pause.set()
            client = host.start()
            for _ in range(sum(thread.is_alive() for thread in threads)):
                assert idle.acquire(timeout=60), "a worker hangs"
            for worker in workers:
                worker.compare(client)
            faults = [fault for worker in workers for fault in worker.faults]
            assert not faults, f"after {crashes} crashes (seed {SEED}): " + "\n".join(faults)
            pause.clear()
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    print(f"seed {SEED}: {crashes} crashes, {sum(worker.done for worker in workers)} acknowledged requests")
    for row in client.request("GET", "/containers/json", {"all": True}):
        with contextlib.suppress(NotFound):
            client.request("DELETE", f"/containers/{row['Id']}", {"force": True, "v": True})
    with contextlib.suppress(AssertionError):
        until(lambda: not any(host.leftovers().values()), SETTLE_LIMIT)
    assert not any(host.leftovers().values()), host.leftovers()
    assert client.request("GET", "/volumes")["Volumes"] == []
