"""Processes and cgroups of containers from /proc and the cgroup file systems (v1, v2 and hybrid)."""

from __future__ import annotations

import os
from pathlib import Path

from dockyard.doctor.facts import Cgroup, Process

_UNLIMITED = 1 << 60
_NAMESPACES = ("net", "pid", "ipc", "uts", "mnt", "user", "cgroup")


def _status(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text(errors="replace")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def read_process(pid: int) -> Process:
    """Facts of a container's first process. Raises OSError when it is gone."""
    status = _status(pid)
    soft, hard = _nofile(pid)
    children = _children(pid)
    return Process(
        pid=pid,
        name=status.get("Name", ""),
        state=status.get("State", "")[:1],
        uid=int(status.get("Uid", "0").split()[1]),
        gid=int(status.get("Gid", "0").split()[1]),
        groups=[int(gid) for gid in status.get("Groups", "").split()],
        capabilities=int(status.get("CapEff", "0"), 16),
        signals_caught=int(status.get("SigCgt", "0"), 16),
        signals_ignored=int(status.get("SigIgn", "0"), 16),
        seccomp=int(status.get("Seccomp", "0")),
        no_new_privs=int(status.get("NoNewPrivs", "0")),
        threads=int(status.get("Threads", "1")),
        fds=_count(f"/proc/{pid}/fd"),
        fd_soft=soft,
        fd_hard=hard,
        children=len(children),
        zombies=sum(_state(child) == "Z" for child in children),
        namespaces={name: inode for name in _NAMESPACES if (inode := _inode(f"/proc/{pid}/ns/{name}"))},
    )


def _count(path: str) -> int:
    try:
        return len(os.listdir(path))
    except OSError:
        return 0


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _nofile(pid: int) -> tuple[int, int]:
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            soft, hard = line.split()[3:5]
            return tuple(_UNLIMITED if value == "unlimited" else int(value) for value in (soft, hard))  # type: ignore[return-value]
    return 0, 0


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def read_cgroup(pid: int) -> Cgroup:
    """Limits and counters of the cgroup of ``pid``. What a controller does not offer stays 0."""
    paths = _paths(pid)
    memory, pids, cpu = paths.get("memory", ""), paths.get("pids", ""), paths.get("cpu", "")
    stat = _table(f"{cpu}/cpu.stat")
    events = _table(f"{memory}/memory.events") or _table(f"{memory}/memory.oom_control")
    return Cgroup(
        memory_limit=_number(f"{memory}/memory.max", f"{memory}/memory.limit_in_bytes"),
        memory_usage=_number(f"{memory}/memory.current", f"{memory}/memory.usage_in_bytes"),
        oom_kills=events.get("oom_kill", 0),
        pids_limit=_number(f"{pids}/pids.max"),
        pids_current=_number(f"{pids}/pids.current"),
        pids_refused=_table(f"{pids}/pids.events").get("max", 0),
        pids_peak=_number(f"{pids}/pids.peak"),
        periods=stat.get("nr_periods", 0),
        throttled=stat.get("nr_throttled", 0),
    )


def _paths(pid: int) -> dict[str, str]:
    """Directory of each controller. On a hybrid host the v2 tree has no controllers and is looked at last."""
    found: dict[str, str] = {}
    unified = ""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            unified = next((f"{top}{path}" for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
                            if os.path.isdir(f"{top}{path}")), "")  # fmt: skip
            continue
        for controller in controllers.split(","):
            directory = f"/sys/fs/cgroup/{controllers}{path}"
            found[controller] = directory if os.path.isdir(directory) else f"/sys/fs/cgroup/{controller}{path}"
    for controller in ("memory", "pids", "cpu"):
        found.setdefault(controller, unified)
    return found


def _number(*paths: str) -> int:
    for path in paths:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        number = 0 if text == "max" else int(text) if text.isdigit() else 0
        return 0 if number >= _UNLIMITED else number
    return 0


def _table(path: str) -> dict[str, int]:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
