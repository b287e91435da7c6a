"""Bad networks: delay, loss and little bandwidth, made in a container's own network namespace.

The API has no words for these, so they need the engine on this machine and root. What does it:

    loss        an nft rule at the device's ingress and egress hook, with ``numgen random``
    bandwidth   tc's tbf for what is sent, an nft limit for what comes
    delay       tc's netem for what is sent; where the kernel has none, `hop`: packets through a TUN device that waits

All of it is gone with the namespace, and is taken back before by the guard's undos.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockyard.client import Client
from dockyard.compose.errors import CHAOS_IMPOSSIBLE
from dockyard.compose.guard import COMMAND_LIMIT, Guard

Json = dict[str, Any]
TABLE = "dockyard_chaos"
BURST = 1 << 17
"""Bytes that may come at once: above the 64 KiB of one offloaded packet, or none would ever fit."""
_DENSITY = 10_000


@dataclass(frozen=True, slots=True)
class Net:
    """A container's network namespace: reached through its first process, known again by its inode. ``verb`` is what is
    to be done there, for messages."""

    verb: str
    name: str
    pid: int
    inode: int
    devices: tuple[str, ...]

    def command(self, *words: str, told: str = "") -> None:
        """Raises NotImplemented with what the command said."""
        done = self.run(*words, told=told)
        if done.returncode != 0:
            cause = " ".join((done.stderr or done.stdout).split())[:200]
            raise CHAOS_IMPOSSIBLE(verb=self.verb, name=self.name, cause=f"{words[0]}: {cause}")

    def run(self, *words: str, told: str = "") -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *words], capture_output=True, text=True, input=told,
                timeout=COMMAND_LIMIT,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise CHAOS_IMPOSSIBLE(verb=self.verb, name=self.name, cause=error) from None


def reach(client: Client, verb: str, found: Json) -> Net:
    """The namespace of an inspected container. Raises NotImplemented with the reason where it cannot be reached."""
    name, pid = str(found.get("Name") or "").lstrip("/"), int((found.get("State") or {}).get("Pid") or 0)

    def refuse(cause: str) -> Exception:
        return CHAOS_IMPOSSIBLE(verb=verb, name=name, cause=cause)

    if not pid:
        raise refuse("it does not run")
    if os.geteuid() != 0:
        raise refuse("only root may enter its network namespace")
    if client.endpoint.scheme != "unix":
        raise refuse("the engine is on another machine")
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
        inode = os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        raise refuse("its process is not on this machine") from None
    if str(found["Id"]) not in groups:
        raise refuse("its process is not on this machine")
    if inode == os.stat("/proc/self/ns/net").st_ino or (found.get("HostConfig") or {}).get("NetworkMode") == "host":
        raise refuse("it shares the host's network")
    net = Net(verb, name, pid, inode, ())
    rows = [line.split(": ")[1].partition("@")[0] for line in net.run("ip", "-o", "link").stdout.splitlines()]
    devices = tuple(row for row in rows if row != "lo" and not row.startswith("chaos"))
    if not devices:
        raise refuse("it has no network")
    return Net(verb, name, pid, inode, devices)


def loss(net: Net, guard: Guard, percent: float) -> None:
    part = max(1, round(percent / 100 * _DENSITY))
    rule = "drop" if part == _DENSITY else f"numgen random mod {_DENSITY} < {part} drop"
    _table(net, guard, {"egress": rule, "ingress": rule})


def bandwidth(net: Net, guard: Guard, rate: int) -> None:
    """``rate``: bytes a second, each way."""
    _table(net, guard, {"ingress": f"limit rate over {rate} bytes/second burst {BURST} bytes drop"})
    for device in net.devices:
        guard.netns(net.pid, net.inode, _no_qdisc(device))
        burst = max(rate // 10, 1 << 14)
        net.command("tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", f"{rate * 8}bit", "burst", f"{burst}b",
                    "latency", "400ms")  # fmt: skip


def delay(net: Net, guard: Guard, seconds: float, jitter: float) -> None:
    """Of what is sent; so a request and its answer are late once."""
    terms = ["delay", f"{seconds * 1000:.3f}ms", *([f"{jitter * 1000:.3f}ms"] if jitter else [])]
    made = []
    for device in net.devices:
        if net.run("tc", "qdisc", "replace", "dev", device, "root", "netem", *terms).returncode != 0:
            break
        guard.netns(net.pid, net.inode, _no_qdisc(device))
        made.append(device)
    if len(made) == len(net.devices):
        return
    words = [sys.executable, "-m", "dockyard.compose.hop", str(net.pid), str(seconds), str(jitter)]
    program = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    guard.hop(program)
    assert program.stdout is not None
    if (told := program.stdout.readline().decode().strip()) != "ready":
        raise CHAOS_IMPOSSIBLE(verb=net.verb, name=net.name, cause=f"no netem in this kernel, and {told or 'no TUN device'}")


def _no_qdisc(device: str) -> list[str]:
    return ["sh", "-c", 'tc qdisc del dev "$0" root 2>/dev/null; :', device]


def _table(net: Net, guard: Guard, rules: dict[str, str]) -> None:
    chains = [
        f'chain {hook}_{number} {{ type filter hook {hook} device "{device}" priority 0; {rule}; }}'
        for number, device in enumerate(net.devices) for hook, rule in rules.items()
    ]  # fmt: skip
    # Added before it is deleted: so the undo does not mind a table that is not there.
    guard.netns(net.pid, net.inode, ["nft", f"add table netdev {TABLE}; delete table netdev {TABLE}"])
    net.command("nft", "-f", "-", told=f"table netdev {TABLE} {{\n" + "\n".join(chains) + "\n}\n")

