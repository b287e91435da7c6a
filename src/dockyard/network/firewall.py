"""The firewall as text for one nft transaction. Pure.

One table of our own, ``ip dockyard``; rules never change, networks and published ports are elements of its sets and maps,
so that the five-thousandth container costs what the first did. Other tables are not looked at: a drop of the
administrator's (DOCKER-USER, firewalld, ufw) holds, for every base chain at a hook has its say.

::

    prerouting, output  local address and port in ports_any / ports_ip      -> dnat to the container
    forward             same bridge (icc) accept; published accept; other ways into a bridge drop; internal drop
    postrouting         from our subnets to elsewhere, hairpin, loopback     -> masquerade
"""

from __future__ import annotations

from collections.abc import Iterable

from dockyard.network.model import Network, Published

TABLE = "ip dockyard"

BASE = """
add table ip dockyard
add set ip dockyard bridges { type ifname; }
add set ip dockyard internal { type ifname; }
add set ip dockyard same { type ifname . ifname; }
add set ip dockyard subnets { type ipv4_addr; flags interval; }
add map ip dockyard ports_any { type inet_proto . inet_service : ipv4_addr . inet_service; }
add map ip dockyard ports_ip { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }
add chain ip dockyard prerouting { type nat hook prerouting priority -100; }
add chain ip dockyard raw { type filter hook prerouting priority -300; }
add chain ip dockyard output { type nat hook output priority -100; }
add chain ip dockyard forward { type filter hook forward priority 0; }
add chain ip dockyard postrouting { type nat hook postrouting priority 100; }
flush chain ip dockyard prerouting
flush chain ip dockyard raw
flush chain ip dockyard output
flush chain ip dockyard forward
flush chain ip dockyard postrouting
add rule ip dockyard raw iifname != "lo" ip daddr 127.0.0.0/8 drop
add rule ip dockyard prerouting fib daddr type local dnat ip to meta l4proto . th dport map @ports_any
add rule ip dockyard prerouting dnat ip to meta l4proto . ip daddr . th dport map @ports_ip
add rule ip dockyard output fib daddr type local dnat ip to meta l4proto . th dport map @ports_any
add rule ip dockyard output dnat ip to meta l4proto . ip daddr . th dport map @ports_ip
add rule ip dockyard forward ct state established,related accept
add rule ip dockyard forward iifname . oifname @same accept
add rule ip dockyard forward iifname @internal drop
add rule ip dockyard forward oifname @internal drop
add rule ip dockyard forward oifname @bridges ct status dnat accept
add rule ip dockyard forward oifname @bridges drop
add rule ip dockyard postrouting ct status dnat ip saddr @subnets oifname @bridges masquerade
add rule ip dockyard postrouting ip saddr 127.0.0.0/8 oifname @bridges masquerade
add rule ip dockyard postrouting ip saddr @subnets oifname != @bridges masquerade
"""


def _elements(network: Network) -> list[tuple[str, str]]:
    bridge = f'"{network.bridge}"'
    found = [("bridges", bridge)]
    if network.internal:
        found.append(("internal", bridge))
    if network.icc:
        found.append(("same", f"{bridge} . {bridge}"))
    if network.masquerade:
        found += [("subnets", subnet.subnet) for subnet in network.subnets]
    return found


def add_network(network: Network) -> str:
    return "".join(f"add element {TABLE} {name} {{ {value} }}\n" for name, value in _elements(network))


def remove_network(network: Network) -> str:
    """Adds before it deletes: nft refuses to delete what is not there, and removal must be repeatable."""
    return add_network(network) + "".join(
        f"delete element {TABLE} {name} {{ {value} }}\n" for name, value in _elements(network)
    )


def _port(published: Published) -> tuple[str, str, str]:
    target = f"{published.address} . {published.port}"
    if published.host_ip in {"", "0.0.0.0"}:
        return "ports_any", f"{published.protocol} . {published.host_port}", target
    return "ports_ip", f"{published.protocol} . {published.host_ip} . {published.host_port}", target


def add_ports(ports: Iterable[Published]) -> str:
    rows = [_port(item) for item in ports]
    return "".join(f"add element {TABLE} {name} {{ {key} : {target} }}\n" for name, key, target in rows)


def remove_ports(ports: Iterable[Published]) -> str:
    rows = [_port(item) for item in ports]
    return add_ports(ports) + "".join(f"delete element {TABLE} {name} {{ {key} }}\n" for name, key, _ in rows)


def whole(networks: Iterable[Network], ports: Iterable[Published]) -> str:
    """The complete table in one transaction: elements are replaced while established connections go on."""
    flush = "".join(f"flush set {TABLE} {name}\n" for name in ("bridges", "internal", "same", "subnets"))
    flush += "".join(f"flush map {TABLE} {name}\n" for name in ("ports_any", "ports_ip"))
    return BASE + flush + "".join(add_network(network) for network in networks) + add_ports(ports)
