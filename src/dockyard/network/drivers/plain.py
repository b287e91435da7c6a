"""The driver without effects: host and null as they are, and what the other built-in drivers start from."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dockyard.kernel import netlink_route as rt
from dockyard.kernel.netlink import Message, NetlinkSocket
from dockyard.network import errors
from dockyard.network.model import Endpoint, Network
from dockyard.network.ports import Json

MAX_INTERFACE_NAME = 15
_TRUE, _FALSE = frozenset({"1", "t", "T", "TRUE", "true", "True"}), frozenset({"0", "f", "F", "FALSE", "false", "False"})


class LocalDriver:
    """Lives in this process: nobody is called, nothing is to be answered."""

    scope = "local"

    def check(self, network: Network, known: Sequence[Network]) -> Network:
        return network

    async def create_network(self, network: Network) -> None:
        return None

    async def delete_network(self, network: Network) -> None:
        return None

    async def create_endpoint(self, network: Network, endpoint: Endpoint, options: Json) -> Endpoint:
        return endpoint

    async def delete_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        return None

    async def join(self, network: Network, endpoint: Endpoint, sandbox: str, options: Json) -> Endpoint:
        return endpoint

    async def leave(self, network: Network, endpoint: Endpoint) -> None:
        return None

    async def publish(self, network: Network, endpoint: Endpoint, options: Json) -> None:
        return None

    async def withdraw(self, network: Network, endpoint: Endpoint) -> None:
        return None

    def adopt(self, network: Network) -> Network:
        return network

    def setup(self, network: Network) -> None:
        return None

    def teardown(self, network: Network) -> None:
        return None

    def parent(self, network: Network, endpoint: Endpoint) -> str:
        return ""

    def interface(self, network: Network, endpoint: Endpoint, parent: int, sandbox: int) -> list[Message]:
        return []

    def unplug(self, network: Network, endpoint: Endpoint, sandbox: str) -> None:
        return None


def adopted(network: Network, name: str) -> Network:
    """With the mark if the link is on the host already. In the namespace thread."""
    with NetlinkSocket() as netlink:
        return msgspec.structs.replace(network, adopted=rt.link(netlink, name) is not None)


def mtu_of(network: Network, default: int) -> int:
    return int(network.option("com.docker.network.driver.mtu") or default)


def check_common(network: Network) -> None:
    """Options that every driver of ours knows. Raises InvalidParameter."""
    options = dict(network.options)
    check_mtu(options)
    if prefix := options.get("com.docker.network.container_iface_prefix"):
        check_interface_name(f"{prefix}255")


def check_mtu(options: dict[str, str]) -> None:
    mtu = options.get("com.docker.network.driver.mtu", "0")
    if not mtu.isdigit() or int(mtu) > 65535:
        raise errors.BAD(cause=f'invalid value for com.docker.network.driver.mtu: "{mtu}"')


def check_interface_name(name: str) -> None:
    if len(name) > MAX_INTERFACE_NAME or "/" in name or name in {".", ".."} or any(sign.isspace() for sign in name):
        raise errors.BAD(cause=f"invalid interface name: {name}: at most {MAX_INTERFACE_NAME} characters without / and spaces")


def switch(name: str, value: str) -> str:
    """"true" or "false" from what Go's ParseBool takes."""
    if value in _TRUE or value in _FALSE:
        return str(value in _TRUE).lower()
    raise errors.BAD(cause=f'failed to parse {name} value: strconv.ParseBool: parsing "{value}": invalid syntax')
