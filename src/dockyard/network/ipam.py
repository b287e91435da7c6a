"""IPAM: which pool a network gets and which address an endpoint gets. Pure.

Default pools are Docker's (172.17-31 as /16, then 192.168 cut in /20). A pool that overlaps another network, a route of
the host or a name server of its resolv.conf is passed over: VPNs and office networks stay reachable (moby#47737).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, ip_address

from dockyard.network.errors import ADDRESS_IN_USE, BAD, NO_ADDRESS, NO_POOL, OVERLAP
from dockyard.network.model import DEFAULT_POOLS, Subnet


def parse_subnet(text: str) -> IPv4Network:
    try:
        return IPv4Network(text, strict=False)
    except ValueError:
        raise BAD(cause=f"invalid CIDR address: {text}") from None


def parse_address(text: str, what: str) -> IPv4Address:
    try:
        return IPv4Address(text.partition("/")[0])
    except ValueError:
        raise BAD(cause=f"invalid {what} address: {text}") from None


def candidates(pools: Iterable[tuple[str, int]]) -> Iterator[IPv4Network]:
    chosen = list(pools)
    if chosen:
        for base, size in chosen:
            yield from parse_subnet(base).subnets(new_prefix=size)
        return
    for base, size, first in DEFAULT_POOLS:
        start = IPv4Network(first).network_address if first else IPv4Address(0)
        yield from (pool for pool in IPv4Network(base).subnets(new_prefix=size) if pool.network_address >= start)


def choose_pool(pools: Iterable[tuple[str, int]], taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first pool that overlaps nothing. Raises System when all are used."""
    avoid = [network for network in taken if network.prefixlen > 0]
    for pool in candidates(pools):
        if not any(pool.overlaps(other) for other in avoid):
            return pool
    raise NO_POOL()


def check_overlap(pool: IPv4Network, networks: Iterable[IPv4Network]) -> None:
    for other in networks:
        if pool.overlaps(other):
            raise OVERLAP(pool=pool, other=other)


def resolve_subnet(subnet: str, gateway: str, ip_range: str, auxiliary: dict[str, str]) -> Subnet:
    """A subnet as asked for, completed. Raises InvalidParameter naming the culprit."""
    pool = parse_subnet(subnet)
    if str(pool.network_address) != subnet.partition("/")[0]:
        raise BAD(cause=f"invalid network config:\ninvalid subnet {subnet}: it should be {pool}")
    first = pool.network_address + 1
    door = parse_address(gateway, "gateway") if gateway else first
    if door not in pool:
        raise BAD(cause=f"invalid network config:\nno matching subnet for gateway {gateway}")
    if ip_range and not parse_subnet(ip_range).subnet_of(pool):
        raise BAD(cause=f"invalid network config:\nno matching subnet for range {ip_range}")
    for name, address in auxiliary.items():
        if parse_address(address, f"auxiliary {name}") not in pool:
            raise BAD(cause=f"invalid network config:\nno matching subnet for aux-address {address}")
    return Subnet(str(pool), str(door), ip_range, dict(auxiliary))


def allocate(subnet: Subnet, used: Iterable[str], wish: str, network: str) -> str:
    """``ADDRESS/PREFIX``. Raises Forbidden for an address in use, System when none is left."""
    pool = IPv4Network(subnet.subnet)
    reserved = {int(ip_address(item.partition("/")[0])) for item in used if item}
    reserved |= {int(IPv4Address(subnet.gateway)), *(int(IPv4Address(item)) for item in subnet.auxiliary.values())}
    if wish:
        address = parse_address(wish, "IPv4")
        if address not in pool:
            raise BAD(cause=f"invalid endpoint settings: no configured subnet contains IP address {wish}")
        if int(address) in reserved:
            raise ADDRESS_IN_USE()
        return f"{address}/{pool.prefixlen}"
    span = parse_subnet(subnet.ip_range) if subnet.ip_range else pool
    first, last = int(span.network_address), int(span.broadcast_address)
    if span == pool:
        first, last = first + 1, last - 1
    for number in range(first, last + 1):
        if number not in reserved:
            return f"{IPv4Address(number)}/{pool.prefixlen}"
    raise NO_ADDRESS(network=network)
