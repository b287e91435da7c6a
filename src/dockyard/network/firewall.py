"""The firewall as text for one nft transaction. Pure.

One table of our own per address family, ``ip dockyard`` and ``ip6 dockyard``. Rules never change; networks, published
ports and links are elements of sets and maps, so that the five-thousandth container costs what the first did. Other
tables stay as they are: a drop of the administrator's (DOCKER-USER, firewalld, ufw) holds, for every base chain at a
hook has its say.

::

    raw          packets for 127/8 from elsewhere: drop                   (published on 127.0.0.1 stays there)
    prerouting   local address and port in ports_any, ports_at   -> dnat  (output: the same, for the host's own)
    forward      known flow, or same bridge with icc: accept
                 internal in or out: drop
                 into a bridge: dnat'ed | marked | link | routed port | trusted | open network: accept; else drop
                 between two interfaces that were there when we switched forwarding on: drop
    postrouting  published and back into its own bridge, or from loopback -> masquerade
                 from a masqueraded bridge to elsewhere              -> snat or masquerade

The first masquerade goes by address, for a frame that is sent back at the bridge has no input interface there.

With ``guarded`` (published ports respect the host's input policy) a packet from outside is published only if its sender
has passed the host's own input chains for that port; ``input`` after them writes down who did, drops that first packet,
and the client's retransmission (1 s for TCP) goes through.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dockyard.kernel.netlink_nft import SetElement, pack_field
from dockyard.network.model import FAMILIES, LinkRule, Network, Published, Sandbox

NAME = "dockyard"
"""Our table; a second engine in the same network namespace takes another name."""
MAX_COMMENT = 128
"""Bytes; nftnl's limit."""
APPROVAL = "1m"
"""How long a sender's approval lasts before the host's policy is asked again."""
ADMISSIONS = "250/second burst 50 packets"
"""First packets that ``admission`` puts before their interface again: 0.3 ms each, so a flood of senders takes a tenth
of the daemon's time. The others are lost, and TCP comes again."""
_ADDRESS = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}
_LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1"}
_ICMP = {"ip": "icmp", "ip6": "ipv6-icmp"}

_SETS = """
add table {f} {t}{owner}
add set {f} {t} bridges {{ type ifname; }}
add set {f} {t} internal {{ type ifname; }}
add set {f} {t} masked {{ type ifname; }}
add set {f} {t} open {{ type ifname; }}
add set {f} {t} routed {{ type ifname; }}
add set {f} {t} home {{ type ifname . {a}; flags interval; }}
add set {f} {t} talk {{ type ifname . ifname; }}
add set {f} {t} direct {{ type {a} . inet_proto . inet_service; }}
add set {f} {t} trusted {{ type ifname . {a} . inet_proto . inet_service; }}
add set {f} {t} uplinks {{ type ifname; }}
add set {f} {t} links {{ type {a} . {a} . inet_proto . inet_service; }}
add map {f} {t} snat_by {{ type ifname : {a}; }}
add map {f} {t} ports_any {{ type inet_proto . inet_service : {a} . inet_service; }}
add map {f} {t} ports_at {{ type inet_proto . {a} . inet_service : {a} . inet_service; }}
add chain {f} {t} raw {{ type filter hook prerouting priority -300; }}
add chain {f} {t} publish
add chain {f} {t} prerouting {{ type nat hook prerouting priority -100; }}
add chain {f} {t} output {{ type nat hook output priority -100; }}
add chain {f} {t} forward {{ type filter hook forward priority 0; }}
add chain {f} {t} postrouting {{ type nat hook postrouting priority 100; }}
"""
_RULES = """
flush chain {f} {t} raw
flush chain {f} {t} publish
flush chain {f} {t} prerouting
flush chain {f} {t} output
flush chain {f} {t} forward
flush chain {f} {t} postrouting
add rule {f} {t} raw iifname != "lo" {f} daddr {loopback} drop
add rule {f} {t} publish dnat to meta l4proto . {f} daddr . th dport map @ports_at
add rule {f} {t} publish dnat to meta l4proto . th dport map @ports_any
{guard}add rule {f} {t} prerouting fib daddr type local jump publish
add rule {f} {t} output {own}fib daddr type local jump publish
add rule {f} {t} forward ct state established,related accept
add rule {f} {t} forward iifname . oifname @talk accept
add rule {f} {t} forward iifname @internal drop
add rule {f} {t} forward oifname @internal drop
add rule {f} {t} forward oifname @bridges ct status dnat accept
{mark}add rule {f} {t} forward {f} saddr . {f} daddr . meta l4proto . th dport @links accept
add rule {f} {t} forward {f} daddr . meta l4proto . th dport @direct accept
add rule {f} {t} forward iifname . {f} daddr . meta l4proto . th dport @trusted accept
add rule {f} {t} forward oifname @routed meta l4proto {icmp} accept
add rule {f} {t} forward oifname @open accept
add rule {f} {t} forward oifname @bridges drop
add rule {f} {t} forward iifname @uplinks oifname @uplinks drop
add rule {f} {t} postrouting ct status dnat oifname . {f} saddr @home masquerade
add rule {f} {t} postrouting oifname @bridges {f} saddr {loopback} masquerade
add rule {f} {t} postrouting oifname @bridges return
add rule {f} {t} postrouting snat to iifname map @snat_by
add rule {f} {t} postrouting iifname @masked masquerade
"""
_GUARD = """
add set {f} {t} held {{ type inet_proto . inet_service; }}
add set {f} {t} held_at {{ type inet_proto . {a} . inet_service; }}
add set {f} {t} approved {{ type {a} . inet_proto . inet_service; size 65535; flags dynamic,timeout; timeout {ttl}; }}
add chain {f} {t} input {{ type filter hook input priority 300; }}
add chain {f} {t} admit
flush chain {f} {t} input
flush chain {f} {t} admit
add rule {f} {t} input ct state new meta l4proto . th dport @held jump admit
add rule {f} {t} input ct state new meta l4proto . {f} daddr . th dport @held_at jump admit
add rule {f} {t} admit {f} saddr . meta l4proto . th dport @approved drop
add rule {f} {t} admit add @approved {{ {f} saddr . meta l4proto . th dport }} limit rate {rate} log group {group} queue-threshold 1
add rule {f} {t} admit drop
add rule {f} {t} prerouting iifname != @bridges {f} saddr . meta l4proto . th dport != @approved return
"""
_MARK = "add rule {f} {t} forward oifname @bridges meta mark and {mask} == {value} accept\n"
_STATE = (
    "bridges", "internal", "masked", "open", "routed", "home", "talk", "direct", "trusted", "uplinks", "links",
)  # fmt: skip
_MAPS = ("snat_by", "ports_any", "ports_at")
_HELD = {"ports_any": "held", "ports_at": "held_at"}
"""The keys of a map once more as a set: nft has no rule that only asks whether a map has a key."""

Element = tuple[str, str, str, str]
"""(family, set or map, key, value or "")."""


def network_elements(network: Network) -> list[Element]:
    found: list[Element] = []
    bridge = f'"{network.bridge}"'
    for family in FAMILIES:
        subnet = network.subnet(family)
        if subnet is None:
            continue
        mode = network.gateway_mode(family)
        names = ["bridges"]
        names += ["internal"] if network.internal else []
        names += ["open"] if mode == "nat-unprotected" else []
        names += ["routed"] if mode == "routed" else []
        outward = network.masquerade and mode in {"nat", "nat-unprotected"}
        source = network.option(f"com.docker.network.host_{'ipv4' if family == 'ip' else 'ipv6'}")
        names += ["masked"] if outward and not source else []
        found += [(family, name, bridge, "") for name in names]
        found += [(family, "snat_by", bridge, source)] if outward and source else []
        found.append((family, "home", f"{bridge} . {subnet.subnet}", ""))
        found += [(family, "talk", f"{bridge} . {bridge}", "")] if network.icc else []
    return found


def port_elements(ports: Iterable[Published], *, guarded: bool = False) -> list[Element]:
    found: list[Element] = []
    for item in ports:
        family = "ip6" if ":" in item.address else "ip"
        at = f"{item.address} . {item.protocol} . {item.port}"
        if item.direct or "*" in item.trusted:
            found.append((family, "direct", at, ""))
        found += [(family, "trusted", f'"{name}" . {at}', "") for name in item.trusted if name != "*"]
        if item.direct or item.proxied:
            continue
        target = f"{item.address} . {item.port}"
        if item.host_ip in {"", "0.0.0.0", "::"}:
            found.append((family, "ports_any", f"{item.protocol} . {item.host_port}", target))
        else:
            found.append((family, "ports_at", f"{item.protocol} . {item.host_ip} . {item.host_port}", target))
        if guarded:
            _, name, key, _ = found[-1]
            found.append((family, _HELD[name], key, ""))
    return found


_TYPES = {
    "direct": ("addr", "inet_proto", "inet_service"), "held": ("inet_proto", "inet_service"),
    "held_at": ("inet_proto", "addr", "inet_service"),
    "trusted": ("ifname", "addr", "inet_proto", "inet_service"),
    "links": ("addr", "addr", "inet_proto", "inet_service"), "ports_any": ("inet_proto", "inet_service"),
    "ports_at": ("inet_proto", "addr", "inet_service"),
}  # fmt: skip
"""Fields of the keys of those sets that change with containers."""
_TARGET = ("addr", "inet_service")


def packed(element: Element) -> SetElement:
    """A port's or link's element as the kernel takes it."""
    family, name, key, value = element
    own = {"addr": _ADDRESS[family]}

    def fields(kinds: Sequence[str], text: str) -> bytes:
        parts = zip(kinds, text.split(" . "), strict=True)
        return b"".join(pack_field(own.get(kind, kind), part.strip('"')) for kind, part in parts)

    number = socket.AF_INET if family == "ip" else socket.AF_INET6
    return SetElement(number, name, fields(_TYPES[name], key), fields(_TARGET, value) if value else b"")


def link_elements(links: Iterable[LinkRule]) -> list[Element]:
    """One direction: an answer is known to conntrack."""
    return [
        ("ip6" if ":" in item.source else "ip", "links", f"{item.source} . {item.target} . {item.protocol} . {item.port}", "")
        for item in links
    ]


@dataclass(frozen=True, slots=True)
class Rules:
    """Texts for the tables of one engine."""

    table: str = NAME
    families: Sequence[str] = FAMILIES
    guarded: bool = False
    fwmark: str = ""
    owner: str = ""
    """The engine's data root, written beside the table: whoever finds it knows whether that engine is still there."""

    @property
    def group(self) -> int:
        """Where first packets are logged; another one for each table, as a group has one listener."""
        return 0x4000 | zlib.crc32(self.table.encode()) & 0x3FFF

    def elements(self, sandbox: Sandbox) -> list[Element]:
        return self._chosen([*port_elements(sandbox.published, guarded=self.guarded), *link_elements(sandbox.links)])

    def network(self, network: Network) -> list[Element]:
        return self._chosen(network_elements(network))

    def uplinks(self, names: Iterable[str]) -> list[Element]:
        return [(family, "uplinks", f'"{name}"', "") for family in self.families for name in names]

    def _chosen(self, elements: Iterable[Element]) -> list[Element]:
        return [item for item in elements if item[0] in self.families]

    def add(self, elements: Iterable[Element]) -> str:
        return "".join(
            f"add element {family} {self.table} {name} {{ {key}{' : ' + value if value else ''} }}\n"
            for family, name, key, value in elements
        )

    def delete(self, elements: Iterable[Element]) -> str:
        """Adds before it deletes: nft refuses to delete what is not there, and removal must be repeatable."""
        rows = list(dict.fromkeys(elements))
        return self.add(rows) + "".join(
            f"delete element {family} {self.table} {name} {{ {key} }}\n" for family, name, key, _ in rows
        )

    def whole(self, elements: Iterable[Element], *, anew: bool = False) -> str:
        """The complete tables in one transaction: rules and elements are replaced between two packets. ``anew`` for
        tables that cannot be completed, e.g. those of another version of ours."""
        text = self.remove() if anew else ""
        for family in self.families:
            words = {"f": family, "t": self.table, "a": _ADDRESS[family]}
            own = "" if family == "ip" else f"{family} daddr != ::1 "
            words_of_guard = {"ttl": APPROVAL, "rate": ADMISSIONS, "group": self.group}
            guard = _GUARD.format(**words, **words_of_guard).lstrip() if self.guarded else ""
            mark = _MARK.format(**words, **_mark(self.fwmark)) if self.fwmark else ""
            text += _SETS.format(**words, owner=_comment(self.owner))
            text += _RULES.format(
                **words, loopback=_LOOPBACK[family], icmp=_ICMP[family], own=own, guard=guard, mark=mark
            )
            names = (*_STATE, *_HELD.values()) if self.guarded else _STATE
            text += "".join(f"flush set {family} {self.table} {name}\n" for name in names)
            text += "".join(f"flush map {family} {self.table} {name}\n" for name in _MAPS)
        return text + self.add(self._chosen(elements))

    def remove(self) -> str:
        return "".join(f"add table {family} {self.table}\ndelete table {family} {self.table}\n" for family in FAMILIES)


def _comment(owner: str) -> str:
    fits = owner and len(owner) < MAX_COMMENT and not set(owner) & set('"\\\n')
    return f' {{ comment "{owner}"; }}' if fits else ""


def _mark(text: str) -> dict[str, int]:
    """VALUE or VALUE/MASK, as iptables takes it."""
    value, _, mask = text.partition("/")
    return {"value": int(value, 0), "mask": int(mask, 0) if mask else 0xFFFFFFFF}
