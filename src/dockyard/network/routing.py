"""Which network gives a sandbox its default route, and what is published through which door. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dockyard.network.model import FAMILIES, Door, Endpoint, LinkRule, Network, Published, Sandbox

Pair = tuple[Network, Endpoint]


def gateway(pairs: Iterable[Pair], family: str = "ip") -> Pair | None:
    """The highest priority, then the first by name; internal networks never (moby daemon/libnetwork/sandbox.go)."""
    able = [pair for pair in pairs if _leads_out(pair[0], family)]
    return min(able, key=lambda pair: (-pair[1].wish.gw_priority, pair[0].name), default=None)


def _leads_out(network: Network, family: str) -> bool:
    if network.driver not in {"bridge", "macvlan"} or network.internal:
        return False
    return network.subnet(family) is not None and network.gateway_mode(family) != "isolated"


def doors(pairs: Sequence[Pair]) -> list[Door]:
    found = []
    for family in FAMILIES:
        pair = gateway(pairs, family)
        subnet = pair[0].subnet(family) if pair else None
        if pair and subnet:
            found.append(Door(family, subnet.gateway, pair[1].interface))
    return found


def directly(network: Network, ports: Iterable[Published]) -> list[Published]:
    """In a routed network a published port is reached at the container itself."""
    made = []
    for item in ports:
        mode = network.gateway_mode("ip6" if ":" in item.address else "ip")
        routed = mode in {"routed", "isolated"}
        made.append(
            Published(item.port, item.protocol, item.host_ip, item.port, item.address, True) if routed else item
        )
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
