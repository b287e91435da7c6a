"""Which network gives a sandbox its default route, and what is published through which door. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from dockyard.network.model import FAMILIES, Door, Endpoint, LinkRule, Network, Published, Sandbox

Pair = tuple[Network, Endpoint]


def gateway(pairs: Iterable[Pair], family: str = "ip") -> Pair | None:
    """The highest priority, then the first by name; internal networks never (moby daemon/libnetwork/sandbox.go)."""
    able = [pair for pair in pairs if _leads_out(*pair, family)]
    return min(able, key=lambda pair: (-pair[1].wish.gw_priority, pair[0].name), default=None)


def _leads_out(network: Network, endpoint: Endpoint, family: str) -> bool:
    if not network.wired or network.internal:
        return False
    if network.remote:
        return bool(gateway_of(network, endpoint, family))
    return network.subnet(family) is not None and network.gateway_mode(family) != "isolated"


def gateway_of(network: Network, endpoint: Endpoint, family: str) -> str:
    """Where the endpoint's packets for elsewhere go: --default-gateway, the network's own, or what a plugin said."""
    if network.remote:
        joined = endpoint.joined
        return (joined.gateway if family == "ip" else joined.gateway6) if joined else ""
    subnet = network.subnet(family)
    if subnet is None:
        return ""
    return subnet.auxiliary.get("DefaultGatewayIPv4" if family == "ip" else "DefaultGatewayIPv6") or subnet.gateway


def doors(pairs: Sequence[Pair]) -> list[Door]:
    """``gateway`` is "" where packets leave without one (ipvlan l3)."""
    found = []
    for family in FAMILIES:
        pair = gateway(pairs, family)
        if pair:
            without = pair[0].driver == "ipvlan" and pair[0].option("ipvlan_mode", "l2") != "l2"
            found.append(Door(family, "" if without else gateway_of(*pair, family), pair[1].interface))
    return found


def needs_gateway_network(pairs: Iterable[Pair]) -> bool:
    """Whether only endpoints of plugins are there, none of which has a way out though one may have it: libnetwork then
    adds a second interface, on ``docker_gwbridge`` (default_gateway.go)."""
    rows = [pair for pair in pairs if pair[0].wired]
    if any(not network.remote and not network.internal for network, _ in rows):
        return False
    open_ones = [item for network, item in rows if network.remote and not network.internal and item.joined]
    if any(item.joined and (item.joined.gateway or item.joined.gateway6) for item in open_ones):
        return False
    return any(item.joined and not item.joined.no_gateway_service for item in open_ones)


def reached(network: Network, ports: Iterable[Published], *, direct: bool) -> list[Published]:
    """Ports with the ways in that the network's gateway mode gives: in a routed one a published port is reached at the
    container itself; ``direct`` (--allow-direct-routing) and trusted interfaces reach it there besides."""
    made = []
    for item in ports:
        mode = network.gateway_mode("ip6" if ":" in item.address else "ip")
        if mode in {"routed", "isolated"}:
            made.append(Published(item.port, item.protocol, item.host_ip, item.port, item.address, direct=True))
        else:
            trusted = ("*",) if direct else tuple(network.trusted_interfaces)
            made.append(msgspec.structs.replace(item, trusted=trusted))
    return made


def links(own: Endpoint, targets: Iterable[tuple[Endpoint, Sandbox]]) -> list[LinkRule]:
    """With icc=false a linked container's exposed ports are open, and nothing else (moby drivers/bridge/link.go)."""
    made = []
    for endpoint, sandbox in targets:
        ports = {*sandbox.exposed, *(f"{item.port}/{item.protocol}" for item in sandbox.published)}
        if endpoint.network != own.network or not endpoint.address:
            continue
        for spec in sorted(ports):
            number, _, protocol = spec.partition("/")
            made.append(LinkRule(own.addresses[0], endpoint.addresses[0], protocol or "tcp", int(number)))
    return made
