"""Shapes of requests about networks and endpoints: what no driver could make sense of is refused here. Pure.

Sentences are moby's (daemon/container_operations.go validateEndpointSettings, api/types/network/endpoint.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

from dockyard.model import EndpointSettings
from dockyard.network import ipam
from dockyard.network.drivers.plain import check_interface_name
from dockyard.network.errors import BAD, STATIC_ADDRESS
from dockyard.network.model import Endpoint, Network
from dockyard.network.ports import Json

_TEXTS = ("Name", "Driver", "Scope")
_MAPS = ("Options", "Labels", "IPAM", "ConfigFrom")
_SWITCHES = ("EnableIPv4", "EnableIPv6", "Internal", "Attachable", "Ingress", "ConfigOnly", "CheckDuplicate")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}\Z")
_SYSCTL_FAMILIES = frozenset({"ipv4", "ipv6", "mpls"})


def checked(request: Json) -> Json:
    """The create request, every field of the type that Docker gives it. Raises InvalidParameter."""
    for names, kind, word in ((_TEXTS, str, "string"), (_MAPS, dict, "object"), (_SWITCHES, bool, "bool")):
        for name in names:
            value = request.get(name)
            if value is not None and not isinstance(value, kind):
                raise BAD(cause=f"invalid network create request: {name} must be a {word}, not {type(value).__name__}")
    wish = request.get("IPAM") or {}
    _need(wish, "Driver", str)
    _need(wish, "Options", dict)
    rows = wish.get("Config")
    if rows is not None and not isinstance(rows, list):
        raise BAD(cause="invalid network create request: IPAM.Config must be a list")
    for row in rows or ():
        if not isinstance(row, dict):
            raise BAD(cause="invalid network create request: IPAM.Config holds objects")
        for name in ("Subnet", "IPRange", "Gateway"):
            _need(row, name, str)
        _need(row, "AuxiliaryAddresses", dict)
    for texts in (request.get("Options"), request.get("Labels"), *(row.get("AuxiliaryAddresses") for row in rows or ())):
        for name, value in (texts or {}).items():
            if not isinstance(value, str):
                raise BAD(cause=f"invalid network create request: {name} must be a string, not {type(value).__name__}")
    return request


def _need(tree: Json, name: str, kind: type) -> None:
    value = tree.get(name)
    if value is not None and not isinstance(value, kind):
        raise BAD(cause=f"invalid network create request: {name} must be a {kind.__name__}, not {type(value).__name__}")


def check_endpoint(network: Network, wish: EndpointSettings) -> None:
    """All that is wrong with an endpoint's wishes, in one message. Raises InvalidParameter."""
    found = [item for item in _endpoint_faults(network, wish) if item]
    if found:
        raise BAD(cause="invalid endpoint settings:\n" + "\n".join(found))
    if name := (wish.driver_opts or {}).get("com.docker.network.endpoint.ifname"):
        check_interface_name(name)


def _endpoint_faults(network: Network, wish: EndpointSettings) -> Iterable[str]:
    plan = wish.ipam_config
    texts = (plan.ipv4_address, plan.ipv6_address) if plan else ("", "")
    for version, text in zip((4, 6), texts, strict=True):
        if text:
            yield _address_fault(network, version, text)
    for text in (plan.link_local_ips if plan else None) or ():
        yield "" if _version(text) else f"invalid link-local IP address: {text}"
    if wish.mac_address and not _MAC.match(wish.mac_address):
        yield f"invalid MAC address: {wish.mac_address}"
    for name, _ in Endpoint("", "", "", "", wish).sysctl_wishes:
        yield _sysctl_fault(name)


def _address_fault(network: Network, version: int, text: str) -> str:
    if _version(text) != version:
        return f"invalid IPv{version} address: {text}"
    if network.predefined:
        return "user specified IP address is supported on user defined networks only"
    if not network.configured:
        return STATIC_ADDRESS.template
    pools = [ipam.parse_network(item.subnet) for item in (*network.subnets, *network.idle)]
    if network.ipam_driver == "default" and not any(ip_address(text) in pool for pool in pools):
        return f"no configured subnet contains IP address {text}"
    return ""


def _version(text: str) -> int:
    try:
        return ip_address(text).version
    except ValueError:
        return 0


def _sysctl_fault(name: str) -> str:
    parts = name.split(".")
    good = len(parts) == 5 and parts[0] == "net" and parts[1] in _SYSCTL_FAMILIES and parts[3].lower() == "ifname"
    if good and all(re.fullmatch(r"[a-zA-Z0-9_-]+", part) for part in parts):
        return ""
    return (
        f"unrecognised network interface sysctl '{name}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', "
        "'X' must be 'ipv4', 'ipv6' or 'mpls'"
    )
