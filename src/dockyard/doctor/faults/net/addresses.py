"""Address plans: subnets that collide or run out, endpoints and networks that no longer fit together.

NET-06, NET-08, NET-09, NET-18, NET-19.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from dockyard.doctor.facts import Route
from dockyard.doctor.faults.net.forwarding import nameservers
from dockyard.doctor.finding import Evidence, Finding, Fix, Object, Severity
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import Network, View

DEFAULT_POOLS = 31  # 15 of /16 and 16 of /20 (moby libnetwork/ipamutils)


def pools_used_up(view: View) -> Iterator[Finding]:
    pools = [ipaddress.ip_network(f"172.{second}.0.0/16") for second in range(17, 32)]
    pools += list(ipaddress.ip_network("192.168.0.0/16").subnets(new_prefix=20))
    if "default-address-pool" in (view.facts.engine.config_text or "") + " ".join(view.facts.engine.command):
        return
    taken = [ipaddress.ip_network(subnet) for network in view.networks for subnet in network.subnets]
    links = [ipaddress.ip_network(route.destination) for route in _link_routes(view)]
    free = [pool for pool in pools if not any(pool.overlaps(other) for other in [*taken, *links])]
    if len(free) > 1 or not view.networks:
        return
    own = sum(any(pool.overlaps(other) for other in taken) for pool in pools)
    idle = [network.name for network in view.networks if not network.document.get("Containers") and network.bridge]
    yield finding(
        "NET-06",
        "no address pool is left for new networks",
        Object("engine", "address pools"),
        '"could not find an available, non-overlapping IPv4 address pool" / "all predefined address pools have been '
        'fully subnetted" at the next network',
        [
            Evidence("api", "GET /networks", f"{own} of {DEFAULT_POOLS} default pools are networks", ""),
            Evidence("netlink", "on-link routes", f"{len(free)} pools free of both", "more than 1"),
        ],
        severity=Severity.FAULT if not free else Severity.RISK,
        fix=Fix(
            f"remove unused networks ({len(idle)} have no container), or set default-address-pools to /24s",
            ["docker network prune"],
            risk="networks of stopped compose projects go too",
        ),
        verify="docker network create trial && docker network rm trial",
    )


def _link_routes(view: View) -> list[Route]:
    net = view.facts.host_net
    ours = {network.bridge for network in view.bridges}
    return [
        route
        for route in (net.routes if net else [])
        if route.destination != "0.0.0.0/0"
        and route.kind == "unicast"
        and (link := view.links_by_index.get(route.link)) is not None
        and link.name not in ours
    ]


def collisions(view: View) -> Iterator[Finding]:
    """A route of the host that the engine's subnet covers or equals: the longest prefix sends its hosts to a bridge."""
    for network in view.bridges:
        subnet = ipaddress.ip_network(network.subnets[0])
        for route in _link_routes(view):
            other = ipaddress.ip_network(route.destination)
            if not subnet.overlaps(other):
                continue
            broader = other.prefixlen < subnet.prefixlen
            link = view.links_by_index[route.link].name
            yield _collision(
                network,
                [
                    Evidence(
                        "netlink",
                        f"route {route.destination} on {link}",
                        f"overlaps {network.name} {subnet}",
                        "disjoint",
                    )
                ],
                f"hosts of {other} behind {link} are unreachable from this host or its containers",
                Severity.RISK if broader and route.gateway else Severity.FAULT,
            )
            break
        else:
            for server in nameservers(view.facts.host.resolv_conf):
                inside = ipaddress.ip_address(server) in subnet
                if inside and server not in view.host_addresses and not _is_member(view, network, server):
                    seen = Evidence("file", "/etc/resolv.conf", f"nameserver {server}", f"outside {subnet}")
                    yield _collision(network, [seen], f"the name server {server} is unreachable", Severity.FAULT)
                    break


def _is_member(view: View, network: Network, address: str) -> bool:
    return any(view.address(container, network) == address for container in view.members(network))


def _collision(network: Network, seen: list[Evidence], symptom: str, severity: Severity) -> Finding:
    return finding(
        "NET-08",
        "a network of the engine covers addresses that are in use elsewhere",
        network.object,
        symptom,
        seen,
        severity=severity,
        affects=[network.id],
        cause=["the engine picks pools without asking routes behind gateways"],
        fix=Fix(
            "move the network: create it again with --subnet, or set default-address-pools (bip for the default "
            "bridge)",
            [f"docker network rm {network.name}", f"docker network create --subnet 10.213.7.0/24 {network.name}"],
            risk="its containers must be connected again",
        ),
        verify="ip route get ADDRESS",
    )


def subnet_full(view: View) -> Iterator[Finding]:
    for network in view.bridges:
        subnet = ipaddress.ip_network(network.subnets[0])
        room = subnet.num_addresses - 3  # network, broadcast, gateway
        used = len(network.document.get("Containers") or {})
        waiting = [
            c for c in view.containers if "no available IPv4 addresses" in c.error and network.name in c.networks
        ]
        if waiting or (room > 0 and used >= room):
            yield finding(
                "NET-09",
                "no free address is left in a network",
                network.object,
                f'the next container on {network.name} fails with "no available IPv4 addresses on this network"',
                [Evidence("api", f"GET /networks/{network.name}", f"{used} endpoints in {subnet}", f"below {room}")],
                severity=Severity.FAULT if waiting else Severity.RISK,
                affects=[network.id, *(container.id for container in waiting)],
                fix=Fix("create the network again with a bigger subnet"),
            )


def stale_endpoints(view: View) -> Iterator[Finding]:
    known = {container.id for container in view.containers}
    for network in view.networks:
        if network.document.get("Scope") == "swarm" or network.document.get("Ingress"):
            continue
        for key, value in (network.document.get("Containers") or {}).items():
            if key in known or key.startswith("lb-"):
                continue
            name = str(value.get("Name", key))
            yield finding(
                "NET-18",
                "a network keeps the endpoint of a container that is gone",
                network.object,
                f'removing {network.name} fails with "has active endpoints"',
                [
                    Evidence(
                        "api",
                        f"GET /networks/{network.name}",
                        f"endpoint of {name} ({key[:12]})",
                        "a container of that id",
                    ),
                    Evidence("api", "GET /containers/json?all=1", f"no container {key[:12]}", ""),
                ],
                affects=[network.id],
                cause=["the engine died while the container stopped"],
                fix=Fix("disconnect it by force", [f"docker network disconnect -f {network.name} {name}"]),
                verify=f"docker network inspect {network.name}",
            )


def network_gone(view: View) -> Iterator[Finding]:
    known = {network.id for network in view.networks}
    for container in view.containers:
        if container.running or container.network_mode.startswith(("container:", "host", "none")):
            continue
        for name, endpoint in container.networks.items():
            key = str(endpoint.get("NetworkID") or "")
            failed = bool(key) and "not found" in container.error and key[:12] in container.error
            if not failed and not (key and key not in known):
                continue
            yield finding(
                "NET-19",
                "a container refers to a network that no longer exists",
                container.object,
                f'starting {container.name} fails with "network {key[:12]} not found"',
                [
                    Evidence(
                        "api", f"GET /containers/{container.name}/json", f"{name} = {key[:12]}", "a known network id"
                    ),
                    Evidence("api", "GET /networks", f"no network {key[:12]}", ""),
                ],
                severity=Severity.FAULT if failed else Severity.RISK,
                affects=[container.id],
                cause=["the network was removed and created again; the container keeps the old id"],
                fix=Fix(
                    "connect it to the present network of that name",
                    [
                        f"docker network disconnect -f {name} {container.name}",
                        f"docker network connect {name} {container.name}",
                        f"docker start {container.name}",
                    ],
                ),
                verify=f"docker start {container.name}",
            )


def held(view: View) -> Iterator[Finding]:
    """Asked about a refusal ("has active endpoints"): not a stale endpoint, but containers that are simply connected."""
    match = re.search(r"network (\S+) (?:id \S+ )?has active endpoints", view.facts.said)
    network = next((item for item in view.networks if match and match[1] in (item.name, item.id)), None)
    endpoints = (network.document.get("Containers") or {}) if network else {}
    users = [item for item in view.containers if item.id in endpoints]
    if network is None or not users or len(users) < len(endpoints):
        return
    yield finding(
        "NET-18",
        "containers are still connected to a network",
        network.object,
        f"{network.name} cannot be removed while {', '.join(item.name for item in users)} is on it",
        [Evidence("api", f"GET /networks/{network.name}", f"endpoint of {item.name} ({item.id[:12]})", "none")
         for item in users[:5]],
        affects=[network.id, *(item.id for item in users)],
        fix=Fix(
            "disconnect them, or stop them first",
            [f"docker network disconnect {network.name} {item.name}" for item in users],
            [f"docker network connect {network.name} {item.name}" for item in users],
            "they lose this network",
            machine=True,
        ),
        verify=f"docker network rm {network.name}",
    )  # fmt: skip


def endpoints(view: View) -> Iterator[Finding]:
    stale = list(stale_endpoints(view))
    yield from stale or held(view)


RULES = (
    Rule(
        "NET-06",
        "no address pool is left for new networks",
        "Without default-address-pools the engine has 31 pools, each a /16 or /20, and skips those that a link of the "
        "host covers.",
        pools_used_up,
        ("networks", "host_net"),
        messages=(r"non-overlapping IPv4 address pool", r"predefined address pools", r"fully subnetted"),
        decides="networks counted against the pools",
    ),
    Rule(
        "NET-08",
        "a network of the engine covers addresses that are in use elsewhere",
        "The kernel sends a packet along the longest prefix. A bridge with the subnet of an office or VPN network "
        "swallows its traffic.",
        collisions,
        ("networks", "host_net", "host"),
        causes=("NET-00", "DNS-04", "IMG-11"),
        messages=(r"no route to host", r"timed? ?out", r"Pool overlaps"),
        decides="ip route get ADDRESS names a bridge",
    ),
    Rule(
        "NET-09",
        "no free address is left in a network",
        "Each container takes one address of the subnet.",
        subnet_full,
        ("networks", "containers"),
        messages=(r"no available IPv4 addresses", r"no available addresses"),
        decides="endpoints against the size of the subnet",
    ),
    Rule(
        "NET-18",
        "a network keeps the endpoint of a container that is gone",
        "An endpoint outlives its container when the engine dies in between; the network cannot be removed then.",
        endpoints,
        ("networks", "containers"),
        messages=(r"has active endpoints",),
        decides="endpoints of the network against the list of containers",
    ),
    Rule(
        "NET-19",
        "a container refers to a network that no longer exists",
        "Containers remember networks by id, people by name.",
        network_gone,
        ("networks", "containers"),
        messages=(r"network [0-9a-f]+ not found", r"network ID not found"),
        decides="the id against GET /networks",
    ),
)
