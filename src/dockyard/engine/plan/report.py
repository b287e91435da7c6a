"""What ``docker info`` says of the host's limits, and what it warns of (moby daemon/info_unix.go). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dockyard.kernel.cgroup import Cgroups

Json = dict[str, Any]

_WARNED = (
    ("MemoryLimit", "No memory limit support"), ("SwapLimit", "No swap limit support"), ("CpuCfsPeriod", "No cpu cfs period support"),
    ("CpuCfsQuota", "No cpu cfs quota support"), ("CPUShares", "No cpu shares support"), ("CPUSet", "No cpuset support"),
    ("PidsLimit", "No pids limit support"),
)  # fmt: skip


def limits(cgroups: Cgroups) -> Json:
    """Which limits this host's control groups can keep, in the words of ``info``."""
    have, knobs, v2 = cgroups.controllers, cgroups.knobs, cgroups.unified
    quota = "cpu" in have and (v2 or "cpu.cfs_quota_us" in knobs)
    return {
        "MemoryLimit": "memory" in have, "SwapLimit": "memory" in have and (v2 or "memory.memsw.limit_in_bytes" in knobs),
        "CpuCfsPeriod": quota, "CpuCfsQuota": quota, "CPUShares": "cpu" in have, "CPUSet": "cpuset" in have,
        "PidsLimit": "pids" in have, "OomKillDisable": not v2 and "memory.oom_control" in knobs,
    }  # fmt: skip


def warnings(able: Json, *, hosts: Iterable[str], tls: bool, ip_forward: bool) -> Sequence[str]:
    """Docker's sentences, each with what it means for the reader where Docker leaves that out."""
    told = [f"WARNING: {sentence}" for name, sentence in _WARNED if not able[name]]
    if not ip_forward:
        told.append("WARNING: IPv4 forwarding is disabled")
    if not tls:
        told += [
            f"WARNING: API is accessible on http://{host.removeprefix('tcp://')} without encryption: whoever reaches it has "
            "root on this host"
            for host in hosts
            if host.startswith("tcp://")
        ]
    return told
