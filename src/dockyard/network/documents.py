"""Networks and endpoints in Docker's JSON form (Engine API 1.51). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dockyard.network import routing
from dockyard.network.model import Endpoint, Network, Sandbox

Json = dict[str, Any]


def network(network: Network, endpoints: Sequence[Endpoint]) -> Json:
    return {
        "Name": network.name, "Id": network.id, "Created": network.created, "Scope": network.scope, "Driver": network.driver,
        "EnableIPv4": network.enable_ipv4, "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": network.ipam_driver, "Options": network.ipam_options or None,
            "Config": [_ipam_row(subnet) for subnet in (*network.subnets, *network.idle)],
        },
        "Internal": network.internal, "Attachable": network.attachable, "Ingress": False,
        "ConfigFrom": {"Network": network.config_from}, "ConfigOnly": network.config_only,
        "Containers": {
            item.container: {
                "Name": item.name, "EndpointID": item.id, "MacAddress": item.mac, "IPv4Address": item.address,
                "IPv6Address": item.address6,
            }
            for item in endpoints
        },
        "Options": dict(network.options), "Labels": dict(network.labels),
    }  # fmt: skip


def _ipam_row(subnet: Any) -> Json:
    row: Json = {"Subnet": subnet.subnet}
    if subnet.gateway:
        row["Gateway"] = subnet.gateway
    if subnet.ip_range:
        row["IPRange"] = subnet.ip_range
    if subnet.auxiliary:
        row["AuxiliaryAddresses"] = subnet.auxiliary
    return row


def network_settings(sandbox: Sandbox | None, pairs: Sequence[tuple[Network, Endpoint]]) -> Json:
    networks = {network.name: _endpoint(network, item) for network, item in pairs}
    default = networks.get("bridge", {})
    return {
        "Bridge": "", "SandboxID": sandbox.container if sandbox else "", "SandboxKey": sandbox.netns if sandbox else "",
        "Ports": _ports(sandbox), "HairpinMode": False, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None, "SecondaryIPv6Addresses": None, "EndpointID": default.get("EndpointID", ""),
        "Gateway": default.get("Gateway", ""), "GlobalIPv6Address": default.get("GlobalIPv6Address", ""),
        "GlobalIPv6PrefixLen": default.get("GlobalIPv6PrefixLen", 0),
        "IPAddress": default.get("IPAddress", ""), "IPPrefixLen": default.get("IPPrefixLen", 0),
        "IPv6Gateway": default.get("IPv6Gateway", ""),
        "MacAddress": default.get("MacAddress", ""), "Networks": networks,
    }  # fmt: skip


def _ports(sandbox: Sandbox | None) -> Json:
    if sandbox is None:
        return {}
    found: Json = dict.fromkeys(sandbox.exposed)
    for item in sandbox.published:
        row = {"HostIp": item.host_ip, "HostPort": str(item.host_port)}
        found[f"{item.port}/{item.protocol}"] = [*(found.get(f"{item.port}/{item.protocol}") or []), row]
    return found


def _endpoint(network: Network, item: Endpoint) -> Json:
    wish, live = item.wish, bool(item.interface)
    address, prefix, gateway = _place(network, item, "ip") if live else ("", 0, "")
    address6, prefix6, gateway6 = _place(network, item, "ip6") if live else ("", 0, "")
    return {
        "IPAMConfig": wish.ipam_config, "Links": wish.links, "Aliases": wish.aliases, "MacAddress": item.mac,
        "DriverOpts": wish.driver_opts, "GwPriority": wish.gw_priority, "NetworkID": network.id,
        "EndpointID": item.id if live else "", "Gateway": gateway, "IPAddress": address, "IPPrefixLen": prefix,
        "IPv6Gateway": gateway6, "GlobalIPv6Address": address6, "GlobalIPv6PrefixLen": prefix6,
        "DNSNames": list(item.names) if not network.predefined else None,
    }  # fmt: skip


def _place(network: Network, item: Endpoint, family: str) -> tuple[str, int, str]:
    """(address, prefix length, gateway); internal networks show no gateway, for nothing is routed."""
    address, _, prefix = (item.address if family == "ip" else item.address6).partition("/")
    return address, int(prefix or 0), "" if network.internal else routing.gateway_of(network, item, family)
