"""IPAM: which pool a network gets and which address an endpoint gets. Pure.

Default pools are Docker's (172.17-31 as /16, then 192.168 cut in /20). A pool that overlaps another network, a route of
the host or a name server of its resolv.conf is passed over: VPNs and office networks stay reachable (moby#47737).
"""

from __future__ import annotations

import bisect
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from dockyard.network.errors import ADDRESS_IN_USE, BAD, NO_ADDRESS, NO_POOL, OVERLAP
from dockyard.network.model import DEFAULT_POOLS, Endpoint, Subnet

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


def parse_network(text: str) -> Pool:
    """A network that this host itself named."""
    return ip_network(text, strict=False)


def choose_pool6(pools: Iterable[tuple[str, int]], own: Iterable[tuple[str, Pool]], seed: str) -> Pool:
    """The first free IPv6 pool of the administrator's, or a unique local /64."""
    used = [pool for _, pool in own if pool.version == 6]
    asked = [item for item in pools if ":" in item[0]]
    for pool in candidates(asked) if asked else ():
        if not any(pool.overlaps(other) for other in used):
            return pool
    return unique_local(seed)


def choose_pool(pools: Iterable[tuple[str, int]], taken: Iterable[Pool]) -> Pool:
    """The first IPv4 pool that overlaps nothing. Raises System when all are used."""
    avoid = _spans(network for network in taken if network.prefixlen > 0 and network.version == 4)
    for pool in candidates(item for item in pools if ":" not in item[0]):
        if not _meets(avoid, pool):
            return pool
    raise NO_POOL()


def _spans(networks: Iterable[Pool]) -> list[tuple[int, int]]:
    """(first, last address) of each, in order, without those that lie in others: two networks never cross. The
    thousandth small pool would otherwise be a million comparisons away."""
    found: list[tuple[int, int]] = []
    for first, last in sorted((int(item.network_address), -int(item.broadcast_address)) for item in networks):
        if not found or -last > found[-1][1]:
            found.append((first, -last))
    return found


def _meets(spans: Sequence[tuple[int, int]], pool: Pool) -> bool:
    first, last = int(pool.network_address), int(pool.broadcast_address)
    at = bisect.bisect_right(spans, last, key=lambda span: span[0])
    return at > 0 and spans[at - 1][1] >= first


def check_overlap(pool: Pool, networks: Iterable[tuple[str, Pool]]) -> None:
    """Raises Forbidden that names the other network (its name and pool are given)."""
    for name, other in networks:
        if pool.version == other.version and pool.overlaps(other):
            raise OVERLAP(pool=pool, other=other, name=name)


def route_warning(pool: Pool, routes: Iterable[str]) -> str:
    """A subnet that the user gave may cover what the host reaches by another way: allowed, but told."""
    for text in routes:
        route = ip_network(text, strict=False)
        if route.version == pool.version and route.prefixlen > 0 and route.overlaps(pool):
            return (
                f"subnet {pool} overlaps the host's route to {route}: what is behind that route cannot be reached "
                "from this host's containers, nor maybe from the host; choose another --subnet"
            )
    return ""


def resolve_subnet(subnet: str, gateway: str, ip_range: str, auxiliary: dict[str, str]) -> Subnet:
    """A subnet as asked for, completed. Raises InvalidParameter naming the culprit."""
    pool = parse_subnet(subnet)
    if str(pool.network_address) != subnet.partition("/")[0]:
        raise BAD(cause=f"invalid network config:\ninvalid subnet {subnet}: it should be {pool}")
    first = pool.network_address + (1 if pool.num_addresses > 2 else 0)
    door = check_gateway(gateway, subnet) if gateway else first
    if ip_range and not inside(parse_subnet(ip_range), pool):
        raise BAD(cause=f"invalid network config:\nno matching subnet for range {ip_range}")
    for name, address in auxiliary.items():
        if parse_address(address, f"auxiliary {name}") not in pool:
            raise BAD(cause=f"invalid network config:\nno matching subnet for aux-address {address}")
    return Subnet(str(pool), str(door), ip_range, dict(auxiliary))


def check_gateway(gateway: str, subnet: str) -> IPv4Address | IPv6Address:
    door = parse_address(gateway, "gateway")
    if door not in parse_subnet(subnet):
        raise BAD(cause=f"invalid network config:\nno matching subnet for gateway {gateway}")
    return door


def inside(part: Pool, pool: Pool) -> bool:
    return part.version == pool.version and part.network_address in pool and part.broadcast_address in pool


class Ledger:
    """Addresses by network: held by endpoints, and wished for by endpoints that do not run now."""

    def __init__(self) -> None:
        self._held: defaultdict[tuple[str, int], Counter[int]] = defaultdict(Counter)
        self._wished: defaultdict[tuple[str, int], Counter[int]] = defaultdict(Counter)

    def add(self, endpoint: Endpoint) -> None:
        self._count(endpoint, 1)

    def drop(self, endpoint: Endpoint) -> None:
        self._count(endpoint, -1)

    def _count(self, endpoint: Endpoint, step: int) -> None:
        for book, texts in ((self._held, endpoint.addresses), (self._wished, endpoint.wished)):
            for text in texts:
                address = ip_address(text)
                counter = book[(endpoint.network, address.version)]
                counter[int(address)] += step
                if counter[int(address)] <= 0:
                    del counter[int(address)]

    def allocate(self, network_id: str, name: str, subnet: Subnet, wish: str) -> str:
        """``ADDRESS/PREFIX``. Raises Forbidden for an address in use, System when none is left."""
        pool = ip_network(subnet.subnet)
        held = self._held[(network_id, pool.version)]
        reserved = {int(ip_address(item)) for item in (subnet.gateway, *subnet.auxiliary.values()) if item}
        if wish:
            address = wished_address(subnet, wish)
            if int(address) in held or int(address) in reserved:
                raise ADDRESS_IN_USE()
            return f"{address}/{pool.prefixlen}"
        kept = self._wished[(network_id, pool.version)]
        span = parse_subnet(subnet.ip_range) if subnet.ip_range else pool
        reserved |= {int(pool.network_address), int(pool.broadcast_address)} if pool.num_addresses > 2 else set()
        for number in range(int(span.network_address), int(span.broadcast_address) + 1):
            if number not in held and number not in reserved and number not in kept:
                return f"{IPv4Address(number) if pool.version == 4 else IPv6Address(number)}/{pool.prefixlen}"
        raise NO_ADDRESS(network=name, version=pool.version, subnet=subnet.ip_range or subnet.subnet)


def wished_address(subnet: Subnet, wish: str) -> IPv4Address | IPv6Address:
    """Raises InvalidParameter for an address that the subnet does not hold."""
    pool = ip_network(subnet.subnet)
    try:
        address = ip_address(wish)
    except ValueError:
        raise BAD(cause=f"invalid endpoint settings:\ninvalid IPv{pool.version} address: {wish}") from None
    if address not in pool:
        raise BAD(cause=f"invalid endpoint settings:\nno configured subnet contains IP address {wish}")
    return address
