"""Limits and devices: the resources part of HostConfig, which ``update`` sends alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dockyard.cli.flags import Options, UsageError
from dockyard.cli.request.values import csv_fields, nano_cpus, size, strict_mapping

Json = dict[str, Any]
_NUMBERS = {
    "blkio-weight": "BlkioWeight", "cpu-period": "CpuPeriod", "cpu-quota": "CpuQuota", "cpu-shares": "CpuShares",
    "cpu-rt-period": "CpuRealtimePeriod", "cpu-rt-runtime": "CpuRealtimeRuntime", "pids-limit": "PidsLimit",
}  # fmt: skip
_TEXTS = {"cpuset-cpus": "CpusetCpus", "cpuset-mems": "CpusetMems"}
_SIZES = {"memory": "Memory", "memory-reservation": "MemoryReservation", "memory-swap": "MemorySwap"}
_RATES = {
    "device-read-bps": "BlkioDeviceReadBps", "device-write-bps": "BlkioDeviceWriteBps",
    "device-read-iops": "BlkioDeviceReadIOps", "device-write-iops": "BlkioDeviceWriteIOps",
}  # fmt: skip
_ULIMITS = frozenset({
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
    "sigpending", "stack",
})  # fmt: skip
_PERMISSIONS = frozenset("rwm")


def limits(options: Options) -> Json:
    """What ``update`` can change too; only what was given."""
    found: Json = {key: options.number(flag) for flag, key in _NUMBERS.items() if options.given(flag)}
    found |= {key: options.text(flag) for flag, key in _TEXTS.items() if options.given(flag)}
    found |= {key: size(options.text(flag), f"--{flag}") for flag, key in _SIZES.items() if options.given(flag)}
    if options.given("cpus"):
        found["NanoCpus"] = nano_cpus(options.text("cpus"))
    return found


def restart_policy(word: str) -> Json:
    """``on-failure:5`` as a document."""
    name, colon, count = word.partition(":")
    if not word:
        return {"Name": "no"}
    if colon and not count.isdigit():
        told = "invalid restart policy format: maximum retry count must be an integer"
        raise UsageError(told if name else "invalid restart policy format: no policy provided before colon")
    return {"Name": name} | ({"MaximumRetryCount": int(count)} if colon else {})


def resources(options: Options) -> Json:
    """All of the resources part for ``create``."""
    found = limits(options)
    weights = [_device_number(word, "--blkio-weight-device", bytes_too=False) for word in options.all("blkio-weight-device")]
    if weights:
        found["BlkioWeightDevice"] = [{"Path": path, "Weight": number} for path, number in weights]
    for flag, key in _RATES.items():
        pairs = [_device_number(word, f"--{flag}", bytes_too=flag.endswith("bps")) for word in options.all(flag)]
        if pairs:
            found[key] = [{"Path": path, "Rate": number} for path, number in pairs]
    if options.on("oom-kill-disable"):
        found["OomKillDisable"] = True
    found["MemorySwappiness"] = _swappiness(options)
    if ulimits := _ulimits(options.all("ulimit")):
        found["Ulimits"] = ulimits
    devices = [word for word in options.all("device") if not _is_cdi(word)]
    if devices:
        found["Devices"] = [_device(word) for word in devices]
    if rules := options.all("device-cgroup-rule"):
        found["DeviceCgroupRules"] = rules
    requests = [_gpus(options.text("gpus"))] if options.given("gpus") else []
    if cdi := [word for word in options.all("device") if _is_cdi(word)]:
        requests.append({"Driver": "cdi", "DeviceIDs": cdi})
    if requests:
        found["DeviceRequests"] = requests
    return found


def _swappiness(options: Options) -> int:
    number = options.number("memory-swappiness", -1)
    if number != -1 and not 0 <= number <= 100:
        raise UsageError(f"invalid value: {number}. Valid memory swappiness range is 0-100")
    return number


def _device_number(word: str, flag: str, *, bytes_too: bool) -> tuple[str, int]:
    path, colon, number = word.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise UsageError(f'invalid argument "{word}" for "{flag}" flag: bad format for device path: {word}')
    if bytes_too:
        return path, size(number, flag)
    if not number.isdigit():
        raise UsageError(f'invalid argument "{word}" for "{flag}" flag: invalid rate for device: {word}')
    return path, int(number)


def _ulimits(words: Iterable[str]) -> list[Json]:
    found: dict[str, Json] = {}
    for word in words:
        name, equals, values = word.partition("=")
        soft, colon, hard = values.partition(":")
        try:
            low, high = int(soft), int(hard if colon else soft)
        except ValueError:
            raise UsageError(f'invalid argument "{word}" for "--ulimit" flag: invalid ulimit argument: {word}') from None
        if not equals or name not in _ULIMITS:
            raise UsageError(f'invalid argument "{word}" for "--ulimit" flag: invalid ulimit type: {name}')
        if high != -1 and (low > high or low == -1):
            told = f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}"
            raise UsageError(f'invalid argument "{word}" for "--ulimit" flag: {told}')
        found[name] = {"Name": name, "Soft": low, "Hard": high}
    return [found[name] for name in sorted(found)]


def _device(word: str) -> Json:
    """``HOST[:CONTAINER][:rwm]``."""
    parts = word.split(":")
    host, inside, permissions = parts[0], parts[0], "rwm"
    if len(parts) > 3 or not host:
        raise UsageError(f"invalid device specification: {word}")
    if len(parts) == 3:
        inside, permissions = parts[1], parts[2]
    elif len(parts) == 2 and _are_permissions(parts[1]):
        permissions = parts[1]
    elif len(parts) == 2:
        inside = parts[1]
    if not _are_permissions(permissions):
        raise UsageError(f"invalid device specification: {word}")
    return {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": permissions}


def _are_permissions(text: str) -> bool:
    return 0 < len(text) <= 3 and set(text) <= _PERMISSIONS and len(set(text)) == len(text)


def _is_cdi(word: str) -> bool:
    """``vendor.com/class=name``."""
    return not word.startswith("/") and "=" in word and "/" in word.partition("=")[0]


def _gpus(word: str) -> Json:
    """``all``, a number, or ``device=...,capabilities=...``."""
    made: Json = {}
    capabilities = ["gpu"]
    if word == "all" or word.isdigit():
        return {"Count": -1 if word == "all" else int(word), "Capabilities": [capabilities]}
    for field in csv_fields(word):
        key, equals, value = field.partition("=")
        match key if equals else "count":
            case "driver":
                made["Driver"] = value
            case "count":
                text = value or field
                if text != "all" and not text.isdigit():
                    raise UsageError(f'invalid argument "{word}" for "--gpus" flag: invalid count ({text})')
                made["Count"] = -1 if text == "all" else int(text)
            case "device":
                made["DeviceIDs"] = value.split(",")
            case "capabilities":
                capabilities = [*value.split(","), "gpu"]
            case "options":
                made["Options"] = strict_mapping(csv_fields(value), "--gpus")
            case _:
                raise UsageError(f'invalid argument "{word}" for "--gpus" flag: unexpected key \'{key}\'')
    if "Count" not in made and "DeviceIDs" not in made:
        made["Count"] = 1
    return made | {"Capabilities": [capabilities]}
