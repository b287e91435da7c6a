"""The built-in IPAM drivers. What is held is what the records say, so nothing leaks when a daemon dies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from dockyard.network import ipam
from dockyard.network.errors import BAD
from dockyard.network.model import Network, NetworkSettings, Subnet
from dockyard.network.ports import Json

Allocate = Callable[[str, str, Subnet, str], str]


@dataclass(frozen=True, slots=True)
class Found:
    subnets: Sequence[Subnet] = ()
    configured: bool = False
    warning: str = ""
    idle: Sequence[Subnet] = ()


class NullIpam:
    """libnetwork's ``null``: networks without addresses."""

    async def request_pools(
        self, wish: Json, known: Sequence[Network], *, seed: str, ipv4: bool, ipv6: bool
    ) -> Found:
        if wish.get("Config"):
            raise BAD(cause="null ipam driver does not handle specific address pool requests")
        return Found()

    async def release_pools(self, subnets: Iterable[Subnet]) -> None:
        return None

    async def request_address(self, network: Network, family: str, wish: str, mac: str) -> str:
        return ""

    async def release_address(self, network: Network, address: str) -> None:
        return None

    async def replay(self, networks: Iterable[tuple[Network, Sequence[str]]]) -> None:
        return None


class DefaultIpam(NullIpam):
    """``taken``: destinations of the host's routes and its name servers, which default pools keep clear of."""

    def __init__(self, settings: NetworkSettings, taken: Callable[[], Awaitable[list[str]]], allocate: Allocate) -> None:
        self._settings = settings
        self._taken = taken
        self._allocate = allocate

    async def request_pools(
        self, wish: Json, known: Sequence[Network], *, seed: str, ipv4: bool, ipv6: bool
    ) -> Found:
        taken = await self._taken()
        rows = wanted_subnets(wish)
        given = [item for item in rows if (ipv6 if ":" in item.subnet else ipv4)]
        idle = [item for item in rows if item not in given]
        own = [
            (other.name, ipam.parse_subnet(item.subnet)) for other in known if not other.config_only for item in other.subnets
        ]
        for subnet in given:
            ipam.check_overlap(ipam.parse_subnet(subnet.subnet), own)
        warnings = [ipam.route_warning(ipam.parse_subnet(subnet.subnet), taken) for subnet in given]
        made = list(given)
        if ipv4 and not any(":" not in item.subnet for item in given):
            avoid = [ipam.parse_network(item) for item in taken]
            pool = ipam.choose_pool(self._settings.default_address_pools, [*(pool for _, pool in own), *avoid])
            made.insert(0, ipam.resolve_subnet(str(pool), "", "", {}))
        if ipv6 and not any(":" in item.subnet for item in given):
            made.append(ipam.resolve_subnet(str(ipam.choose_pool6(self._settings.default_address_pools, own, seed)), "", "", {}))
        return Found(made, bool(rows), "; ".join(item for item in warnings if item), idle)

    async def request_address(self, network: Network, family: str, wish: str, mac: str) -> str:
        subnet = network.subnet(family)
        if subnet is None:
            if wish and not network.idle:
                raise BAD(cause=f"invalid endpoint settings:\nno configured subnet contains IP address {wish}")
            return ""
        return self._allocate(network.id, network.name, subnet, wish)


def wanted_subnets(wish: Json) -> list[Subnet]:
    """What the request's IPAM rows say, IPv4 first. Pure."""
    made: list[Subnet] = []
    for row in wish.get("Config") or []:
        given = row.get("Subnet") or ""
        if not given:
            if row.get("Gateway") or row.get("IPRange"):
                raise BAD(cause="invalid network config:\ninvalid subnet : subnet is empty")
            continue
        spare = row.get("AuxiliaryAddresses") or {}
        subnet = ipam.resolve_subnet(given, row.get("Gateway") or "", row.get("IPRange") or "", spare)
        if any((":" in item.subnet) == (":" in subnet.subnet) for item in made):
            raise BAD(cause=f"invalid network config:\none subnet per family is supported: {given} is the second")
        made.append(subnet)
    return sorted(made, key=lambda item: ":" in item.subnet)
