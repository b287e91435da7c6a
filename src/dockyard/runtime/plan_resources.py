"""Limits of a container: ``linux.resources`` and rlimits. Pure.

The OCI document speaks cgroup v1; runc and crun translate for v2. What this kernel lacks is left out with Docker's own
warning, because the runtime would refuse to start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dockyard.model.container import Resources, ThrottleDevice, Ulimit
from dockyard.runtime import errors
from dockyard.runtime.model import HostFacts
from dockyard.runtime.request import DeviceNode

MIB = 1 << 20
MIN_MEMORY = 6 * MIB
CPU_PERIOD = 100_000
UNLIMITED = (1 << 64) - 1
_NO = "Your kernel does not support {what} or the cgroup is not mounted. {lost}."
BlockNumbers = Mapping[str, tuple[int, int]]


def check_resources(wish: Resources, facts: HostFacts) -> None:
    """Raises InvalidParameter in Docker's words for what can be right on no host like this."""
    _check_memory(wish)
    _check_cpu(wish, facts)
    if wish.blkio_weight and not 10 <= wish.blkio_weight <= 1000:
        raise errors.INVALID(cause="Range of blkio weight is from 10 to 1000")


def _check_memory(wish: Resources) -> None:
    swappiness = wish.memory_swappiness
    checks = (
        (0 < wish.memory < MIN_MEMORY, "Minimum memory limit allowed is 6MB"),
        (
            0 < wish.memory_swap < wish.memory,
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            wish.memory == 0 and wish.memory_swap > 0,
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            swappiness is not None and not -1 <= swappiness <= 100,
            f"Invalid value: {swappiness}, valid memory swappiness range is 0-100",
        ),
        (0 < wish.memory_reservation < MIN_MEMORY, "Minimum memory reservation allowed is 6MB"),
        (
            0 < wish.memory < wish.memory_reservation,
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
    )
    _first(checks)


def _check_cpu(wish: Resources, facts: HostFacts) -> None:
    cpus = wish.nano_cpus / 1e9
    have = f"there are only {facts.cpus} CPUs available"
    wanted, missing = _cpu_list(wish.cpuset_cpus), None
    if wanted is not None:
        missing = wanted - set(range(facts.cpus))
    checks = (
        (
            wish.nano_cpus and wish.cpu_period,
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        (wish.nano_cpus and wish.cpu_quota, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        (
            wish.nano_cpus < 0 or cpus > facts.cpus,
            f"range of CPUs is from 0.01 to {facts.cpus}.00, as {have}",
        ),
        (
            wish.nano_cpus and not _has_cfs(facts),
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        ),
        (wish.cpu_shares < 0, f"invalid CPU shares ({wish.cpu_shares}): value must be a positive integer"),
        (
            wish.cpu_period and not 1000 <= wish.cpu_period <= 1_000_000,
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (0 < wish.cpu_quota < 1000, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (wanted is None, f"Invalid value {wish.cpuset_cpus} for cpuset cpus"),
        (_cpu_list(wish.cpuset_mems) is None, f"Invalid value {wish.cpuset_mems} for cpuset mems"),
        (
            missing,
            f"Requested CPUs are not available - requested {wish.cpuset_cpus}, available: 0-{facts.cpus - 1}",
        ),
    )
    _first(checks)


def _first(checks: Sequence[tuple[object, str]]) -> None:
    for wrong, sentence in checks:
        if wrong:
            raise errors.INVALID(cause=sentence)


def _cpu_list(text: str) -> set[int] | None:
    """``0-2,7``; None if it is not such a list."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, dash, high = part.partition("-")
        if not low.isdigit() or (dash and not high.isdigit()) or len(part) > 9 or int(high or low) > 8191:
            return None
        found.update(range(int(low), int(high or low) + 1))
    return found


def _has_cfs(facts: HostFacts) -> bool:
    return facts.cgroup.unified or "cpu.cfs_quota_us" in facts.cgroup.knobs


def plan_resources(
    wish: Resources, facts: HostFacts, blocks: BlockNumbers, *, update: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """``linux.resources`` without devices, and warnings. An update names only what changes."""
    check_resources(wish, facts)
    warnings: list[str] = []
    parts = (
        ("memory", _memory(wish, facts, warnings)),
        ("cpu", _cpu(wish, facts, warnings)),
        ("pids", _pids(wish, facts, warnings, update)),
        ("blockIO", _blkio(wish, facts, blocks, warnings)),
    )
    return {key: part for key, part in parts if part}, warnings


def _memory(wish: Resources, facts: HostFacts, warnings: list[str]) -> dict[str, Any]:
    knobs, unified = facts.cgroup.knobs, facts.cgroup.unified
    out: dict[str, Any] = {}
    if "memory" not in facts.cgroup.controllers:
        if wish.memory:
            warnings.append(_NO.format(what="memory limit capabilities", lost="Limitation discarded"))
        return out
    swap = wish.memory_swap or (2 * wish.memory if wish.memory > 0 else 0)
    if wish.memory:
        out["limit"] = wish.memory
    if swap and (unified or "memory.memsw.limit_in_bytes" in knobs):
        out["swap"] = swap
    elif swap and wish.memory_swap > 0:
        warnings.append(_NO.format(what="swap limit capabilities", lost="Memory limited without swap"))
    if wish.memory_reservation:
        out["reservation"] = wish.memory_reservation
    if wish.memory_swappiness is not None and wish.memory_swappiness != -1:
        if "memory.swappiness" in knobs:
            out["swappiness"] = wish.memory_swappiness
        else:
            warnings.append(_NO.format(what="memory swappiness capabilities", lost="Memory swappiness discarded"))
    if wish.oom_kill_disable:
        if "memory.oom_control" in knobs:
            out["disableOOMKiller"] = True
            if not wish.memory:
                warnings.append(
                    "OOM killer is disabled for the container, but no memory limit is set, this can result in the "
                    "system running out of resources."
                )
        else:
            warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    return out


def _cpu(wish: Resources, facts: HostFacts, warnings: list[str]) -> dict[str, Any]:
    period, quota = wish.cpu_period, wish.cpu_quota
    if wish.nano_cpus:
        period, quota = CPU_PERIOD, wish.nano_cpus * CPU_PERIOD // 1_000_000_000
    if (period or quota) and not _has_cfs(facts):
        warnings.append(_NO.format(what="CPU CFS scheduler", lost="CPU period/quota discarded"))
        period = quota = 0
    realtime = wish.cpu_realtime_period or wish.cpu_realtime_runtime
    if realtime and "cpu.rt_runtime_us" not in facts.cgroup.knobs:
        raise errors.INVALID(cause="Your kernel does not support CPU real-time scheduler")
    values = (
        ("shares", wish.cpu_shares),
        ("period", period),
        ("quota", quota),
        ("realtimePeriod", wish.cpu_realtime_period),
        ("realtimeRuntime", wish.cpu_realtime_runtime),
        ("cpus", wish.cpuset_cpus),
        ("mems", wish.cpuset_mems),
    )
    out: dict[str, Any] = {key: value for key, value in values if value}
    if ("cpus" in out or "mems" in out) and "cpuset" not in facts.cgroup.controllers:
        warnings.append(_NO.format(what="cpuset", lost="Cpuset discarded"))
        out.pop("cpus", None)
        out.pop("mems", None)
    return out


def _pids(wish: Resources, facts: HostFacts, warnings: list[str], update: bool) -> dict[str, Any]:
    limit = wish.pids_limit
    if limit is None or (limit <= 0 and not update):
        return {}
    if "pids" not in facts.cgroup.controllers:
        warnings.append(_NO.format(what="PIDs limit capabilities", lost="PIDs limit discarded"))
        return {}
    return {"limit": limit if limit > 0 else -1}


def _blkio(wish: Resources, facts: HostFacts, blocks: BlockNumbers, warnings: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    knobs, unified = facts.cgroup.knobs, facts.cgroup.unified
    if wish.blkio_weight and not (unified or "blkio.weight" in knobs):  # crun knows no other name of it
        warnings.append(_NO.format(what="Block I/O weight", lost="Weight discarded"))
    elif wish.blkio_weight:
        out["weight"] = wish.blkio_weight
    if wish.blkio_weight_device and not (unified or "blkio.weight_device" in knobs):
        warnings.append(_NO.format(what="Block I/O weight_device", lost="Weight-device discarded"))
    elif wish.blkio_weight_device:
        out["weightDevice"] = [
            {"major": major, "minor": minor, "weight": device.weight}
            for device in wish.blkio_weight_device
            for major, minor in [_block(device.path, blocks)]
        ]
    for key, rows in (
        ("throttleReadBpsDevice", wish.blkio_device_read_bps),
        ("throttleWriteBpsDevice", wish.blkio_device_write_bps),
        ("throttleReadIOPSDevice", wish.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", wish.blkio_device_write_iops),
    ):
        if rows:
            out[key] = [_throttle(row, blocks) for row in rows]
    return out


def _throttle(row: ThrottleDevice, blocks: BlockNumbers) -> dict[str, int]:
    major, minor = _block(row.path, blocks)
    return {"major": major, "minor": minor, "rate": row.rate}


def _block(path: str, blocks: BlockNumbers) -> tuple[int, int]:
    if path not in blocks:
        raise errors.INVALID(cause=f"{path}: no such block device")
    return blocks[path]


# -- devices -----------------------------------------------------------------------------------------------------------

DEFAULT_NODES = ("c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:1", "c 5:2", "c 136:*")
"""null, zero, full, random, urandom, tty, console, ptmx, pts. fuse (10:229) is denied by not being here."""


def plan_devices(devices: Sequence[DeviceNode], rules: Sequence[str], *, privileged: bool) -> list[dict[str, Any]]:
    """The device cgroup: deny all, allow the standard nodes and those asked for."""
    if privileged:
        return [{"allow": True, "access": "rwm"}]
    out: list[dict[str, Any]] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
    ]
    out += [_device_rule(f"{node} rwm") for node in DEFAULT_NODES]
    out += [
        {
            "allow": True,
            "type": device.kind,
            "major": device.major,
            "minor": device.minor,
            "access": device.permissions,
        }
        for device in devices
    ]
    return out + [_device_rule(rule) for rule in rules]


def _device_rule(text: str) -> dict[str, Any]:
    """``c 1:3 rwm``, ``a *:* rwm`` (--device-cgroup-rule)."""
    words = text.split(" ")
    numbers = words[1].split(":") if len(words) == 3 else []
    valid = (
        len(numbers) == 2
        and words[0] in ("a", "b", "c")
        and all(number == "*" or number.isdigit() for number in numbers)
        and 0 < len(words[2]) <= 3
        and set(words[2]) <= set("rwm")
    )
    if not valid:
        raise errors.INVALID(cause=f"invalid device cgroup rule format: '{text}'")
    out: dict[str, Any] = {"allow": True, "type": words[0], "access": words[2]}
    for key, number in zip(("major", "minor"), numbers, strict=True):
        if number != "*":  # absent means all; crun knows no -1
            out[key] = int(number)
    return out


# -- rlimits -----------------------------------------------------------------------------------------------------------

ULIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()  # noqa: SIM905
)


def plan_rlimits(
    wish: Sequence[Ulimit], defaults: Mapping[str, tuple[int, int]], facts: HostFacts
) -> tuple[list[dict[str, Any]], list[str]]:
    """Raising a hard limit needs CAP_SYS_RESOURCE; without it both runtimes fail, so the limit is clamped and told."""
    wanted = dict(defaults)
    for ulimit in wish:
        if ulimit.name not in ULIMITS:
            raise errors.INVALID(cause=f"invalid ulimit type: {ulimit.name}")
        if ulimit.hard != -1 and (ulimit.soft > ulimit.hard or ulimit.soft == -1):
            cause = f"ulimit soft limit must be less than or equal to hard limit: {ulimit.soft} > {ulimit.hard}"
            raise errors.INVALID(cause=cause)
        wanted[ulimit.name] = (ulimit.soft, ulimit.hard)
    out, warnings = [], []
    for name, limits in wanted.items():
        kind = f"RLIMIT_{name.upper()}"
        soft, hard = (UNLIMITED if limit < 0 else limit for limit in limits)
        ceiling = facts.rlimits.get(kind, (-1, -1))[1]
        if not facts.can_raise_limits and ceiling >= 0 and hard > ceiling:
            warnings.append(
                f"this host cannot raise ulimit {name} above {ceiling} (no CAP_SYS_RESOURCE): it was set to {ceiling}"
            )
            soft, hard = min(soft, ceiling), ceiling
        out.append({"type": kind, "soft": soft, "hard": hard})
    return out, warnings
