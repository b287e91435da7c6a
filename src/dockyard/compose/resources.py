"""Limits, devices and policies of a service as fields of Docker's HostConfig. Pure (docker/compose, pkg/compose/create.go)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dockyard.compose.canonical import boolean, duration, size, text

Json = dict[str, Any]
NANO = 1_000_000_000
_RESTART = {"none": "no", "any": "always"}


def restart_policy(service: Mapping[str, Any]) -> Json:
    """``restart: on-failure:3``, or ``deploy.restart_policy``, which wins."""
    name, _, attempts = str(service.get("restart") or "").partition(":")
    deploy = (service.get("deploy") or {}).get("restart_policy")
    if deploy is not None:
        name, attempts = str(deploy.get("condition") or ""), str(deploy.get("max_attempts") or 0)
    return {"Name": _RESTART.get(name, name), "MaximumRetryCount": int(attempts) if attempts.isdigit() else 0}


def resources(service: Mapping[str, Any]) -> Json:
    made: Json = {}
    for key, name in _INTEGERS.items():
        if service.get(key):
            made[name] = int(service[key])
    for key, name in _SIZES.items():
        if service.get(key):
            made[name] = size(service[key])
    if service.get("cpus"):
        made["NanoCpus"] = round(float(service["cpus"]) * NANO)
    if service.get("cpu_percent"):
        made["CpuPercent"] = int(float(service["cpu_percent"]) * 100)
    if service.get("oom_kill_disable"):
        made["OomKillDisable"] = True
    for key, name in (("cpuset", "CpusetCpus"), ("cgroup_parent", "CgroupParent")):
        if service.get(key):
            made[name] = str(service[key])
    if service.get("device_cgroup_rules"):
        made["DeviceCgroupRules"] = list(service["device_cgroup_rules"])
    made |= _blkio(service.get("blkio_config") or {})
    made |= _deployed((service.get("deploy") or {}).get("resources") or {})
    made |= _devices(service)
    limits = service.get("ulimits") or {}
    if limits:
        made["Ulimits"] = [_ulimit(name, limits[name]) for name in limits]
    return made


_INTEGERS = {
    "cpu_count": "CpuCount", "cpu_period": "CpuPeriod", "cpu_quota": "CpuQuota", "cpu_rt_period": "CpuRealtimePeriod",
    "cpu_rt_runtime": "CpuRealtimeRuntime", "cpu_shares": "CpuShares", "pids_limit": "PidsLimit",
    "mem_swappiness": "MemorySwappiness", "oom_score_adj": "OomScoreAdj",
}  # fmt: skip
_SIZES = {
    "mem_limit": "Memory",
    "memswap_limit": "MemorySwap",
    "mem_reservation": "MemoryReservation",
    "shm_size": "ShmSize",
}


def _deployed(deploy: Mapping[str, Any]) -> Json:
    limits, reserved = deploy.get("limits") or {}, deploy.get("reservations") or {}
    made: Json = {}
    if limits.get("memory"):
        made["Memory"] = size(limits["memory"])
    if limits.get("cpus"):
        made["NanoCpus"] = round(float(limits["cpus"]) * NANO)
    if int(limits.get("pids") or 0) > 0:
        made["PidsLimit"] = int(limits["pids"])
    if reserved.get("memory"):
        made["MemoryReservation"] = size(reserved["memory"])
    return made


def _devices(service: Mapping[str, Any]) -> Json:
    plain, cdi = [], []
    for device in service.get("devices") or []:
        if device["source"] == device.get("target") and "=" in device["source"]:
            cdi.append(device["source"])  # a qualified CDI name: vendor/class=name
        else:
            plain.append({
                "PathOnHost": device["source"], "PathInContainer": device.get("target") or device["source"],
                "CgroupPermissions": device.get("permissions") or "rwm",
            })  # fmt: skip
    requests: list[Json] = [{"Driver": "cdi", "DeviceIDs": cdi}] if cdi else []
    reserved = ((service.get("deploy") or {}).get("resources") or {}).get("reservations") or {}
    requests += [_request(row, []) for row in reserved.get("devices") or []]
    gpus = service.get("gpus") or []
    requests += [_request(row, ["gpu"]) for row in ([{"count": "all"}] if isinstance(gpus, str) else gpus)]
    made: Json = {"Devices": plain} if plain else {}
    if requests:
        made["DeviceRequests"] = requests
    return made


def _request(row: Mapping[str, Any], more: list[str]) -> Json:
    count = row.get("count", "all" if "device_ids" not in row else 0)
    return {
        "Driver": row.get("driver") or "", "Count": -1 if str(count).lower() == "all" else int(count),
        "DeviceIDs": list(row.get("device_ids") or []),
        "Capabilities": [[*(row.get("capabilities") or []), *more]],
        "Options": {key: text(value) for key, value in (row.get("options") or {}).items()},
    }  # fmt: skip


def _ulimit(name: str, limit: Any) -> Json:
    soft, hard = (limit.get("soft", 0), limit.get("hard", 0)) if isinstance(limit, Mapping) else (limit, limit)
    return {"Name": name, "Soft": int(soft), "Hard": int(hard)}


def _blkio(blkio: Mapping[str, Any]) -> Json:
    made: Json = {"BlkioWeight": int(blkio["weight"])} if blkio.get("weight") else {}
    if blkio.get("weight_device"):
        made["BlkioWeightDevice"] = [
            {"Path": row["path"], "Weight": int(row["weight"])} for row in blkio["weight_device"]
        ]
    for key, name in (
        ("device_read_bps", "BlkioDeviceReadBps"), ("device_read_iops", "BlkioDeviceReadIOps"),
        ("device_write_bps", "BlkioDeviceWriteBps"), ("device_write_iops", "BlkioDeviceWriteIOps"),
    ):  # fmt: skip
        if blkio.get(key):
            made[name] = [{"Path": row["path"], "Rate": size(row["rate"])} for row in blkio[key]]
    return made


def healthcheck(service: Mapping[str, Any], api: tuple[int, ...]) -> Json | None:
    """Docker's HealthConfig (times in nanoseconds); None when the image's own stands."""
    check = service.get("healthcheck")
    if not check:
        return None
    if boolean(check.get("disable", False)):
        return {"Test": ["NONE"]}
    made: Json = {"Test": list(check.get("test") or [])}
    times = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod"}
    if api >= (1, 44):
        times["start_interval"] = "StartInterval"
    for key, name in times.items():
        if check.get(key) is not None:
            made[name] = round(duration(check[key]) * NANO)
    if check.get("retries") is not None:
        made["Retries"] = int(check["retries"])
    return made
