"""What the controller needs of its parts: network drivers, IPAM drivers, a firewall, the name service's book.

The first two are libnetwork's interfaces (moby daemon/libnetwork/driverapi, ipamapi), built in or remote. Methods that
are not ``async`` run in the room's namespace thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from dockyard.kernel.netlink import Message
from dockyard.network.model import Endpoint, Network, Published, Sandbox, Subnet

Json = dict[str, Any]


class Driver(Protocol):
    """One kind of network.

    The calls of one object's life: ``check``, ``create_network``, ``adopt``, ``setup``; for each endpoint ``create_endpoint``,
    ``join``, ``interface``, ``publish`` and back by ``withdraw``, ``unplug``, ``leave``, ``delete_endpoint``; at last
    ``teardown``, ``delete_network``. Halves that undo are idempotent.
    """

    @property
    def scope(self) -> str: ...

    def check(self, network: Network, known: Sequence[Network]) -> Network:
        """The network with its options completed. Pure; raises InvalidParameter or Forbidden naming the culprit."""
        ...

    async def create_network(self, network: Network) -> None: ...
    async def delete_network(self, network: Network) -> None: ...

    async def create_endpoint(self, network: Network, endpoint: Endpoint, options: Json) -> Endpoint:
        """A driver may fill in what came empty: addresses, MAC."""
        ...

    async def delete_endpoint(self, network: Network, endpoint: Endpoint) -> None: ...

    async def join(self, network: Network, endpoint: Endpoint, sandbox: str, options: Json) -> Endpoint: ...
    async def leave(self, network: Network, endpoint: Endpoint) -> None: ...
    async def publish(self, network: Network, endpoint: Endpoint, options: Json) -> None: ...
    async def withdraw(self, network: Network, endpoint: Endpoint) -> None: ...

    def adopt(self, network: Network) -> Network:
        """Once, before the first ``setup``: marked as ``adopted`` if its bridge or parent is there already."""
        ...

    def setup(self, network: Network) -> None:
        """What the network has in the kernel; what is there already is completed."""
        ...

    def teardown(self, network: Network) -> None: ...

    def parent(self, network: Network, endpoint: Endpoint) -> str:
        """Name of the link whose index ``interface`` wants; "" if the endpoint has no interface."""
        ...

    def interface(self, network: Network, endpoint: Endpoint, parent: int, sandbox: int) -> list[Message]:
        """Messages for the host's namespace after which the interface is in ``sandbox`` (a descriptor)."""
        ...

    def unplug(self, network: Network, endpoint: Endpoint, sandbox: str) -> None: ...


class Ipam(Protocol):
    """Who gives pools and addresses."""

    async def request_pools(self, wish: Json, known: Sequence[Network], *, seed: str, ipv4: bool, ipv6: bool) -> Pools:
        """Raises InvalidParameter, Forbidden (overlap) or System (exhausted), naming clash and remedy."""
        ...

    async def release_pools(self, subnets: Iterable[Subnet]) -> None: ...

    async def request_address(self, network: Network, family: str, wish: str, mac: str) -> str:
        """``ADDRESS/PREFIX``, or "" where the network has no such family."""
        ...

    async def release_address(self, network: Network, address: str) -> None: ...

    async def replay(self, networks: Iterable[tuple[Network, Sequence[str]]]) -> None:
        """After a restart of the daemon: tells a driver that forgets what is held."""
        ...


class Pools(Protocol):
    """What ``request_pools`` answers."""

    @property
    def subnets(self) -> Sequence[Subnet]: ...
    @property
    def idle(self) -> Sequence[Subnet]:
        """Given for a family that is off: shown, not used (as libnetwork has it)."""
        ...

    @property
    def configured(self) -> bool:
        """The user gave the subnet."""
        ...

    @property
    def warning(self) -> str: ...


class Firewall(Protocol):
    """The host's packet filter and NAT for our networks."""

    def add_network(self, network: Network) -> None: ...
    def remove_network(self, network: Network) -> None: ...
    def open(self, sandbox: Sandbox) -> None:
        """Published ports and links of a sandbox."""
        ...

    def shut(self, container: str, published: Sequence[Published], links: Sequence[Any]) -> None: ...

    def restore(self, networks: Sequence[Network], sandboxes: Sequence[Sandbox], uplinks: Sequence[str]) -> bool:
        """Everything as given, in one transaction. Returns whether something in tables that others use too had to be put
        back, or another program's policy to be passed."""
        ...

    def remove(self, networks: Sequence[Network]) -> None:
        """All of ours."""
        ...

    def made(self, thread: int) -> bool:
        """Whether a change by this thread or process was ours."""
        ...

    def watched(self) -> Mapping[str, bool]:
        """Tables whose changes by others concern us: name to whether it is ours alone."""
        ...

    def admitting(self) -> int:
        """The packet log of first packets that are to be put before their interface again; 0 if there is none."""
        ...

    def close(self) -> None: ...
