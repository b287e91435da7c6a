"""A network from Docker's create request. Pure: what it must not overlap is given.

Every refusal names the culprit and has Docker's status (moby daemon/network.go, api/types/network/ipam.go).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dockyard.lib import clock
from dockyard.model import new_id
from dockyard.network import errors, ipam
from dockyard.network.ipam import Pool
from dockyard.network.model import Network, NetworkSettings, Subnet

Json = dict[str, Any]
PREDEFINED = frozenset({"bridge", "host", "none", "default"})
DRIVERS = frozenset({"bridge", "macvlan"})
MODES = frozenset({"nat", "nat-unprotected", "routed", "isolated"})
MACVLAN_MODES = frozenset({"private", "vepa", "bridge", "passthru"})
_BRIDGE = "com.docker.network.bridge."
_SWITCHES = (f"{_BRIDGE}enable_icc", f"{_BRIDGE}enable_ip_masquerade", f"{_BRIDGE}inhibit_ipv4")
_TRUE, _FALSE = frozenset({"1", "t", "T", "TRUE", "true", "True"}), frozenset({"0", "f", "F", "FALSE", "false", "False"})
MAX_INTERFACE_NAME = 15


def plan(request: Json, known: Sequence[Network], taken: Iterable[Pool], settings: NetworkSettings) -> Network:
    name = request.get("Name") or ""
    _check_name(name, known)
    config_from = (request.get("ConfigFrom") or {}).get("Network") or ""
    if config_from:
        request = _borrowed(request, config_from, known)
    driver = request.get("Driver") or "bridge"
    if driver in {"host", "null"}:
        raise errors.BAD(cause=f'only one instance of "{driver}" network is allowed')
    if driver not in DRIVERS:
        raise errors.NO_DRIVER(driver=driver)
    number = new_id()
    ipv4, ipv6 = request.get("EnableIPv4") is not False, bool(request.get("EnableIPv6"))
    if driver == "bridge" and not (ipv4 or ipv6):
        raise errors.BAD(cause="IPv4 or IPv6 must be enabled")
    wish = request.get("IPAM") or {}
    only = bool(request.get("ConfigOnly"))
    subnets, configured = _subnets(wish, known, taken, settings, number, ipv4=ipv4, ipv6=ipv6, complete=not only)
    network = Network(
        id=number, name=name, driver=driver, created=clock.rfc3339(clock.now()), subnets=tuple(subnets),
        options=_options(driver, request.get("Options")), labels=texts(request.get("Labels")), configured=configured,
        internal=bool(request.get("Internal")), attachable=bool(request.get("Attachable")), enable_ipv4=ipv4,
        enable_ipv6=ipv6, ipam_options=texts(wish.get("Options")), config_only=only, config_from=config_from,
    )  # fmt: skip
    if not only:
        _check_interfaces(network, known)
    return network


def _check_name(name: str, known: Sequence[Network]) -> None:
    if not name.strip():
        raise errors.BAD(cause="invalid network name: name is empty")
    if "/" in name or name != name.strip():
        raise errors.BAD(cause=f"invalid network name: {name}")
    if name in PREDEFINED:
        raise errors.PREDEFINED_NAME(name=name)
    if any(network.name == name for network in known):
        raise errors.NETWORK_EXISTS(name=name)


def _check_interfaces(network: Network, known: Sequence[Network]) -> None:
    if len(network.parent) > MAX_INTERFACE_NAME:
        raise errors.BAD(cause=f"invalid interface name: {network.parent}: longer than {MAX_INTERFACE_NAME} characters")
    if network.driver != "bridge":
        return
    for other in known:
        if other.driver == "bridge" and not other.config_only and other.bridge == network.bridge:
            raise errors.CONFLICTING_BRIDGE(name=network.name, bridge=network.bridge, other=other.name)


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
        "EnableIPv6": source.enable_ipv6, "IPAM": {"Config": rows, "Options": source.ipam_options},
    }  # fmt: skip


def _subnets(
    wish: Json, known: Sequence[Network], taken: Iterable[Pool], settings: NetworkSettings, seed: str, *,
    ipv4: bool, ipv6: bool, complete: bool,
) -> tuple[list[Subnet], bool]:  # fmt: skip
    if (wish.get("Driver") or "default") != "default":
        raise errors.NO_DRIVER(driver=wish["Driver"])
    own = [ipam.parse_subnet(item.subnet) for other in known if not other.config_only for item in other.subnets]
    made: list[Subnet] = []
    for row in wish.get("Config") or []:
        given = row.get("Subnet") or ""
        if not given:
            if row.get("Gateway") or row.get("IPRange"):
                raise errors.BAD(cause="invalid network config:\ninvalid subnet : subnet is empty")
            continue
        spare = row.get("AuxiliaryAddresses") or {}
        subnet = ipam.resolve_subnet(given, row.get("Gateway") or "", row.get("IPRange") or "", spare)
        if ":" in subnet.subnet and not ipv6:
            continue
        if complete:
            ipam.check_overlap(ipam.parse_subnet(subnet.subnet), own)
        if any((":" in item.subnet) == (":" in subnet.subnet) for item in made):
            raise errors.BAD(cause=f"invalid network config:\none subnet per family is supported: {given} is the second")
        made.append(subnet)
    have4, have6 = any(":" not in item.subnet for item in made), any(":" in item.subnet for item in made)
    if complete and ipv4 and not have4:
        pool = ipam.choose_pool(settings.default_address_pools, [*own, *taken])
        made.insert(0, ipam.resolve_subnet(str(pool), "", "", {}))
    if complete and ipv6 and not have6:
        made.append(ipam.resolve_subnet(str(ipam.unique_local(seed)), "", "", {}))
    made.sort(key=lambda item: ":" in item.subnet)
    return made, have4 or have6


def _options(driver: str, given: Any) -> dict[str, str]:
    options = texts(given)
    for name in _SWITCHES:
        if name in options:
            options[name] = _switch(name, options[name])
    for family in ("ipv4", "ipv6"):
        mode = options.get(f"{_BRIDGE}gateway_mode_{family}", "nat")
        if mode not in MODES:
            raise errors.BAD(cause=f'invalid gateway_mode_{family} "{mode}": must be one of {", ".join(sorted(MODES))}')
    mtu = options.get("com.docker.network.driver.mtu", "0")
    if not mtu.isdigit() or int(mtu) > 65535:
        raise errors.BAD(cause=f'invalid value for com.docker.network.driver.mtu: "{mtu}"')
    if driver == "macvlan" and options.get("macvlan_mode", "bridge") not in MACVLAN_MODES:
        raise errors.BAD(cause=f"requested macvlan mode '{options['macvlan_mode']}' is not valid, 'bridge' mode is the default")
    return options


def _switch(name: str, value: str) -> str:
    if value in _TRUE or value in _FALSE:
        return str(value in _TRUE).lower()
    raise errors.BAD(cause=f'failed to parse {name} value: strconv.ParseBool: parsing "{value}": invalid syntax')


def default_bridge(settings: NetworkSettings, name: str, mtu: int, choose: Callable[[], Pool]) -> Network:
    """The network called bridge, from the daemon's flags."""
    number = new_id()
    if settings.bip:
        pool = ipam.parse_subnet(settings.bip)
        subnets = [ipam.resolve_subnet(str(pool), settings.bip.partition("/")[0], settings.fixed_cidr, {})]
    else:
        subnets = [ipam.resolve_subnet(str(choose()), settings.default_gateway, settings.fixed_cidr, {})]
    if settings.ipv6:
        pool6 = settings.fixed_cidr_v6 or str(ipam.unique_local(number))
        subnets.append(ipam.resolve_subnet(pool6, settings.default_gateway_v6, "", {}))
    options = {
        f"{_BRIDGE}default_bridge": "true", f"{_BRIDGE}enable_icc": str(settings.icc).lower(),
        f"{_BRIDGE}enable_ip_masquerade": str(settings.ip_masq).lower(),
        f"{_BRIDGE}host_binding_ipv4": settings.host_ip, f"{_BRIDGE}name": name,
        "com.docker.network.driver.mtu": str(mtu),
    }  # fmt: skip
    created = clock.rfc3339(clock.now())
    return Network(number, "bridge", "bridge", created, tuple(subnets), options, enable_ipv6=settings.ipv6)


def texts(values: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in (values or {}).items()}
