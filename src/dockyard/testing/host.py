"""A host for crash tests: a net and mount namespace that lives as long as the test, and daemons that come and go in it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dockyard.client import Client
from dockyard.errors import DockyardError

__all__ = ["Host", "until"]

START_LIMIT, STOP_LIMIT = 30.0, 10.0


class Host:
    """``start`` a daemon (to die at a fault point), ask it through the client, ``start`` the next one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.daemon: subprocess.Popen[bytes] | None = None
        self.clients = contextlib.ExitStack()
        script = "mount --make-rprivate / && ip link set lo up && exec sleep infinity"
        self.holder = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", script])
        until(lambda: Path(f"/proc/{self.holder.pid}/comm").read_text().strip() == "sleep", START_LIMIT)

    def start(self, fault: str = "") -> Client:
        environ = {**os.environ, "DOCKYARD_FAULT": fault}
        words = ["engine", "--data-root", f"{self.root}/data", "--exec-root", f"{self.root}/run", "--cgroup-parent",
                 f"/dy-crash-{self.holder.pid}", "--pidfile", "", "-H", f"unix://{self.root}/e.sock"]  # fmt: skip
        with (self.root / "log").open("ab") as log:
            self.daemon = subprocess.Popen(
                ["nsenter", "-t", str(self.holder.pid), "-n", "-m", sys.executable, "-m", "dockyard.cli", *words],
                env=environ, stdout=log, stderr=log,
            )  # fmt: skip
        client = self.clients.enter_context(Client(f"unix://{self.root}/e.sock", timeout=30))
        until(lambda: _answers(client), START_LIMIT)
        return client

    def ended(self) -> bool:
        assert self.daemon is not None
        return self.daemon.poll() is not None

    def inside(self, *command: str) -> str:
        words = ["nsenter", "-t", str(self.holder.pid), "-n", "-m", *command]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    def leftovers(self) -> dict[str, list[str]]:
        """What an engine without containers must not have."""
        mounts = [row.split()[4] for row in Path(f"/proc/{self.holder.pid}/mountinfo").read_text().splitlines()]
        return {
            "mounts": [
                item
                for item in mounts
                if any(f"{self.root}/{part}" in item for part in ("data/storage/snapshots", "run/netns", "data/build"))
            ],
            "links": [row for row in self.inside("ip", "-br", "link").splitlines() if row.startswith("veth")],
            "directories": [item.name for item in (self.root / "data/containers").glob("*")],
            "conmons": [str(pid) for pid in _naming(str(self.root), "conmon")],
            "rules": [row for row in self.inside("nft", "list", "ruleset").splitlines() if "8099" in row],
        }

    def close(self) -> None:
        self.clients.close()
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(20)
        for pid in _naming(str(self.root), ""):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        groups = [
            *Path("/sys/fs/cgroup").glob(f"*/dy-crash-{self.holder.pid}"),
            *Path("/sys/fs/cgroup").glob(f"dy-crash-{self.holder.pid}"),
        ]
        with contextlib.suppress(AssertionError):
            until(lambda: not any(_killed(group) for group in groups), STOP_LIMIT)
        for group in groups:
            for below in (*sorted((item for item in group.rglob("*") if item.is_dir()), reverse=True), group):
                with contextlib.suppress(OSError):
                    below.rmdir()
        self.holder.kill()
        self.holder.wait(10)


def _killed(group: Path) -> int:
    """Containers outlive their daemon: whatever a failed test left is killed. How many processes there still were."""
    left = [int(pid) for procs in group.rglob("cgroup.procs") for pid in procs.read_text().split()]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def _naming(text: str, program: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                if text in words and (not program or program in words.split("\0")[0]):
                    found.append(int(entry.name))
    return found


def _answers(client: Client) -> bool:
    try:
        return bool(client.ping(timeout=2).api_version)
    except DockyardError:
        return False


def until(condition: Callable[[], bool], limit: float) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        time.sleep(0.02)
