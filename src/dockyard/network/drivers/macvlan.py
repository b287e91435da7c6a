"""The macvlan and ipvlan drivers: containers straight on the wire of an interface of the host.

The parent is an interface of the host, its VLAN (``eth0.50``, made and removed by us unless it was there), or a dummy
for internal networks and those without a parent. The host itself cannot talk to such containers (kernel rule).
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence

import msgspec

from dockyard.kernel import netlink_route as rt
from dockyard.kernel import netns
from dockyard.kernel.netlink import Message, NetlinkError, NetlinkSocket
from dockyard.network import errors
from dockyard.network.drivers.plain import LocalDriver, adopted, check_common, check_interface_name, mtu_of
from dockyard.network.model import Endpoint, Network

MODES = frozenset({"private", "vepa", "bridge", "passthru"})


class MacvlanDriver(LocalDriver):
    def check(self, network: Network, known: Sequence[Network]) -> Network:
        check_common(network)
        check_interface_name(network.parent)
        self._check_mode(network)
        if network.parent == "lo":
            raise errors.BAD(cause=f"loopback interface is not a valid {network.driver} parent link")
        self._check_neighbours(network, known)
        return network

    def _check_mode(self, network: Network) -> None:
        mode = network.option("macvlan_mode", "bridge")
        if mode not in MODES:
            raise errors.BAD(cause=f"requested macvlan mode '{mode}' is not valid, 'bridge' mode is the macvlan driver default")

    def _check_neighbours(self, network: Network, known: Sequence[Network]) -> None:
        """A parent takes several networks, but not beside one in passthru mode."""
        for other in known:
            if other.driver != network.driver or other.parent != network.parent or other.config_only:
                continue
            if "passthru" in {network.option("macvlan_mode"), other.option("macvlan_mode")}:
                raise errors.BAD(
                    cause=f"cannot use mode passthru, macvlan network {other.name} is already using parent interface {other.parent}"
                )

    def adopt(self, network: Network) -> Network:
        return adopted(network, network.parent)

    def setup(self, network: Network) -> None:
        name = network.parent
        with NetlinkSocket() as netlink:
            if rt.link(netlink, name) is not None:
                return
            base, dot, tag = name.rpartition(".")
            try:
                if not network.option("parent"):
                    _add_nowhere(netlink, name)
                elif dot and tag.isdigit() and (below := rt.link(netlink, base)) is not None:
                    netlink.batch([rt.add_vlan(name, parent=below.index, tag=int(tag))])
                else:
                    raise errors.NO_PARENT(network=network.name, parent=name)
            except NetlinkError as error:
                raise errors.KERNEL(what=f"create network {network.name}", cause=str(error)) from None

    def teardown(self, network: Network) -> None:
        if not network.adopted:
            with NetlinkSocket() as netlink:
                netlink.batch([rt.remove_link(name=network.parent)])

    def parent(self, network: Network, endpoint: Endpoint) -> str:
        return network.parent

    def interface(self, network: Network, endpoint: Endpoint, parent: int, sandbox: int) -> list[Message]:
        mode, mtu = network.option("macvlan_mode", "bridge"), mtu_of(network, 0)
        name, mac = endpoint.interface, endpoint.mac
        return [rt.add_macvlan(name, parent=parent, mode=mode, mtu=mtu, netns=sandbox, mac=mac)]

    def unplug(self, network: Network, endpoint: Endpoint, sandbox: str) -> None:
        """There is no end on the host: it is removed inside."""
        with contextlib.suppress(OSError), netns.entered(sandbox), NetlinkSocket() as netlink:
            netlink.batch([rt.remove_link(name=endpoint.interface)])


def _add_nowhere(netlink: NetlinkSocket, name: str) -> None:
    """A parent that leads nowhere: a dummy, or on kernels without that driver a pair whose other end nobody uses."""
    try:
        netlink.batch([rt.add_dummy(name)])
    except NetlinkError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        netlink.batch([rt.add_pair(name, peer=name.replace("-", "_")), rt.link_up(name), rt.link_up(name.replace("-", "_"))])


class IpvlanDriver(MacvlanDriver):
    """All endpoints share the parent's MAC, so none may be given."""

    async def create_endpoint(self, network: Network, endpoint: Endpoint, options: dict[str, object]) -> Endpoint:
        if endpoint.wish.mac_address:
            raise errors.BAD(cause="ipvlan interfaces do not support custom mac address assignment")
        return msgspec.structs.replace(endpoint, mac="")

    def _check_mode(self, network: Network) -> None:
        mode, flag = network.option("ipvlan_mode", "l2"), network.option("ipvlan_flag", "bridge")
        if mode not in rt.IPVLAN_MODES:
            raise errors.BAD(cause=f"requested ipvlan mode '{mode}' is not valid, 'l2' mode is the ipvlan driver default")
        if flag not in rt.IPVLAN_FLAGS:
            raise errors.BAD(cause=f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default")

    def interface(self, network: Network, endpoint: Endpoint, parent: int, sandbox: int) -> list[Message]:
        mode, flag = network.option("ipvlan_mode", "l2"), network.option("ipvlan_flag", "bridge")
        mtu = mtu_of(network, 0)
        return [rt.add_ipvlan(endpoint.interface, parent=parent, mode=mode, flag=flag, mtu=mtu, netns=sandbox)]
