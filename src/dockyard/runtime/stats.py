"""Resource counters: read from cgroup and /proc (``sample``), told in Docker's form (``shape``, pure).

A sample costs a dozen small reads (0.3 ms) and no call of the runtime.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dockyard.kernel import cgroup
from dockyard.kernel.cgroup import Cgroups
from dockyard.runtime.logline import format_stamp

NEVER = "0001-01-01T00:00:00Z"
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_NET_FIELDS = (("rx_bytes", 0), ("rx_packets", 1), ("rx_errors", 2), ("rx_dropped", 3),
               ("tx_bytes", 8), ("tx_packets", 9), ("tx_errors", 10), ("tx_dropped", 11))  # fmt: skip
_SYSTEM_FIELDS = 7
"""user nice system idle iowait irq softirq of /proc/stat, as Docker adds them up."""


@dataclass(frozen=True, slots=True)
class CpuSample:
    """Nanoseconds. ``percpu`` is empty on v2."""

    total: int = 0
    user: int = 0
    kernel: int = 0
    system: int = 0
    online: int = 0
    percpu: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """``block``: (major, minor, operation, bytes or None, operations or None)."""

    at: int
    cpu: CpuSample
    memory: dict[str, Any]
    pids: int
    pids_limit: int
    block: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    networks: dict[str, dict[str, int]] = field(default_factory=dict)


def sample(cgroups: Cgroups, group: str, pid: int, host_memory: int) -> Sample:
    """Counters of now. A container that has just ended gives zeros, not an error."""
    pids = cgroups.path("pids", group) or ""
    return Sample(
        at=time.time_ns(),
        cpu=_cpu_v2(cgroups, group) if cgroups.unified else _cpu_v1(cgroups, group),
        memory=_memory(cgroups, group, host_memory),
        pids=cgroup.read_int(f"{pids}/pids.current"),
        pids_limit=cgroup.read_int(f"{pids}/pids.max"),
        block=_block_v2(cgroups, group) if cgroups.unified else _block_v1(cgroups, group),
        networks=read_networks(cgroup.read(f"/proc/{pid}/net/dev").decode()),
    )


def _system() -> tuple[int, int]:
    first = cgroup.read("/proc/stat").partition(b"\n")[0].split()[1:]
    return sum(map(int, first[:_SYSTEM_FIELDS])) * _TICK, os.sysconf("SC_NPROCESSORS_ONLN")


def _cpu_v1(cgroups: Cgroups, group: str) -> CpuSample:
    account, limits = cgroups.path("cpuacct", group) or "", cgroups.path("cpu", group) or ""
    split, throttle = cgroup.read_pairs(f"{account}/cpuacct.stat"), cgroup.read_pairs(f"{limits}/cpu.stat")
    system, online = _system()
    return CpuSample(
        total=cgroup.read_int(f"{account}/cpuacct.usage"),
        user=split.get("user", 0) * _TICK,
        kernel=split.get("system", 0) * _TICK,
        system=system,
        online=online,
        percpu=tuple(map(int, cgroup.read(f"{account}/cpuacct.usage_percpu").split())),
        periods=throttle.get("nr_periods", 0),
        throttled_periods=throttle.get("nr_throttled", 0),
        throttled_time=throttle.get("throttled_time", 0),
    )


def _cpu_v2(cgroups: Cgroups, group: str) -> CpuSample:
    found = cgroup.read_pairs(f"{cgroups.path('cpu', group)}/cpu.stat")
    system, online = _system()
    return CpuSample(
        total=found.get("usage_usec", 0) * 1000,
        user=found.get("user_usec", 0) * 1000,
        kernel=found.get("system_usec", 0) * 1000,
        system=system,
        online=online,
        periods=found.get("nr_periods", 0),
        throttled_periods=found.get("nr_throttled", 0),
        throttled_time=found.get("throttled_usec", 0) * 1000,
    )


def _memory(cgroups: Cgroups, group: str, host_memory: int) -> dict[str, Any]:
    directory = cgroups.path("memory", group)
    if directory is None:
        return {}
    stats = cgroup.read_pairs(f"{directory}/memory.stat")
    if cgroups.unified:
        usage, limit = (cgroup.read_int(f"{directory}/memory.{name}") for name in ("current", "max"))
        return {"usage": usage, "stats": stats, "limit": min(limit or host_memory, host_memory)}
    names = ("usage_in_bytes", "max_usage_in_bytes", "failcnt", "limit_in_bytes")
    usage, most, fails, limit = (cgroup.read_int(f"{directory}/memory.{name}") for name in names)
    limit = min(limit or host_memory, host_memory)
    return {"usage": usage, "max_usage": most, "stats": stats, "failcnt": fails, "limit": limit}


def _block_v1(cgroups: Cgroups, group: str) -> dict[str, list[dict[str, Any]]]:
    directory = cgroups.path("blkio", group)
    out = {}
    for key in ("io_service_bytes", "io_serviced"):
        text = cgroup.read(f"{directory}/blkio.throttle.{key}_recursive").decode()
        out[f"{key}_recursive"] = [
            _block_row(words[0], words[1], int(words[2]))
            for words in map(str.split, text.splitlines())
            if len(words) == 3
        ]
    return out


def _block_v2(cgroups: Cgroups, group: str) -> dict[str, list[dict[str, Any]]]:
    rows = list(cgroup.read_nested(f"{cgroups.path('io', group)}/io.stat"))
    return {
        key: [_block_row(device, word, counts.get(name, 0)) for device, counts in rows for word, name in names]
        for key, names in (
            ("io_service_bytes_recursive", (("read", "rbytes"), ("write", "wbytes"))),
            ("io_serviced_recursive", (("read", "rios"), ("write", "wios"))),
        )
    }


def _block_row(device: str, operation: str, value: int) -> dict[str, Any]:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": operation, "value": value}


def read_networks(text: str) -> dict[str, dict[str, int]]:
    """Interfaces of /proc/<pid>/net/dev without lo. Pure."""
    return dict(_interfaces(text))


def _interfaces(text: str) -> Iterator[tuple[str, dict[str, int]]]:
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        values = numbers.split()
        if name.strip() != "lo" and len(values) > 11:
            yield name.strip(), {key: int(values[index]) for key, index in _NET_FIELDS}


# -- Docker's form -----------------------------------------------------------------------------------------------------


def shape(container_id: str, name: str, now: Sample | None, before: Sample | None = None) -> dict[str, Any]:
    """The answer of ``GET /containers/{id}/stats``; without a sample, that of a container that does not run."""
    out: dict[str, Any] = {
        "id": container_id,
        "name": name,
        "read": format_stamp(now.at) if now else NEVER,
        "preread": format_stamp(before.at) if before else NEVER,
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {},
        "blkio_stats": dict.fromkeys(_BLOCK_KEYS),
        "cpu_stats": _shape_cpu(now.cpu if now else None),
        "precpu_stats": _shape_cpu(before.cpu if before else None),
        "memory_stats": now.memory if now else {},
    }
    if now is not None:
        out["pids_stats"] = {"current": now.pids} | ({"limit": now.pids_limit} if now.pids_limit else {})
        out["blkio_stats"] |= {key: rows or None for key, rows in now.block.items()}
        if now.networks:
            out["networks"] = now.networks
    return out


_BLOCK_KEYS = (
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
    "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
)  # fmt: skip


def _shape_cpu(cpu: CpuSample | None) -> dict[str, Any]:
    used = cpu or CpuSample()
    usage: dict[str, Any] = {
        "total_usage": used.total,
        "usage_in_kernelmode": used.kernel,
        "usage_in_usermode": used.user,
    }
    if used.percpu:
        usage["percpu_usage"] = list(used.percpu)
    throttling = {
        "periods": used.periods,
        "throttled_periods": used.throttled_periods,
        "throttled_time": used.throttled_time,
    }
    out: dict[str, Any] = {"cpu_usage": usage, "throttling_data": throttling}
    if cpu is not None:
        out |= {"system_cpu_usage": used.system, "online_cpus": used.online}
    return out
