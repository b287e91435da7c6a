"""Follow one probe through the rule sets by the kernel's own trace: each chain and rule it met, and the one that ended it.

For as long as the probe takes there is a table of our own, ``dockyard_trace``, whose only rules switch the trace on
(``meta nftrace set 1``) for the probe's addresses and port, both ways; nothing else is changed, and it is removed whatever
happens. The kernel reports by netlink (NFT_MSG_TRACE, group NFNLGRP_NFTRACE; linux/netfilter/nf_tables.h); rules of
iptables-nft are nft rules and show up too, those of iptables-legacy do not.
"""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress

from dockyard.doctor.collect.namespaces import inside
from dockyard.doctor.collect.rtnetlink import attributes
from dockyard.doctor.trace.model import Flow, Hop

TABLE = "dockyard_trace"
MAX_HOPS = 200
TOOL_TIMEOUT = 3.0
_NETLINK_NETFILTER = 12  # linux/netlink.h; Python has no name for it
_GROUP_TRACE = 9
_TRACE = 10 << 8 | 17  # NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE
_POLICY, _RETURN, _RULE = 1, 2, 3
_VERDICTS = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", -1 & 0xFFFFFFFF: "continue", -2 & 0xFFFFFFFF: "break",
             -3 & 0xFFFFFFFF: "jump", -4 & 0xFFFFFFFF: "goto", -5 & 0xFFFFFFFF: "return"}  # fmt: skip
_FAMILIES = {1: "inet", 2: "ip", 7: "bridge", 10: "ip6"}


class Follower:
    """Arm, let the probe run, `hops`; a context manager whose end takes the table away."""

    def __init__(self, pid: int, flow: Flow, source: str) -> None:
        self.pid, self.flow, self.source = pid, flow, source
        self.socket: socket.socket | None = None

    def __enter__(self) -> Follower:
        """Raises OSError where the kernel or the tool refuses; nothing is left then."""
        self.socket = inside(self.pid, _listen)
        try:
            self._nft(setup(self.flow, self.source))
        except OSError:
            self.socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._nft(f"delete table ip {TABLE}")
        if self.socket is not None:
            self.socket.close()

    def hops(self) -> list[Hop]:
        """What the kernel has told so far, with the rules' texts; ours left out."""
        assert self.socket is not None
        found: list[Hop] = []
        with suppress(BlockingIOError):
            while len(found) < MAX_HOPS:
                found += [hop for hop in messages(self.socket.recv(1 << 16)) if hop.table != TABLE]
        return [self._told(hop) for hop in found]

    def _told(self, hop: Hop) -> Hop:
        """With the hook of its chain and the text of its rule, from ``nft -a list chain``. Only where a packet ended."""
        if hop.verdict not in ("drop", "reject"):
            return hop
        from msgspec.structs import replace

        with suppress(OSError):
            text = self._nft(f"list chain {hop.family} {hop.table} {hop.chain}")
            return replace(hop, rule=rule_of(text, hop.handle), hook=self._hook(hop, text))
        return hop

    def _hook(self, hop: Hop, text: str) -> str:
        """Of the chain, or of the one that jumps to it."""
        chain = hop.chain
        for _ in range(8):
            match = re.search(r"type \w+ hook (\w+)", text)
            if match:
                return match[1]
            whole = self._nft(f"list table {hop.family} {hop.table}")
            chain = caller_of(whole, chain)
            if not chain:
                break
            text = self._nft(f"list chain {hop.family} {hop.table} {chain}")
        return ""

    def _nft(self, script: str) -> str:
        path = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin")
        if path is None:
            raise OSError("nft is not installed")

        def run() -> str:
            done = subprocess.run([path, "-a", "-f", "-"], input=script.encode(), capture_output=True, timeout=TOOL_TIMEOUT, check=False)
            if done.returncode:
                raise OSError(done.stderr.decode("utf-8", "replace").strip())
            return done.stdout.decode("utf-8", "replace")

        try:
            return inside(self.pid, run)
        except subprocess.TimeoutExpired as error:
            raise OSError(str(error)) from None


def setup(flow: Flow, source: str) -> str:
    """The table: before all others of the two hooks where a packet begins (raw is at -300, the trace must be on by then)."""
    there = f"ip daddr {flow.address} {flow.proto} dport {flow.port} meta nftrace set 1"
    back = f"ip saddr {flow.address} {flow.proto} sport {flow.port} meta nftrace set 1"
    if source:
        there = f"ip saddr {source} {there}"
    chains = "".join(
        f"chain {hook} {{\n type filter hook {hook} priority -400; policy accept;\n {there}\n {back}\n}}\n"
        for hook in ("prerouting", "output")
    )
    return f"table ip {TABLE} {{\n{chains}}}\n"


def _listen() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
    try:
        sock.bind((0, 1 << (_GROUP_TRACE - 1)))
    except OSError:
        sock.close()
        raise
    return sock


def messages(data: bytes) -> Iterator[Hop]:
    """The trace messages of one datagram."""
    offset = 0
    while offset + 20 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 20:
            return
        if kind == _TRACE:
            hop = _hop(data[offset + 16], attributes(data[offset + 20 : offset + length]))
            if hop is not None:
                yield hop
        offset += (length + 3) & ~3


def _hop(family: int, fields: dict[int, bytes]) -> Hop | None:
    """Of a rule, a policy or a return; None for messages that only show the packet."""
    kind = _number(fields.get(4))
    handle = struct.unpack(">Q", fields[3])[0] if len(fields.get(3, b"")) == 8 else 0
    if kind not in (_POLICY, _RETURN, _RULE):
        return None
    code = _number(attributes(fields.get(5, b"")).get(1)) if kind != _POLICY else _number(fields.get(16))
    table, chain = (fields.get(key, b"").rstrip(b"\0").decode("utf-8", "replace") for key in (1, 2))
    return Hop(_FAMILIES.get(family, str(family)), table, chain, handle if kind == _RULE else 0, _VERDICTS.get(code, str(code)))


def _number(value: bytes | None) -> int:
    return int(struct.unpack(">I", value)[0]) if value and len(value) == 4 else 0


def rule_of(text: str, handle: int) -> str:
    """The line of that handle in ``nft -a list chain``; 0 stands for the policy."""
    if not handle:
        policy = re.search(r"policy (\w+);", text)
        return f"policy {policy[1]}" if policy else "policy"
    for line in text.splitlines():
        if line.endswith(f" # handle {handle}") and not line.lstrip().startswith("chain "):
            return re.sub(r" ?counter packets \d+ bytes \d+", "", line.rpartition(" # handle ")[0]).strip()
    return f"handle {handle}"


def caller_of(table: str, chain: str) -> str:
    """The first chain of ``nft list table`` with a jump or goto to ``chain``, empty if none."""
    here = ""
    for line in table.splitlines():
        begin = re.match(r"\s*chain (\S+) {", line)
        here = begin[1] if begin else here
        if re.search(rf"\b(?:jump|goto) {re.escape(chain)}\b", line):
            return here
    return ""


def last(hops: list[Hop]) -> Hop | None:
    """Where the packet or its answer ended, None if nothing of this host stopped it."""
    return next((hop for hop in hops if hop.verdict in ("drop", "reject")), None)


Probe = Callable[[], tuple[str, float]]


def follow(pid: int, flow: Flow, source: str, probe: Probe) -> tuple[tuple[str, float], list[Hop]]:
    """Run the probe while the trace is on. Raises OSError when it cannot be switched on."""
    with Follower(pid, flow, source) as follower:
        outcome = probe()
        return outcome, follower.hops()
