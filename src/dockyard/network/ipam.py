"""IPAM: which pool a network gets and which address an endpoint gets. Pure.

Default pools are Docker's (172.17-31 as /16, then 192.168 cut in /20). A pool that overlaps another network, a route of
the host or a name server of its resolv.conf is passed over: VPNs and office networks stay reachable (moby#47737).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from dockyard.network.errors import ADDRESS_IN_USE, BAD, NO_ADDRESS, NO_POOL, OVERLAP
from dockyard.network.model import DEFAULT_POOLS, Subnet

Pool = IPv4Network | IPv6Network


def parse_subnet(text: str) -> Pool:
    try:
        if "/" not in text:
            raise ValueError
        return ip_network(text, strict=False)
    except ValueError:
        raise BAD(cause=f"invalid CIDR address: {text}") from None


def parse_address(text: str, what: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text.partition("/")[0])
    except ValueError:
        raise BAD(cause=f"invalid {what} address: {text}") from None


def candidates(pools: Iterable[tuple[str, int]]) -> Iterator[Pool]:
    chosen = list(pools)
    if chosen:
        for base, size in chosen:
            yield from parse_subnet(base).subnets(new_prefix=size)
        return
    for base, size, first in DEFAULT_POOLS:
        start = IPv4Network(first).network_address if first else IPv4Address(0)
        yield from (pool for pool in IPv4Network(base).subnets(new_prefix=size) if pool.network_address >= start)


def unique_local(seed: str) -> IPv6Network:
    """A /64 of the fd00::/8 range that depends on ``seed`` alone (RFC 4193 asks for 40 random bits)."""
    return IPv6Network((b"\xfd" + hashlib.sha256(seed.encode()).digest()[:7] + bytes(8), 64))


def choose_pool(pools: Iterable[tuple[str, int]], taken: Iterable[Pool]) -> Pool:
    """The first IPv4 pool that overlaps nothing. Raises System when all are used."""
    avoid = [network for network in taken if network.prefixlen > 0 and network.version == 4]
    for pool in candidates(pools):
        if pool.version == 4 and not any(pool.overlaps(other) for other in avoid):
            return pool
    raise NO_POOL()


def check_overlap(pool: Pool, networks: Iterable[Pool]) -> None:
    for other in networks:
        if pool.version == other.version and pool.overlaps(other):
            raise OVERLAP(pool=pool, other=other)


def resolve_subnet(subnet: str, gateway: str, ip_range: str, auxiliary: dict[str, str]) -> Subnet:
    """A subnet as asked for, completed. Raises InvalidParameter naming the culprit."""
    pool = parse_subnet(subnet)
    if str(pool.network_address) != subnet.partition("/")[0]:
        raise BAD(cause=f"invalid network config:\ninvalid subnet {subnet}: it should be {pool}")
    first = pool.network_address + (1 if pool.num_addresses > 2 else 0)
    door = parse_address(gateway, "gateway") if gateway else first
    if door not in pool:
        raise BAD(cause=f"invalid network config:\nno matching subnet for gateway {gateway}")
    if ip_range and not _inside(parse_subnet(ip_range), pool):
        raise BAD(cause=f"invalid network config:\nno matching subnet for range {ip_range}")
    for name, address in auxiliary.items():
        if parse_address(address, f"auxiliary {name}") not in pool:
            raise BAD(cause=f"invalid network config:\nno matching subnet for aux-address {address}")
    return Subnet(str(pool), str(door), ip_range, dict(auxiliary))


def _inside(part: Pool, pool: Pool) -> bool:
    return part.version == pool.version and part.network_address in pool and part.broadcast_address in pool


def allocate(subnet: Subnet, used: Iterable[str], wish: str, network: str) -> str:
    """``ADDRESS/PREFIX``. Raises Forbidden for an address in use, System when none is left."""
    pool = ip_network(subnet.subnet)
    reserved = {int(ip_address(item.partition("/")[0])) for item in used if item}
    reserved |= {int(ip_address(item)) for item in (subnet.gateway, *subnet.auxiliary.values()) if item}
    if wish:
        address = parse_address(wish, f"IPv{pool.version}")
        if address not in pool:
            raise BAD(cause=f"invalid endpoint settings: no configured subnet contains IP address {wish}")
        if int(address) in reserved:
            raise ADDRESS_IN_USE()
        return f"{address}/{pool.prefixlen}"
    span = parse_subnet(subnet.ip_range) if subnet.ip_range else pool
    first, last = int(span.network_address), int(span.broadcast_address)
    reserved |= {int(pool.network_address), int(pool.broadcast_address)} if pool.num_addresses > 2 else set()
    for number in range(first, last + 1):
        if number not in reserved:
            return f"{ip_address(number) if pool.version == 4 else IPv6Address(number)}/{pool.prefixlen}"
    raise NO_ADDRESS(network=network, version=pool.version, subnet=subnet.ip_range or subnet.subnet)
