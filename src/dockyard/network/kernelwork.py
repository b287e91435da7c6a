"""What the kernel is asked for: sandboxes, their interfaces, addresses and routes; facts of the host. In the room's
namespace thread.

One netlink batch on the host's side, one inside the sandbox, one nft transaction: a start costs a few system calls.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from dockyard.kernel import netlink_route as rt
from dockyard.kernel import netns, sysctl
from dockyard.kernel.netlink import Message, NetlinkError, NetlinkSocket
from dockyard.network.drivers.bridge import host_name
from dockyard.network.errors import KERNEL
from dockyard.network.model import Door, Endpoint, Network
from dockyard.network.names import Doors, open_doors
from dockyard.network.ports import Driver

DEFAULT_MTU = 1500


def uplink_mtu() -> int:
    """MTU of the device of the default route: containers behind it must not send more (moby#22028)."""
    with NetlinkSocket() as netlink:
        uplinks = [route.oif for route in rt.routes(netlink) if route.destination is None]
        for link in rt.links(netlink):
            if link.index in uplinks:
                return link.mtu
    return DEFAULT_MTU


def forwarding_interfaces() -> list[str]:
    """Links of the host that may be somebody's way through it, once forwarding is on."""
    with NetlinkSocket() as netlink:
        return sorted(link.name for link in rt.links(netlink) if link.name != "lo" and not link.master)


def host_networks() -> list[str]:
    """Destinations of the host's routes: pools keep clear of them."""
    with NetlinkSocket() as netlink:
        found = [*rt.routes(netlink), *rt.routes(netlink, 6)]
        return [str(route.destination) for route in found if route.destination is not None]


def link_exists(name: str) -> bool:
    return rt.index_of(name) != 0


# -- sandboxes --------------------------------------------------------------------------------------------------------


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


def make_spare(userns: str = "") -> Spare:
    """Loopback up, Docker's defaults, and the name service's sockets ready."""
    made = netns.create(userns)
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
    try:
        netns.keep(spare.namespace, path)
    except FileExistsError:
        netns.remove(path)
        netns.keep(spare.namespace, path)


@dataclass(frozen=True, slots=True)
class Plug:
    """One endpoint that goes into a sandbox."""

    driver: Driver
    network: Network
    endpoint: Endpoint


def plug(sandbox: int, plugs: Sequence[Plug], doors: Sequence[Door]) -> None:
    """Endpoints into a sandbox, and its default routes."""
    rows = [(item, item.driver.parent(item.network, item.endpoint)) for item in plugs]
    wired = [(item, parent) for item, parent in rows if parent]
    with NetlinkSocket() as netlink:
        messages: list[Message] = []
        for item, parent in wired:
            found = rt.index_of(parent)
            if not found:
                raise KERNEL(what=f"connect to network {item.network.name}", cause=f"{parent} is missing")
            messages += item.driver.interface(item.network, item.endpoint, found, sandbox)
        try:
            netlink.batch(messages)
        except NetlinkError as error:
            raise KERNEL(what="connect the container", cause=str(error)) from None
    with netns.entered(sandbox):
        _configure([item.endpoint for item, _ in wired], doors)


def name_doors(sandbox: int | str) -> Doors:
    """The name service's sockets in a sandbox that has been at work. Opened last, so that no failure after it leaves
    them open."""
    with netns.entered(sandbox):
        return open_doors(again=True)


def _configure(endpoints: Sequence[Endpoint], doors: Sequence[Door]) -> None:
    with NetlinkSocket() as netlink:
        messages, indexes = [], dict[str, int]()
        for endpoint in endpoints:
            index = indexes[endpoint.interface] = rt.index_of(endpoint.interface)
            if not index:
                raise KERNEL(what="connect the container", cause=f"{endpoint.interface} is missing")
            if endpoint.address6:
                sysctl.write_if_present(f"net.ipv6.conf.{endpoint.interface}.disable_ipv6", "0")
            if endpoint.wish.mac_address:
                # Its address was another MAC's before, so neighbours are told (libnetwork's advertise_addr). Not for
                # MACs of ours, which go with the address: a broadcast reaches every port of the bridge, 1 ms at 400.
                sysctl.write_if_present(f"net.ipv4.conf.{endpoint.interface}.arp_notify", "1")
                sysctl.write_if_present(f"net.ipv6.conf.{endpoint.interface}.ndisc_notify", "1")
            _write_sysctls(endpoint)
            messages += _addresses(endpoint, index)
        messages += _default_routes(doors, indexes)
        try:
            netlink.batch(messages)
        except NetlinkError as error:
            raise KERNEL(what="configure the container's interfaces", cause=str(error)) from None


def _write_sysctls(endpoint: Endpoint) -> None:
    for name, value in endpoint.sysctls.items():
        try:
            sysctl.write(name, value)
        except OSError as error:
            raise KERNEL(what=f"set sysctl {name}={value} of interface {endpoint.interface}", cause=error.strerror) from None


def _addresses(endpoint: Endpoint, index: int) -> list[Message]:
    """Addresses, the interface up, a plugin's routes."""
    extra = endpoint.wish.ipam_config.link_local_ips if endpoint.wish.ipam_config else None
    local = [f"{item}/{'64' if ':' in item else '16'}" for item in extra or ()]
    texts = [item for item in (endpoint.address, endpoint.address6, *local) if item]
    messages = [rt.add_address(index, ip_interface(item)) for item in texts]
    messages.append(rt.change_link(index, up=True))
    for route in endpoint.joined.routes if endpoint.joined else ():
        hop = ip_address(route.next_hop) if route.next_hop else None
        messages.append(rt.add_route(ip_network(route.destination), oif=index, gateway=hop))
    return messages


def _default_routes(doors: Sequence[Door], indexes: dict[str, int]) -> list[Message]:
    return [
        rt.add_route(
            None, oif=indexes[door.interface], gateway=ip_address(door.gateway) if door.gateway else None,
            version=4 if door.family == "ip" else 6,
        )
        for door in doors
        if door.interface in indexes
    ]  # fmt: skip


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


def interfaces(sandbox: int | str | Path) -> set[str]:
    with netns.entered(sandbox), NetlinkSocket() as netlink:
        return {link.name for link in rt.links(netlink)}


def close_sandbox(path: Path) -> None:
    netns.remove(path)
