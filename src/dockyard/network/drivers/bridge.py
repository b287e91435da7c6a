"""The bridge driver: a Linux bridge with the gateway's address per network, a veth pair per endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from ipaddress import ip_address, ip_interface

import msgspec

from dockyard.kernel import netlink_route as rt
from dockyard.kernel import sysctl
from dockyard.kernel.netlink import Message, NetlinkError, NetlinkSocket
from dockyard.network import errors
from dockyard.network.drivers.plain import LocalDriver, adopted, check_common, check_interface_name, mtu_of, switch
from dockyard.network.model import BRIDGE_OPTION, FAMILIES, Endpoint, Network

LEAST_IPV6_MTU = 1280
"""RFC 8200 section 5; the kernel takes IPv6 from an interface below it."""
MODES = frozenset({"nat", "nat-unprotected", "routed", "isolated"})
_SWITCHES = tuple(f"{BRIDGE_OPTION}{name}" for name in ("enable_icc", "enable_ip_masquerade", "inhibit_ipv4"))


class BridgeDriver(LocalDriver):
    def __init__(self, mtu: int, *, forward: bool) -> None:
        """``forward``: forwarding is ours to switch on."""
        self._mtu = mtu
        self._forward = forward

    def check(self, network: Network, known: Sequence[Network]) -> Network:
        options = dict(network.options)
        for name in _SWITCHES:
            if name in options:
                options[name] = switch(name, options[name])
        _check_modes(network)
        check_common(network)
        if network.enable_ipv6 and 0 < mtu_of(network, 0) < LEAST_IPV6_MTU:
            raise errors.BAD(cause=f"IPv6 needs an MTU of at least {LEAST_IPV6_MTU}, not {mtu_of(network, 0)}")
        check_interface_name(network.bridge)
        for name in network.trusted_interfaces:
            check_interface_name(name)
        for name in ("com.docker.network.host_ipv4", "com.docker.network.host_ipv6", f"{BRIDGE_OPTION}host_binding_ipv4"):
            _check_address(name, options.get(name, ""))
        for other in known:
            if other.driver == "bridge" and not other.config_only and other.bridge == network.bridge:
                raise errors.CONFLICTING_BRIDGE(name=network.name, bridge=network.bridge, other=other.name)
        return msgspec.structs.replace(network, options=options)

    def adopt(self, network: Network) -> Network:
        return adopted(network, network.bridge)

    def setup(self, network: Network) -> None:
        setup_bridge(network, self._mtu)
        if network.enable_ipv6 and self._forward:
            sysctl.write_if_present("net.ipv6.conf.all.forwarding", "1")

    def teardown(self, network: Network) -> None:
        if not network.adopted:
            with NetlinkSocket() as netlink:
                netlink.batch([rt.remove_link(name=network.bridge)])

    def parent(self, network: Network, endpoint: Endpoint) -> str:
        return network.bridge

    def interface(self, network: Network, endpoint: Endpoint, parent: int, sandbox: int) -> list[Message]:
        name, size = host_name(endpoint), mtu_of(network, self._mtu)
        return [
            rt.remove_link(name=name),
            rt.add_veth(name, mtu=size, bridge=parent, netns=sandbox, peer=endpoint.interface, mac=endpoint.mac),
            rt.set_bridge_port(name, hairpin=True),
        ]

    def unplug(self, network: Network, endpoint: Endpoint, sandbox: str) -> None:
        with NetlinkSocket() as netlink, contextlib.suppress(NetlinkError):
            netlink.batch([rt.remove_link(name=host_name(endpoint))])


def _check_modes(network: Network) -> None:
    for family in ("ipv4", "ipv6"):
        mode = network.options.get(f"{BRIDGE_OPTION}gateway_mode_{family}", "") or "nat"
        if mode not in MODES:
            raise errors.BAD(cause=f'unknown gateway mode {mode} in gateway_mode_{family}: one of {", ".join(sorted(MODES))}')
        if mode == "isolated" and not network.internal:
            raise errors.BAD(cause="gateway mode 'isolated' can only be used for an internal network")


def _check_address(name: str, value: str) -> None:
    if value:
        try:
            ip_address(value)
        except ValueError:
            raise errors.BAD(cause=f"invalid value for {name}: {value} is not an address") from None


def host_name(endpoint: Endpoint) -> str:
    """Name of the host's end of the pair: found again after a crash by the endpoint alone."""
    return f"veth{endpoint.id[:7]}"


def mac_of(address: str) -> str:
    """From the address, as Docker's 02:42 ones. Its next holder has the same MAC, so no neighbour's cache is stale
    (seen: 6 s of silence on a published port after a new container took over an address)."""
    packed = ip_address(address.partition("/")[0]).packed[-4:]
    return "02:42:" + packed.hex(":")


def setup_bridge(network: Network, mtu: int) -> None:
    """The bridge with its addresses; what is there already is completed. Raises System."""
    name = network.bridge
    try:
        with NetlinkSocket() as netlink:
            link = rt.link(netlink, name)
            if link is None:
                mac = mac_of(network.subnets[0].gateway or network.subnets[0].subnet)
                netlink.batch([rt.add_bridge(name, mac=mac, mtu=mtu_of(network, mtu), filtered=not network.icc)])
                link = rt.link(netlink, name)
            elif link.kind != "bridge":
                raise errors.KERNEL(what=f"use {name} for network {network.name}", cause=f"it is no bridge ({link.kind or 'hardware'})")
            assert link is not None
            _sysctls_of_bridge(network)
            netlink.batch([rt.change_link(link.index, up=True), *_bridge_addresses(network, link.index)])
    except NetlinkError as error:
        raise errors.KERNEL(what=f"make bridge {name}", cause=str(error)) from None


def _bridge_addresses(network: Network, index: int) -> list[Message]:
    found = []
    for family in FAMILIES:
        subnet = network.subnet(family)
        hidden = family == "ip" and network.option(f"{BRIDGE_OPTION}inhibit_ipv4") == "true"
        if subnet is not None and subnet.gateway and not hidden and network.gateway_mode(family) != "isolated":
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


def bridge_interface(name: str) -> tuple[bool, list[str]]:
    """Whether a link of that name is there, and its addresses with prefix lengths (an administrator's own bridge)."""
    with NetlinkSocket() as netlink:
        link = rt.link(netlink, name)
        if link is None:
            return False, []
        found = [address for index, address in rt.addresses(netlink) if index == link.index and not address.is_link_local]
        return True, [str(address) for address in found]
