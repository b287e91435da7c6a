"""The flight recorder: engine events, links, rule sets and sysctls, with who changed them where that can be known.

Sources: the engine's event stream (a thread), rtnetlink multicast for links, addresses and routes, `nft monitor` where it
exists (its trace names the process), and a comparison of what has no notification (sysctls, how full the table of connections
is) every two seconds. Each
line has a time; ten minutes are kept, and a full examination follows every change of the kernel's side.
"""

from __future__ import annotations

import os
import queue
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from dockyard.client import Client
from dockyard.doctor.collect import collect
from dockyard.doctor.collect.engine import peer_pid
from dockyard.doctor.collect.namespaces import inside
from dockyard.doctor.examine import examine
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Severity
from dockyard.errors import DockyardError

KEEP_SECONDS = 600.0
QUIET_SECONDS = 0.5  # a change is examined when nothing more has come for so long
SYSCTL_SECONDS = 2.0
_GROUPS = 0x1 | 0x10 | 0x40  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE
_NAMES = {16: "link changed", 17: "link removed", 20: "address added", 21: "address removed", 24: "route added",
          25: "route removed"}  # fmt: skip
_TRACKED = "/proc/sys/net/netfilter"
CROWDED = 0.9  # of the connection table: beyond it new connections begin to be dropped at random (NET-20)
_SYSCTLS = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")


class Note(NamedTuple):
    at: float
    source: str
    text: str
    kernel: bool  # something that a fault can follow from


class Recorder:
    """Collects notes in threads; `notes` gives them as they come."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.pid = peer_pid(client.endpoint) or os.getpid()
        self.kept: deque[Note] = deque()
        self._queue: queue.Queue[Note] = queue.Queue(10_000)
        self.stop = threading.Event()

    def start(self) -> None:
        for work in (self._events, self._netlink, self._nft, self._sysctls):
            threading.Thread(target=work, daemon=True, name=work.__name__).start()

    def note(self, source: str, text: str, *, kernel: bool) -> None:
        item = Note(time.time(), source, text, kernel)
        self.kept.append(item)
        while self.kept and self.kept[0].at < item.at - KEEP_SECONDS:
            self.kept.popleft()
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            return  # a flood: the examination that follows sees the outcome anyway

    def notes(self, seconds: float) -> Iterator[Note]:
        """Notes until ``seconds`` pass without one."""
        while True:
            try:
                yield self._queue.get(timeout=seconds)
            except queue.Empty:
                return

    def _events(self) -> None:
        while not self.stop.is_set():
            try:
                with self.client.open("GET", "/events") as answer:
                    answer.settimeout(None)
                    for event in answer.objects():
                        actor = (event.get("Actor") or {}).get("Attributes") or {}
                        text = f"{event.get('Type')} {actor.get('name', '')} {event.get('Action')}"
                        self.note(
                            "engine", text, kernel=event.get("Action") in ("die", "oom", "health_status: unhealthy")
                        )
            except DockyardError as error:
                self.note("engine", f"event stream lost: {error}", kernel=True)
                self.stop.wait(SYSCTL_SECONDS)

    def _netlink(self) -> None:
        try:
            sock = inside(self.pid, _subscribe)
        except (OSError, TimeoutError) as error:
            self.note("recorder", f"cannot watch links: {error}", kernel=False)
            return
        with sock:
            while not self.stop.is_set():
                data = sock.recv(1 << 16)
                kind, sender = struct.unpack_from("=H", data, 4)[0], struct.unpack_from("=I", data, 12)[0]
                who = f" by pid {sender}" if sender else ""
                self.note("netlink", _NAMES.get(kind, f"message {kind}") + _link_name(data, kind) + who, kernel=True)

    def _nft(self) -> None:
        path = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
        if path is None:
            return
        with inside(self.pid, lambda: _spawn([path, "monitor"])) as child:
            assert child.stdout is not None
            for line in child.stdout:
                text = line.decode("utf-8", "replace").strip()
                if text.startswith("# new generation"):
                    self.note("nft", text.removeprefix("# "), kernel=True)  # names the process: "by process 12 (nft)"
                elif self.stop.is_set():
                    child.kill()

    def _sysctls(self) -> None:
        seen, crowded = self._read_sysctls(), False
        while not self.stop.wait(SYSCTL_SECONDS):
            share = tracked(_TRACKED)
            if (share >= CROWDED) is not crowded:
                crowded = not crowded
                text = f"table of connections {share:.0%} full" + ("" if crowded else " again")
                self.note("conntrack", text, kernel=crowded)
            now = self._read_sysctls()
            for name, value in now.items():
                if seen.get(name) != value:
                    self.note("sysctl", f"{name.replace('/', '.')}: {seen.get(name)} to {value}", kernel=True)
            seen = now

    def _read_sysctls(self) -> dict[str, str]:
        def read() -> dict[str, str]:
            found = {}
            for name in _SYSCTLS:
                try:
                    with open(f"/proc/sys/{name}") as file:
                        found[name] = file.read().strip()
                except OSError:
                    continue
            return found

        return inside(self.pid, read)


def tracked(directory: str) -> float:
    """Share of the connection table that is in use, 0 where it cannot be read. The table is the machine's: its limit is that
    of the first namespace."""
    try:
        with open(f"{directory}/nf_conntrack_count") as used, open(f"{directory}/nf_conntrack_max") as most:
            return int(used.read()) / max(1, int(most.read()))
    except (OSError, ValueError):
        return 0.0


def _subscribe() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    sock.bind((0, _GROUPS))
    return sock


def _spawn(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _link_name(data: bytes, kind: int) -> str:
    from dockyard.doctor.collect.rtnetlink import attributes

    if kind not in (16, 17):
        return ""
    return " " + attributes(data[32:]).get(3, b"").rstrip(b"\0").decode("utf-8", "replace")


def watch(client: Client, *, rounds: int = 0) -> int:
    """Print notes and new faults until interrupted (or ``rounds`` examinations)."""
    recorder = Recorder(client)
    recorder.start()
    known = faults(client)
    for line in known.values():
        print(line, flush=True)
    done = 0
    try:
        while not rounds or done < rounds:
            changed = False
            for item in recorder.notes(QUIET_SECONDS):
                print(f"{time.strftime('%H:%M:%S', time.localtime(item.at))} {item.source:<8}{item.text}", flush=True)
                changed |= item.kernel
            if not changed:
                continue
            done += 1
            now = faults(client)
            for key in now.keys() - known.keys():
                print(now[key], flush=True)
            for key in known.keys() - now.keys():
                print(f"✓ {key} is gone", flush=True)
            known = now
    except KeyboardInterrupt:
        pass
    finally:
        recorder.stop.set()
    return 2 if known else 0


def faults(client: Client) -> dict[str, str]:
    """Present faults by key, as one line each."""
    report = examine(collect(client), all_rules())
    return {item.key: f"✗ {item.id} {item.object}: {item.title}" for item in report.findings
            if item.severity is Severity.FAULT}  # fmt: skip
