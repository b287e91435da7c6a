"""A network from Docker's create request. Pure; pools come from an IPAM driver, options are checked by a driver.

Every refusal names the culprit and has Docker's status (moby daemon/network.go, api/types/network/ipam.go).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dockyard.lib import clock
from dockyard.model import new_id
from dockyard.network import errors, ipam
from dockyard.network.ipams.own import wanted_subnets
from dockyard.network.model import BRIDGE_OPTION, Network, NetworkSettings, Subnet

Json = dict[str, Any]
PREDEFINED = frozenset({"bridge", "host", "none", "default"})


@dataclass(frozen=True, slots=True)
class Draft:
    """A network without its pools yet, and what is asked of IPAM."""

    network: Network
    ipam: Json


def draft(request: Json, known: Sequence[Network], settings: NetworkSettings) -> Draft:
    name = request.get("Name") or ""
    check_name(name, known)
    config_from = (request.get("ConfigFrom") or {}).get("Network") or ""
    if config_from:
        request = _borrowed(request, config_from, known)
    driver = request.get("Driver") or "bridge"
    if driver in {"host", "null", "none"}:
        raise errors.ONLY_ONE(driver=driver)
    if driver == "overlay":
        raise errors.NO_SWARM()
    ipv4, ipv6 = request.get("EnableIPv4") is not False, bool(request.get("EnableIPv6"))
    if not (ipv4 or ipv6):
        raise errors.BAD(cause="IPv4 or IPv6 must be enabled")
    wish, only = request.get("IPAM") or {}, bool(request.get("ConfigOnly"))
    if request.get("Ingress"):
        raise errors.NO_SWARM()
    network = Network(
        id=new_id(), name=name, driver="null" if only else driver, created=clock.rfc3339(clock.now()),
        options={**settings.default_network_opts.get(driver, {}), **texts(request.get("Options"))},
        labels=texts(request.get("Labels")), internal=bool(request.get("Internal")),
        attachable=bool(request.get("Attachable")), enable_ipv4=ipv4, enable_ipv6=ipv6,
        ipam_driver=wish.get("Driver") or "default", ipam_options=texts(wish.get("Options")), config_only=only,
        config_from=config_from,
    )  # fmt: skip
    if only:
        network = with_pools(network, wanted_subnets(wish), configured=True)
    return Draft(network, wish)


def with_pools(network: Network, subnets: Sequence[Subnet], idle: Sequence[Subnet] = (), *, configured: bool) -> Network:
    """``isolated`` bridges have no address, so their first one is left to containers."""
    made = []
    for item in subnets:
        family = "ip6" if ":" in item.subnet else "ip"
        bare = network.driver == "bridge" and network.gateway_mode(family) == "isolated"
        made.append(msgspec.structs.replace(item, gateway="") if bare else item)
    return msgspec.structs.replace(network, subnets=tuple(made), idle=tuple(idle), configured=configured)


def check_name(name: str, known: Sequence[Network]) -> None:
    if not name.strip():
        raise errors.BAD(cause="invalid network name: name is empty")
    if "/" in name or name != name.strip():
        raise errors.BAD(cause=f"invalid network name: {name}")
    if name in PREDEFINED:
        raise errors.PREDEFINED_NAME(name=name)
    if any(network.name == name for network in known):
        raise errors.NETWORK_EXISTS(name=name)


def _borrowed(request: Json, ref: str, known: Sequence[Network]) -> Json:
    """--config-from: driver options, IPAM and the rest come from a configuration-only network."""
    source = next((item for item in known if ref in {item.name, item.id}), None)
    if source is None:
        raise errors.NO_SUCH_NETWORK(ref=ref)
    if not source.config_only:
        raise errors.BAD(cause=f"{ref} is not a configuration only network")
    rows = [
        {"Subnet": item.subnet, "Gateway": item.gateway, "IPRange": item.ip_range, "AuxiliaryAddresses": item.auxiliary}
        for item in source.subnets
    ]
    return request | {
        "Options": source.options, "Labels": source.labels, "Internal": source.internal,
        "EnableIPv6": source.enable_ipv6,
        "IPAM": {"Driver": source.ipam_driver, "Config": rows, "Options": source.ipam_options},
    }  # fmt: skip


# -- the default bridge -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwnBridge:
    """What is known of the bridge's device before: its name, whether it was there, its addresses with prefix."""

    name: str
    present: bool = False
    addresses: Sequence[str] = ()

    def address(self, family: str) -> str:
        return next((item for item in self.addresses if (":" in item) == (family == "ip6")), "")


def default_bridge(
    settings: NetworkSettings, device: OwnBridge, mtu: int, before: Network | None, pool: str
) -> Network:
    """The network called bridge, from the daemon's flags. ``before`` is its last record: what no flag says stays as it
    was, so that a restart changes no address. ``pool`` is for the case that there was none."""
    number = before.id if before else new_id()
    last = before.subnet("ip") if before else None
    subnets = [_default_subnet(settings, device, last, pool)]
    if settings.ipv6:
        last6 = before.subnet("ip6") if before else None
        subnets.append(_default_subnet6(settings, device, last6, number))
    options = {
        **settings.default_network_opts.get("bridge", {}),
        f"{BRIDGE_OPTION}default_bridge": "true", f"{BRIDGE_OPTION}enable_icc": str(settings.icc).lower(),
        f"{BRIDGE_OPTION}enable_ip_masquerade": str(settings.ip_masq).lower(),
        f"{BRIDGE_OPTION}host_binding_ipv4": settings.host_ip, f"{BRIDGE_OPTION}name": device.name,
        "com.docker.network.driver.mtu": str(mtu),
    }  # fmt: skip
    created = before.created if before else clock.rfc3339(clock.now())
    adopted = bool(settings.bridge) if device.present else False
    return Network(
        number, "bridge", "bridge", created, tuple(subnets), options, enable_ipv6=settings.ipv6, adopted=adopted
    )


def _default_subnet(settings: NetworkSettings, device: OwnBridge, last: Subnet | None, pool: str) -> Subnet:
    address = settings.bip or (device.address("ip") if settings.bridge else "")
    if address:
        network, own = str(ipam.parse_network(address)), address.partition("/")[0]
    elif last is not None and not _changed(last, settings.fixed_cidr):
        network, own = last.subnet, last.gateway
    else:
        network, own = pool, ""
    subnet = ipam.resolve_subnet(network, own, settings.fixed_cidr, {})
    return _with_gateway(subnet, settings.default_gateway)


def _changed(last: Subnet, fixed: str) -> bool:
    """Whether a new --fixed-cidr no longer lies in the subnet that the bridge has."""
    return bool(fixed) and not ipam.inside(ipam.parse_subnet(fixed), ipam.parse_network(last.subnet))


def _default_subnet6(settings: NetworkSettings, device: OwnBridge, last: Subnet | None, seed: str) -> Subnet:
    address = settings.bip6 or (device.address("ip6") if settings.bridge else "")
    fixed = settings.fixed_cidr_v6
    if address:
        network, own = str(ipam.parse_network(address)), address.partition("/")[0]
        return _with_gateway(ipam.resolve_subnet(network, own, fixed, {}), settings.default_gateway_v6)
    if fixed:
        return _with_gateway(ipam.resolve_subnet(fixed, "", "", {}), settings.default_gateway_v6)
    network = last.subnet if last else str(ipam.unique_local(seed))
    return _with_gateway(ipam.resolve_subnet(network, "", "", {}), settings.default_gateway_v6)


def _with_gateway(subnet: Subnet, door: str) -> Subnet:
    """--default-gateway is where containers send their packets; the bridge keeps an address of its own."""
    if not door or door == subnet.gateway:
        return subnet
    ipam.check_gateway(door, subnet.subnet)
    return msgspec.structs.replace(
        subnet, auxiliary={**subnet.auxiliary, "DefaultGatewayIPv6" if ":" in door else "DefaultGatewayIPv4": door}
    )


def texts(values: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in (values or {}).items()}


def same_bridge(one: Network, other: Network) -> bool:
    return (one.subnets, one.options, one.enable_ipv6) == (other.subnets, other.options, other.enable_ipv6)
