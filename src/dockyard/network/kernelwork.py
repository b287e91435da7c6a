"""What the kernel is asked for: bridges, interfaces of containers, addresses, routes. In the room's namespace thread.

One netlink batch on the host's side, one inside the sandbox, one nft transaction: a start costs a few system calls.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path

from dockyard.kernel import netlink_route as rt
from dockyard.kernel import netns, sysctl
from dockyard.kernel.netlink import Message, NetlinkError, NetlinkSocket
from dockyard.kernel.nft import Nft, NftError
from dockyard.network import coexist
from dockyard.network.errors import KERNEL
from dockyard.network.model import FAMILIES, Door, Endpoint, Network
from dockyard.network.names import Doors, open_doors

DEFAULT_MTU = 1500


def uplink_mtu() -> int:
    """MTU of the device of the default route: containers behind it must not send more (moby#22028)."""
    with NetlinkSocket() as netlink:
        uplinks = [route.oif for route in rt.routes(netlink) if route.destination is None]
        for link in rt.links(netlink):
            if link.index in uplinks:
                return link.mtu
    return DEFAULT_MTU


def host_networks() -> list[str]:
    """Destinations of the host's routes: pools keep clear of them."""
    with NetlinkSocket() as netlink:
        found = [*rt.routes(netlink), *rt.routes(netlink, 6)]
        return [str(route.destination) for route in found if route.destination is not None]


def link_exists(name: str) -> bool:
    with NetlinkSocket() as netlink:
        return rt.link(netlink, name) is not None


class HostFirewall:
    """nftables in the host's namespace, by one context that is kept: closing one after a transaction that deleted
    something waits for a grace period of the kernel (nft_rcv_nl_event in nf_tables_api.c; 13 ms here)."""

    def __init__(self) -> None:
        self._nft: Nft | None = None

    def run(self, commands: str) -> None:
        """One transaction. Raises System."""
        try:
            self._nft = self._nft or Nft()
            self._nft.run(commands)
        except NftError as error:
            raise KERNEL(what="change the firewall", cause=str(error).splitlines()[0]) from None

    def pass_forward_policy(self, bridges: Sequence[str], families: Sequence[str], gone: Sequence[str] = ()) -> None:
        """See ``coexist``. A missing chain, or one of iptables-legacy that nft does not show, is left alone."""
        self._nft = self._nft or Nft()
        for family in families:
            try:
                chain = self._nft.json(f"list chain {family} filter FORWARD")
            except NftError:
                continue
            commands = coexist.commands(family, chain, bridges, gone)
            if commands:
                self.run(commands)

    def close(self) -> None:
        if self._nft is not None:
            self._nft.close()


def mac_of(address: str) -> str:
    """From the address, as Docker's 02:42 ones. Its next holder has the same MAC, so no neighbour's cache is stale
    (seen: 6 s of silence on a published port after a new container took over an address)."""
    packed = ip_address(address.partition("/")[0]).packed[-4:]
    return "02:42:" + packed.hex(":")


def mtu_of(network: Network, default: int) -> int:
    return int(network.option("com.docker.network.driver.mtu") or default)


# -- bridges ----------------------------------------------------------------------------------------------------------


def setup_bridge(network: Network, mtu: int) -> None:
    """The bridge with its addresses; what is there already is completed."""
    name = network.bridge
    try:
        with NetlinkSocket() as netlink:
            link = rt.link(netlink, name)
            if link is None:
                mac = mac_of(network.subnets[0].gateway)
                netlink.batch([rt.add_bridge(name, mac=mac, mtu=mtu_of(network, mtu), filtered=not network.icc)])
                link = rt.link(netlink, name)
            assert link is not None
            _sysctls_of_bridge(network)
            netlink.batch([rt.change_link(link.index, up=True), *_bridge_addresses(network, link.index)])
    except NetlinkError as error:
        raise KERNEL(what=f"make bridge {name}", cause=str(error)) from None


def _bridge_addresses(network: Network, index: int) -> list[Message]:
    found = []
    for family in FAMILIES:
        subnet = network.subnet(family)
        hidden = family == "ip" and network.option("com.docker.network.bridge.inhibit_ipv4") == "true"
        if subnet is not None and not hidden and network.gateway_mode(family) != "isolated":
            prefix = subnet.subnet.partition("/")[2]
            found.append(rt.add_address(index, ip_interface(f"{subnet.gateway}/{prefix}")))
    return found


def _sysctls_of_bridge(network: Network) -> None:
    name = network.bridge.replace(".", "/")
    # Packets for 127.0.0.1:PORT are sent on to the container; the raw chain keeps the way back closed.
    sysctl.write_if_present(f"net.ipv4.conf.{name}.route_localnet", "1")
    # A container with a foot in two networks may answer by the other one (netavark#962).
    sysctl.write_if_present(f"net.ipv4.conf.{name}.rp_filter", "2")
    sysctl.write_if_present(f"net.ipv6.conf.{name}.disable_ipv6", "0" if network.subnet("ip6") else "1")
    sysctl.write_if_present(f"net.ipv6.conf.{name}.accept_ra", "0")
    # IPAM is the only giver of addresses; detection would keep the bridge's neighbours waiting for seconds.
    sysctl.write_if_present(f"net.ipv6.conf.{name}.accept_dad", "0")


def remove_bridge(network: Network) -> None:
    with NetlinkSocket() as netlink:
        netlink.batch([rt.remove_link(name=network.bridge)])


# -- sandboxes --------------------------------------------------------------------------------------------------------


def host_name(endpoint: Endpoint) -> str:
    """Name of the host's end of the pair: found again after a crash by the endpoint alone."""
    return f"veth{endpoint.id[:7]}"


@dataclass(slots=True)
class Spare:
    """A sandbox made ahead of the next start: 2 ms that no start waits for. It has no name and ends with the daemon."""

    namespace: int
    doors: Doors | None

    def take_doors(self) -> Doors:
        made, self.doors = self.doors, None
        return made if made is not None else name_doors(self.namespace)

    def close(self) -> None:
        os.close(self.namespace)
        if self.doors is not None:
            self.doors.close()


def make_spare() -> Spare:
    """Loopback up, Docker's defaults, and the name service's sockets ready."""
    made = netns.create()
    try:
        with netns.entered(made):
            with NetlinkSocket() as netlink:
                netlink.batch([rt.link_up("lo")])
            # For unprivileged use: ports below 1024 and ping without a capability.
            sysctl.write_if_present("net.ipv4.ip_unprivileged_port_start", "0")
            sysctl.write_if_present("net.ipv4.ping_group_range", "0 2147483647")
            sysctl.write_if_present("net.ipv4.ip_forward", "0")
            # IPv6 only where a network has it (CVE-2024-32473); IPAM is the only giver of addresses. Set for interfaces
            # to come: a write to one that is there takes the RTNL lock, 0.14 ms.
            sysctl.write_if_present("net.ipv6.conf.default.disable_ipv6", "1")
            sysctl.write_if_present("net.ipv6.conf.default.accept_dad", "0")
            return Spare(made, open_doors())
    except BaseException:
        os.close(made)
        raise


def keep_sandbox(spare: Spare, path: Path) -> None:
    """The spare is the sandbox at ``path`` from now on. What a crash left there is replaced."""
    netns.remove(path)
    netns.keep(spare.namespace, path)


def plug(sandbox: int, pairs: Sequence[tuple[Network, Endpoint]], mtu: int, doors: Sequence[Door]) -> None:
    """Endpoints into a sandbox, and its default routes."""
    with NetlinkSocket() as netlink:
        indexes = {link.name: link.index for link in rt.links(netlink)} if len(pairs) > 4 else {}
        messages = []
        for network, endpoint in pairs:
            found = indexes.get(network.parent) or _index(netlink, network.parent)
            if not found:
                raise KERNEL(what=f"connect to network {network.name}", cause=f"{network.parent} is missing")
            messages += _interface(network, endpoint, found, sandbox, mtu)
        try:
            netlink.batch(messages)
        except NetlinkError as error:
            raise KERNEL(what="connect the container", cause=str(error)) from None
    with netns.entered(sandbox):
        _configure(pairs, doors)


def name_doors(sandbox: int | str) -> Doors:
    """The name service's sockets in a sandbox that has been at work. Opened last, so that no failure after it leaves
    them open."""
    with netns.entered(sandbox):
        return open_doors(again=True)


def _index(netlink: NetlinkSocket, name: str) -> int:
    link = rt.link(netlink, name)
    return link.index if link else 0


def _interface(network: Network, endpoint: Endpoint, parent: int, sandbox: int, mtu: int) -> list[Message]:
    inner, mac = endpoint.interface, endpoint.mac
    if network.driver == "macvlan":
        mode = network.option("macvlan_mode", "bridge")
        wanted = int(network.option("com.docker.network.driver.mtu") or 0)
        return [rt.add_macvlan(inner, parent=parent, mode=mode, mtu=wanted, netns=sandbox, mac=mac)]
    name = host_name(endpoint)
    size = mtu_of(network, mtu)
    return [
        rt.remove_link(name=name),
        rt.add_veth(name, mtu=size, bridge=parent, netns=sandbox, peer=inner, mac=mac),
        rt.set_bridge_port(name, hairpin=True),
    ]


def _configure(pairs: Sequence[tuple[Network, Endpoint]], doors: Sequence[Door]) -> None:
    with NetlinkSocket() as netlink:
        messages, indexes = [], dict[str, int]()
        for _, endpoint in pairs:
            link = rt.link(netlink, endpoint.interface)
            if link is None:
                raise KERNEL(what="connect the container", cause=f"{endpoint.interface} is missing")
            indexes[endpoint.interface] = link.index
            if endpoint.address6:
                sysctl.write_if_present(f"net.ipv6.conf.{endpoint.interface}.disable_ipv6", "0")
            for name, value in endpoint.sysctls.items():
                sysctl.write(name, value)
            extra = endpoint.wish.ipam_config.link_local_ips if endpoint.wish.ipam_config else None
            local = [f"{item}/{'64' if ':' in item else '16'}" for item in extra or ()]
            for address in (endpoint.address, endpoint.address6, *local):
                if address:
                    messages.append(rt.add_address(link.index, ip_interface(address)))
            messages.append(rt.change_link(link.index, up=True))
        messages += _default_routes(doors, indexes)
        try:
            netlink.batch(messages)
        except NetlinkError as error:
            raise KERNEL(what="configure the container's interfaces", cause=str(error)) from None


def _default_routes(doors: Sequence[Door], indexes: dict[str, int]) -> list[Message]:
    return [
        rt.add_route(None, oif=indexes[door.interface], gateway=ip_address(door.gateway))
        for door in doors
        if door.interface in indexes
    ]


def route_by(sandbox: int, doors: Sequence[Door]) -> None:
    """Changes the default routes after a live connect or disconnect."""
    with netns.entered(sandbox), NetlinkSocket() as netlink:
        indexes = {link.name: link.index for link in rt.links(netlink)}
        netlink.batch([rt.remove_default_route(4), rt.remove_default_route(6), *_default_routes(doors, indexes)])


def stray_ports(bridges: Collection[str], endpoints: Collection[Endpoint]) -> list[str]:
    """Ports of our bridges that belong to no endpoint in use."""
    wanted = {host_name(item) for item in endpoints}
    with NetlinkSocket() as netlink:
        links = rt.links(netlink)
    ours = {link.index for link in links if link.name in bridges}
    return [link.name for link in links if link.kind == "veth" and link.master in ours and link.name not in wanted]


def remove_links(names: Sequence[str]) -> None:
    with NetlinkSocket() as netlink:
        netlink.batch([rt.remove_link(name=name) for name in names])


def unplug(endpoints: Sequence[Endpoint]) -> None:
    with NetlinkSocket() as netlink, contextlib.suppress(NetlinkError):
        netlink.batch([rt.remove_link(name=host_name(endpoint)) for endpoint in endpoints])


def unplug_inside(path: str, endpoint: Endpoint) -> None:
    """An interface without an end on the host (macvlan) is removed in the sandbox."""
    with netns.entered(path), NetlinkSocket() as netlink:
        netlink.batch([rt.remove_link(name=endpoint.interface)])


def close_sandbox(path: Path) -> None:
    netns.remove(path)


# -- macvlan ----------------------------------------------------------------------------------------------------------


def setup_parent(network: Network) -> None:
    """The parent of a macvlan network: an interface of the host, its VLAN (``eth0.50``), or a dummy for internal ones."""
    name = network.parent
    with NetlinkSocket() as netlink:
        if rt.link(netlink, name) is not None:
            return
        base, dot, tag = name.rpartition(".")
        try:
            if not network.option("parent"):
                netlink.batch([rt.add_dummy(name)])
            elif dot and tag.isdigit() and (below := rt.link(netlink, base)) is not None:
                netlink.batch([rt.add_vlan(name, parent=below.index, tag=int(tag))])
            else:
                raise KERNEL(what=f"create network {network.name}", cause=f"invalid subinterface vlan name {name}")
        except NetlinkError as error:
            raise KERNEL(what=f"create network {network.name}", cause=str(error)) from None


def remove_parent(network: Network) -> None:
    """Only what we made: the dummy. A VLAN may have been there before us."""
    if not network.option("parent"):
        with NetlinkSocket() as netlink:
            netlink.batch([rt.remove_link(name=network.parent)])
