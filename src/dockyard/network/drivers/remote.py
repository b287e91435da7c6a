"""A network driver in another process: libnetwork's remote driver protocol (moby daemon/libnetwork/docs/remote.md).

What is asked is an HTTP POST to ``NetworkDriver.METHOD``; a method that a plugin does not know (404) is optional here
where it is in libnetwork. The interface that Join names is moved from the host into the sandbox, named there, and moved
back before Leave, so that the plugin gets back what it gave.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import msgspec

from dockyard.client.errors import PLUGIN_FAILED
from dockyard.client.plugins import Plugin, Unimplemented
from dockyard.kernel import netlink_route as rt
from dockyard.kernel import netns
from dockyard.kernel.netlink import Message, NetlinkError, NetlinkSocket
from dockyard.network.drivers.plain import MAX_INTERFACE_NAME, LocalDriver
from dockyard.network.model import Endpoint, Joined, Network, StaticRoute, Subnet
from dockyard.network.ports import Json

_GENERIC = "com.docker.network.generic"
_OWN_NETNS = "/proc/thread-self/ns/net"


class RemoteDriver(LocalDriver):
    def __init__(self, plugin: Plugin, scope: str) -> None:
        self._plugin = plugin
        self.scope = scope

    @classmethod
    async def open(cls, plugin: Plugin) -> RemoteDriver:
        try:
            told = await asyncio.to_thread(plugin.call, "NetworkDriver.GetCapabilities")
        except Unimplemented:
            told = {}
        return cls(plugin, str(told.get("Scope") or "local"))

    async def _call(self, method: str, request: Mapping[str, Any], *, optional: bool = False) -> Json:
        try:
            return await asyncio.to_thread(self._plugin.call, f"NetworkDriver.{method}", request)
        except Unimplemented:
            if optional:
                return {}
            raise self._wrong(method, "the method is not implemented") from None

    def _wrong(self, method: str, cause: str) -> Exception:
        return PLUGIN_FAILED(plugin=self._plugin.name, method=f"NetworkDriver.{method}", cause=cause)

    async def create_network(self, network: Network) -> None:
        options: Json = {_GENERIC: dict(network.options), "com.docker.network.enable_ipv4": network.enable_ipv4}
        if network.enable_ipv6:
            options["com.docker.network.enable_ipv6"] = True
        if network.internal:
            options["com.docker.network.internal"] = True
        rows: dict[str, list[Json]] = {"IPv4Data": [], "IPv6Data": []}
        for subnet in network.subnets:
            rows["IPv6Data" if ":" in subnet.subnet else "IPv4Data"].append(_pool_data(subnet))
        await self._call("CreateNetwork", {"NetworkID": network.id, "Options": options, **rows})

    async def delete_network(self, network: Network) -> None:
        await self._call("DeleteNetwork", {"NetworkID": network.id})

    async def create_endpoint(self, network: Network, endpoint: Endpoint, options: Json) -> Endpoint:
        given = {"Address": endpoint.address, "AddressIPv6": endpoint.address6, "MacAddress": endpoint.mac}
        request = {"NetworkID": network.id, "EndpointID": endpoint.id, "Options": options, "Interface": given}
        answer = (await self._call("CreateEndpoint", request)).get("Interface") or {}
        changes: dict[str, str] = {}
        for theirs, ours in (("Address", "address"), ("AddressIPv6", "address6"), ("MacAddress", "mac")):
            value = str(answer.get(theirs) or "")
            if not value:
                continue
            if given[theirs]:
                await self.delete_endpoint(network, endpoint)
                raise self._wrong("CreateEndpoint", f"it changed {theirs} {given[theirs]} to {value}")
            changes[ours] = value
        try:
            for name, value in changes.items():
                ip_interface(value) if name != "mac" else rt.mac_bytes(value)
        except ValueError:
            await self.delete_endpoint(network, endpoint)
            raise self._wrong("CreateEndpoint", f"cannot read its interface {changes}") from None
        return msgspec.structs.replace(endpoint, **changes)

    async def delete_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        await self._call("DeleteEndpoint", _ids(network, endpoint))

    async def join(self, network: Network, endpoint: Endpoint, sandbox: str, options: Json) -> Endpoint:
        answer = await self._call("Join", {**_ids(network, endpoint), "SandboxKey": sandbox, "Options": options})
        try:
            joined = _joined(answer)
        except (ValueError, TypeError, AttributeError) as error:
            with contextlib.suppress(Exception):
                await self.leave(network, endpoint)
            raise self._wrong("Join", f"cannot read its answer: {error}") from None
        return msgspec.structs.replace(endpoint, joined=joined)

    async def leave(self, network: Network, endpoint: Endpoint) -> None:
        await self._call("Leave", _ids(network, endpoint))

    async def publish(self, network: Network, endpoint: Endpoint, options: Json) -> None:
        await self._call("ProgramExternalConnectivity", {**_ids(network, endpoint), "Options": options}, optional=True)

    async def withdraw(self, network: Network, endpoint: Endpoint) -> None:
        await self._call("RevokeExternalConnectivity", _ids(network, endpoint), optional=True)

    def parent(self, network: Network, endpoint: Endpoint) -> str:
        return endpoint.joined.source if endpoint.joined else ""

    def interface(self, network: Network, endpoint: Endpoint, parent: int, sandbox: int) -> list[Message]:
        return [rt.change_link(parent, up=False), rt.change_link(parent, netns=sandbox, name=endpoint.interface)]

    def unplug(self, network: Network, endpoint: Endpoint, sandbox: str) -> None:
        """Back to the host under its first name."""
        if endpoint.joined is None or not endpoint.joined.source:
            return
        home = os.open(_OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError, NetlinkError), netns.entered(sandbox), NetlinkSocket() as netlink:
                link = rt.link(netlink, endpoint.interface)
                if link is not None:
                    back = rt.change_link(link.index, netns=home, name=endpoint.joined.source)
                    netlink.batch([rt.change_link(link.index, up=False), back])
        finally:
            os.close(home)


def _ids(network: Network, endpoint: Endpoint) -> Json:
    return {"NetworkID": network.id, "EndpointID": endpoint.id}


def _pool_data(subnet: Subnet) -> Json:
    prefix = subnet.subnet.partition("/")[2]
    auxiliary = {name: f"{address}/{prefix}" for name, address in subnet.auxiliary.items()}
    gateway = f"{subnet.gateway}/{prefix}" if subnet.gateway else ""
    return {"AddressSpace": "LocalDefault", "Pool": subnet.subnet, "Gateway": gateway, "AuxAddresses": auxiliary}


def _joined(answer: Json) -> Joined:
    """Raises ValueError, TypeError, AttributeError."""
    named = answer.get("InterfaceName") or {}
    source, prefix = str(named.get("SrcName") or ""), str(named.get("DstPrefix") or "eth")
    for name in (source, prefix):
        if len(name) > MAX_INTERFACE_NAME or "/" in name or any(sign.isspace() for sign in name):
            raise ValueError(f"interface name {name!r}")
    routes = []
    for row in answer.get("StaticRoutes") or []:
        hop = str(row.get("NextHop") or "") if int(row.get("RouteType") or 0) == 0 else ""
        routes.append(StaticRoute(str(ip_network(row["Destination"], strict=False)), str(ip_address(hop)) if hop else ""))
    gateways = [str(ip_address(answer[name])) if answer.get(name) else "" for name in ("Gateway", "GatewayIPv6")]
    return Joined(source, prefix, gateways[0], gateways[1], tuple(routes), bool(answer.get("DisableGatewayService")))


def options_of(endpoint: Endpoint, exposed: Sequence[str], published: Sequence[Any]) -> Json:
    """The options that a driver is told of an endpoint: the user's own, exposed and published ports (netlabel)."""
    number = {"tcp": 6, "udp": 17, "sctp": 132}
    ports = [spec.partition("/") for spec in exposed]
    return dict(endpoint.wish.driver_opts or {}) | {
        "com.docker.network.endpoint.exposedports": [
            {"Proto": number.get(protocol or "tcp", 6), "Port": int(port)} for port, _, protocol in ports if port.isdigit()
        ],
        "com.docker.network.portmap": [
            {
                "Proto": number.get(item.protocol, 6), "IP": "", "Port": item.port, "HostIP": item.host_ip,
                "HostPort": item.host_port, "HostPortEnd": item.host_port,
            }
            for item in published
        ],
    }  # fmt: skip
