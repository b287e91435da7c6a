"""Networks and endpoints in Docker's JSON form (Engine API 1.51). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dockyard.network.model import Endpoint, Network, Sandbox

Json = dict[str, Any]


def network(network: Network, endpoints: Sequence[Endpoint]) -> Json:
    return {
        "Name": network.name, "Id": network.id, "Created": network.created, "Scope": "local", "Driver": network.driver,
        "EnableIPv4": True, "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": "default", "Options": network.ipam_options or None,
            "Config": [_ipam_row(subnet) for subnet in network.subnets],
        },
        "Internal": network.internal, "Attachable": network.attachable, "Ingress": False,
        "ConfigFrom": {"Network": ""}, "ConfigOnly": False,
        "Containers": {
            item.container: {
                "Name": item.name, "EndpointID": item.id, "MacAddress": item.mac, "IPv4Address": item.address,
                "IPv6Address": "",
            }
            for item in endpoints
        },
        "Options": dict(network.options), "Labels": dict(network.labels),
    }  # fmt: skip


def _ipam_row(subnet: Any) -> Json:
    row: Json = {"Subnet": subnet.subnet, "Gateway": subnet.gateway}
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
        "Gateway": default.get("Gateway", ""), "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
        "IPAddress": default.get("IPAddress", ""), "IPPrefixLen": default.get("IPPrefixLen", 0), "IPv6Gateway": "",
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
    address, _, prefix = item.address.partition("/")
    wish = item.wish
    live = bool(item.interface)
    return {
        "IPAMConfig": wish.ipam_config, "Links": wish.links, "Aliases": wish.aliases, "MacAddress": item.mac,
        "DriverOpts": wish.driver_opts, "GwPriority": wish.gw_priority, "NetworkID": network.id,
        "EndpointID": item.id if live else "", "Gateway": network.subnets[0].gateway if live and network.subnets else "",
        "IPAddress": address if live else "", "IPPrefixLen": int(prefix or 0) if live else 0, "IPv6Gateway": "",
        "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
        "DNSNames": list(item.names) if not network.predefined else None,
    }  # fmt: skip
