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
                 into a bridge: dnat'ed | link | routed port | open network: accept; else drop
    postrouting  published and back into its own bridge, or from loopback -> masquerade
                 from a masqueraded bridge to elsewhere              -> snat or masquerade

The first masquerade goes by address, for a frame that is sent back at the bridge has no input interface there.

With ``guarded`` (published ports respect the host's input policy) a packet from outside is published only if its sender
has passed the host's own input chains for that port; ``input`` after them writes down who did, drops that first packet,
and the client's retransmission (1 s for TCP) goes through.
"""

from __future__ import annotations

from collections.abc import Iterable

from dockyard.network.model import FAMILIES, LinkRule, Network, Published

NAME = "dockyard"
APPROVAL = "10m"
"""How long a sender's approval lasts before the host's policy is asked again."""
_ADDRESS = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}
_LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1"}
_ICMP = {"ip": "icmp", "ip6": "ipv6-icmp"}

_SETS = """
add table {f} {t}
add set {f} {t} bridges {{ type ifname; }}
add set {f} {t} internal {{ type ifname; }}
add set {f} {t} masked {{ type ifname; }}
add set {f} {t} open {{ type ifname; }}
add set {f} {t} routed {{ type ifname; }}
add set {f} {t} home {{ type ifname . {a}; flags interval; }}
add set {f} {t} talk {{ type ifname . ifname; }}
add set {f} {t} direct {{ type {a} . inet_proto . inet_service; }}
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
add rule {f} {t} forward {f} saddr . {f} daddr . meta l4proto . th dport @links accept
add rule {f} {t} forward {f} daddr . meta l4proto . th dport @direct accept
add rule {f} {t} forward oifname @routed meta l4proto {icmp} accept
add rule {f} {t} forward oifname @open accept
add rule {f} {t} forward oifname @bridges drop
add rule {f} {t} postrouting ct status dnat oifname . {f} saddr @home masquerade
add rule {f} {t} postrouting oifname @bridges {f} saddr {loopback} masquerade
add rule {f} {t} postrouting oifname @bridges return
add rule {f} {t} postrouting snat to iifname map @snat_by
add rule {f} {t} postrouting iifname @masked masquerade
"""
_GUARD = """
add set {f} {t} held {{ type inet_proto . inet_service; }}
add set {f} {t} approved {{ type {a} . inet_proto . inet_service; size 65535; flags dynamic,timeout; timeout {ttl}; }}
add chain {f} {t} input {{ type filter hook input priority 300; }}
flush chain {f} {t} input
add rule {f} {t} input ct state new meta l4proto . th dport @held add @approved {{ {f} saddr . meta l4proto . th dport }} drop
add rule {f} {t} prerouting iifname != @bridges {f} saddr . meta l4proto . th dport != @approved return
"""
_STATE = ("bridges", "internal", "masked", "open", "routed", "home", "talk", "direct", "links")
_MAPS = ("snat_by", "ports_any", "ports_at")

Element = tuple[str, str, str, str]
"""(family, set or map, key, value or "")."""


def remove() -> str:
    return "".join(f"add table {family} {NAME}\ndelete table {family} {NAME}\n" for family in FAMILIES)


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
        if item.direct:
            found.append((family, "direct", f"{item.address} . {item.protocol} . {item.port}", ""))
            continue
        target = f"{item.address} . {item.port}"
        if item.host_ip in {"", "0.0.0.0", "::"}:
            found.append((family, "ports_any", f"{item.protocol} . {item.host_port}", target))
        else:
            found.append((family, "ports_at", f"{item.protocol} . {item.host_ip} . {item.host_port}", target))
        if guarded:
            found.append((family, "held", f"{item.protocol} . {item.host_port}", ""))
    return found


def link_elements(links: Iterable[LinkRule]) -> list[Element]:
    """Both directions: the answer's first packet is known to conntrack, UDP peers may speak first."""
    return [
        ("ip", "links", f"{item.source} . {item.target} . {item.protocol} . {item.port}", "") for item in links
    ]


def add(elements: Iterable[Element]) -> str:
    return "".join(
        f"add element {family} {NAME} {name} {{ {key}{' : ' + value if value else ''} }}\n"
        for family, name, key, value in elements
    )


def delete(elements: Iterable[Element]) -> str:
    """Adds before it deletes: nft refuses to delete what is not there, and removal must be repeatable."""
    rows = list(dict.fromkeys(elements))
    return add(rows) + "".join(f"delete element {family} {NAME} {name} {{ {key} }}\n" for family, name, key, _ in rows)


def whole(elements: Iterable[Element], families: Iterable[str], *, guarded: bool = False) -> str:
    """The complete tables in one transaction: rules and elements are replaced between two packets."""
    text = ""
    chosen = set(families)
    for family in FAMILIES:
        if family not in chosen:
            continue
        words = {"f": family, "t": NAME, "a": _ADDRESS[family], "ttl": APPROVAL}
        own = "" if family == "ip" else f"{family} daddr != ::1 "
        guard = _GUARD.format(**words).lstrip() if guarded else ""
        text += _SETS.format(**words)
        text += _RULES.format(**words, loopback=_LOOPBACK[family], icmp=_ICMP[family], own=own, guard=guard)
        names = (*_STATE, "held") if guarded else _STATE
        text += "".join(f"flush set {family} {NAME} {name}\n" for name in names)
        text += "".join(f"flush map {family} {NAME} {name}\n" for name in _MAPS)
    return text + add(item for item in elements if item[0] in chosen)
