"""``--network`` and the flags of its first endpoint (docker/cli opts/network.go, container/opts.go)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dockyard.cli.flags import Options, UsageError
from dockyard.cli.request.values import csv_fields, mapping

Json = dict[str, Any]
_MODES = ("default", "bridge", "host", "none")


def networking(options: Options) -> tuple[str, Json]:
    """(network mode, endpoints by network name)."""
    wanted = [_advanced(word) if "=" in word else (word, {}) for word in options.all("network")] or [("default", {})]
    own = {user_defined(name) for name, _ in wanted}
    if len(own) > 1:
        raise UsageError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    endpoints: Json = {}
    for number, (name, endpoint) in enumerate(wanted):
        if name in endpoints:
            raise UsageError(f'network "{name}" is specified multiple times')
        if not number:
            _first(endpoint, name, options)
        endpoints[name] = endpoint
    if len(wanted) == 1 and options.given("network") and not endpoints[wanted[0][0]]:
        return wanted[0][0], {}  # docker leaves an endpoint without settings to the engine
    return wanted[0][0], endpoints


def user_defined(name: str) -> bool:
    return name not in _MODES and not name.startswith("container:")


def _first(endpoint: Json, name: str, options: Options) -> None:
    """The endpoint flags, which are of the first network; said twice they conflict."""
    conflict = "conflicting options: cannot specify both --{} and per-network {}"
    if aliases := options.all("network-alias"):
        if "Aliases" in endpoint:
            raise UsageError(conflict.format("network-alias", "alias"))
        endpoint["Aliases"] = aliases
    if (links := options.all("link")) and user_defined(name):
        endpoint["Links"] = links
    addresses = endpoint.get("IPAMConfig", {})
    for flag, key in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if value := options.text(flag):
            if key in addresses:
                raise UsageError(conflict.format(flag, "IP address"))
            addresses[key] = value
    if local := options.all("link-local-ip"):
        addresses["LinkLocalIPs"] = local
    if addresses:
        endpoint["IPAMConfig"] = addresses
    if mac := options.text("mac-address"):
        if "MacAddress" in endpoint:
            raise UsageError(conflict.format("mac-address", "MAC address"))
        endpoint["MacAddress"] = mac


def _advanced(word: str) -> tuple[str, Json]:
    """``name=NET,alias=A,ip=...``."""
    name = ""
    made: Json = {}
    addresses: Json = {}
    for field in csv_fields(word):
        key, equals, value = field.partition("=")
        match key.strip().lower() if equals else "":
            case "name":
                name = value
            case "alias":
                made.setdefault("Aliases", []).append(value)
            case "ip":
                addresses["IPv4Address"] = value
            case "ip6":
                addresses["IPv6Address"] = value
            case "link-local-ip":
                addresses.setdefault("LinkLocalIPs", []).append(value)
            case "mac-address":
                made["MacAddress"] = value
            case "driver-opt":
                made["DriverOpts"] = made.get("DriverOpts", {}) | mapping([value])
            case "gw-priority":
                made["GwPriority"] = _number(value, word)
            case _:
                raise _wrong(word, f"invalid field {field}")
    if not name:
        raise _wrong(word, "network name/id is not specified")
    return name, made | ({"IPAMConfig": addresses} if addresses else {})


def _number(value: str, word: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise _wrong(word, f"invalid gw-priority: {value}") from None


def _wrong(word: str, told: str) -> UsageError:
    return UsageError(f'invalid argument "{word}" for "--network" flag: {told}')


def extra_hosts(words: Iterable[str]) -> list[str]:
    """``--add-host``: ``name:ip`` or ``name=ip``, brackets of IPv6 addresses dropped."""
    found = []
    for word in words:
        mark = next((letter for letter in word if letter in "=:"), "")
        name, _, address = word.partition(mark) if mark else (word, "", "")
        if not name or not address:
            raise UsageError(f'invalid argument "{word}" for "--add-host" flag: bad format for add-host: "{word}"')
        if address.startswith("[") and address.endswith("]"):
            address = address[1:-1]
        found.append(f"{name}:{address}")
    return found
