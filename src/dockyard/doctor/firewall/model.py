"""Nouns of the firewall model: packets, matches, rules, chains."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

Match = Callable[["Packet"], bool | None]
"""True, False, or None when it cannot be told from what is known."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What rules look at. Empty interface: none (locally made, or delivered locally). ``local``: dst is the host's."""

    source: str
    destination: str
    proto: str = "tcp"
    sport: int = 40000
    dport: int = 0
    iif: str = ""
    oif: str = ""
    state: str = "new"  # new, established
    local: bool = False
    dnat: bool = False

    def with_(self, **changes: object) -> Packet:
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Verdict:
    """kind: accept, drop, reject, return, jump, goto, dnat, snat, masquerade, redirect, none (counts or marks only)."""

    kind: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    text: str
    matches: tuple[Match, ...]
    verdict: Verdict
    packets: int | None = None
    handle: str = ""


@dataclass(slots=True)
class Chain:
    """``hook``, ``priority``: base chains only. ``owner`` is the back end: iptables-nft, iptables-legacy, nft."""

    owner: str
    family: str
    table: str
    name: str
    kind: str = ""
    hook: str = ""
    priority: int = 0
    policy: str = "accept"
    policy_packets: int | None = None
    rules: list[Rule] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"{self.owner} {self.family} {self.table} {self.name}"


@dataclass(slots=True)
class Ruleset:
    chains: dict[tuple[str, str, str, str], Chain] = field(default_factory=dict)

    def add(self, chain: Chain) -> Chain:
        return self.chains.setdefault((chain.owner, chain.family, chain.table, chain.name), chain)

    def base(self, hook: str, kinds: tuple[str, ...] = ("filter", "nat", "route")) -> list[Chain]:
        """Base chains of a hook in the order the kernel calls them."""
        found = [chain for chain in self.chains.values() if chain.hook == hook and chain.kind in kinds]
        return sorted(found, key=lambda chain: chain.priority)

    def get(self, like: Chain, name: str) -> Chain | None:
        return self.chains.get((like.owner, like.family, like.table, name))

    def named(self, table: str, name: str) -> list[Chain]:
        return [chain for chain in self.chains.values() if chain.table == table and chain.name == name]


@lru_cache(maxsize=4096)
def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


@lru_cache(maxsize=16384)
def within(address: str, net: str) -> bool | None:
    parsed = network(net)
    if parsed is None:
        return None
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    return ip.version == parsed.version and ip in parsed


def interface_matches(pattern: str, name: str) -> bool:
    """iptables and nft end a wildcard with + and * in turn."""
    if pattern.endswith(("+", "*")):
        return name.startswith(pattern[:-1])
    return name == pattern


def negate(match: Match) -> Match:
    def inverted(packet: Packet) -> bool | None:
        value = match(packet)
        return None if value is None else not value

    return inverted


def unknown(_: Packet) -> bool | None:
    return None
