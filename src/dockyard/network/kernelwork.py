"""What the kernel is asked for: bridges, veth pairs, addresses, the nft table. Runs in the room's namespace thread.

One netlink batch on the host's side, one inside the sandbox, one nft transaction: a start costs a few syscalls.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from dockyard.kernel import netlink_route as rt
from dockyard.kernel import netns, sysctl
from dockyard.kernel.netlink import NetlinkError, NetlinkSocket
from dockyard.kernel.nft import Nft, NftError
from dockyard.network.errors import KERNEL
from dockyard.network.model import Endpoint, Network
from dockyard.network.names import NameService

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
        return [str(route.destination) for route in rt.routes(netlink) if route.destination is not None]


def link_exists(name: str) -> bool:
    with NetlinkSocket() as netlink:
        return rt.link(netlink, name) is not None


def run_nft(commands: str) -> None:
    try:
        with Nft() as nft:
            nft.run(commands)
    except NftError as error:
        raise KERNEL(what="change the firewall", cause=str(error).splitlines()[0]) from None


def bridge_mac(address: str) -> str:
    """Fixed, from the gateway's address, as Docker's 02:42 ones: a bridge without one takes its lowest port's."""
    return "02:42:" + IPv4Address(address).packed.hex(":")


def setup_bridge(network: Network, mtu: int) -> None:
    """The bridge with its address; what is there already is completed."""
    subnet = network.subnets[0]
    prefix = subnet.subnet.partition("/")[2]
    try:
        with NetlinkSocket() as netlink:
            link = rt.link(netlink, network.bridge)
            if link is None:
                netlink.batch([
                    rt.add_bridge(network.bridge, mac=bridge_mac(subnet.gateway), mtu=mtu, filtered=not network.icc)
                ])  # fmt: skip
                link = rt.link(netlink, network.bridge)
            assert link is not None
            messages = [rt.change_link(link.index, up=True)]
            if network.options.get("com.docker.network.bridge.inhibit_ipv4") != "true":
                messages.append(rt.add_address(link.index, IPv4Interface(f"{subnet.gateway}/{prefix}")))
            netlink.batch(messages)
    except NetlinkError as error:
        raise KERNEL(what=f"make bridge {network.bridge}", cause=str(error)) from None
    # Packets for 127.0.0.1:PORT are sent on to the container; the raw chain keeps the way back closed.
    sysctl.write_if_present(f"net.ipv4.conf.{network.bridge.replace('.', '/')}.route_localnet", "1")
    sysctl.write_if_present(f"net.ipv6.conf.{network.bridge.replace('.', '/')}.disable_ipv6", "1")


def remove_bridge(network: Network) -> None:
    with NetlinkSocket() as netlink:
        netlink.batch([rt.remove_link(name=network.bridge)])


def host_name(endpoint: Endpoint) -> str:
    """Name of the host's end of the pair: found again after a crash by the endpoint alone."""
    return f"veth{endpoint.id[:7]}"


def open_sandbox(path: Path) -> int:
    """The namespace at ``path``, made if it is not there; loopback up."""
    if netns.is_namespace(path):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    path.unlink(missing_ok=True)
    made = netns.create(path)
    with netns.entered(made):
        with NetlinkSocket() as netlink:
            netlink.batch([rt.link_up("lo")])
        # Docker's defaults for unprivileged use: ports below 1024 and ping without a capability.
        sysctl.write_if_present("net.ipv4.ip_unprivileged_port_start", "0")
        sysctl.write_if_present("net.ipv4.ping_group_range", "0 2147483647")
    return made


def plug(sandbox: int, pairs: Sequence[tuple[Network, Endpoint]], mtu: int, gateway: Network | None, names: bool) -> socket.socket | None:
    """Endpoints into a sandbox; the default route through ``gateway``. Returns the name service's socket if asked for."""
    with NetlinkSocket() as netlink:
        bridges = {link.name: link for link in rt.links(netlink) if link.kind == "bridge"}
        messages = []
        for network, endpoint in pairs:
            bridge = bridges.get(network.bridge)
            if bridge is None:
                raise KERNEL(what=f"connect to network {network.name}", cause=f"bridge {network.bridge} is missing")
            size = int(network.options.get("com.docker.network.driver.mtu") or mtu)
            messages += [
                rt.remove_link(name=host_name(endpoint)),
                rt.add_veth(host_name(endpoint), mtu=size, bridge=bridge.index, netns=sandbox, peer=endpoint.interface, mac=endpoint.mac),
            ]
        try:
            netlink.batch(messages)
        except NetlinkError as error:
            raise KERNEL(what="connect the container", cause=str(error)) from None
    with netns.entered(sandbox):
        _configure(pairs, gateway)
        return NameService.open_socket() if names else None


def _configure(pairs: Sequence[tuple[Network, Endpoint]], gateway: Network | None) -> None:
    with NetlinkSocket() as netlink:
        messages = []
        for network, endpoint in pairs:
            link = rt.link(netlink, endpoint.interface)
            if link is None:
                continue
            sysctl.write_if_present(f"net.ipv6.conf.{endpoint.interface}.disable_ipv6", "1")
            messages += [rt.add_address(link.index, IPv4Interface(endpoint.address)), rt.change_link(link.index, up=True)]
            if gateway is not None and network.id == gateway.id:
                messages.append(rt.add_route(None, oif=link.index, gateway=IPv4Address(network.subnets[0].gateway)))
        netlink.batch(messages)


def route_by(sandbox: int, gateway: Network | None, interface: str) -> None:
    """Changes the default route after a live connect or disconnect."""
    with netns.entered(sandbox), NetlinkSocket() as netlink:
        messages = [rt.remove_default_route(4)]
        link = rt.link(netlink, interface) if interface else None
        if gateway is not None and link is not None:
            messages.append(rt.add_route(None, oif=link.index, gateway=IPv4Address(gateway.subnets[0].gateway)))
        netlink.batch(messages)


def unplug(endpoints: Sequence[Endpoint]) -> None:
    with NetlinkSocket() as netlink, contextlib.suppress(NetlinkError):
        netlink.batch([rt.remove_link(name=host_name(endpoint)) for endpoint in endpoints])


def close_sandbox(path: Path) -> None:
    netns.remove(path)
