"""Control groups on all three layouts.

- v2: one tree. v1: a tree per controller (some mounted together). hybrid: v1 controllers beside an empty v2 tree, which
  holds processes but limits nothing, so hybrid is treated as v1 with one tree more to clean up.

A container's path ("/dockyard/<id>") is the same in every tree, as runc makes it from ``linux.cgroupsPath``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_KNOBS = {
    "memory": ("memory.memsw.limit_in_bytes", "memory.swappiness", "memory.oom_control", "memory.kmem.limit_in_bytes"),
    "cpu": ("cpu.cfs_quota_us", "cpu.rt_runtime_us", "cpu.shares"),
    "blkio": ("blkio.weight", "blkio.weight_device", "blkio.bfq.weight", "blkio.throttle.read_bps_device"),
    "pids": (),
    "cpuset": ("cpuset.cpus",),
}
REMOVE_LIMIT = 2.0
"""Seconds that a cgroup may stay busy after its last process was killed (a dying task leaves it a little later)."""
_REMOVE_PAUSE = 0.005


@dataclass(frozen=True, slots=True)
class Cgroups:
    """``layout``: v1, v2 or hybrid. ``roots`` maps a controller to its mount point; the v2 tree's key is ``""``.
    ``knobs``: files that exist only on some kernels (memory.memsw.limit_in_bytes, blkio.weight ...)."""

    layout: str
    roots: dict[str, str]
    controllers: frozenset[str]
    knobs: frozenset[str] = frozenset()

    @property
    def unified(self) -> bool:
        return self.layout == "v2"

    def trees(self) -> list[str]:
        return sorted(set(self.roots.values()))

    def path(self, controller: str, group: str) -> str | None:
        """The group's directory for a controller; None if the host has no such controller."""
        root = self.roots.get("" if self.unified else controller)
        return None if root is None else root + group


def read_mounts(mountinfo: str) -> dict[str, str]:
    """Controller (or name=systemd, or "" for v2) -> mount point, from the text of /proc/self/mountinfo. Pure."""
    roots: dict[str, str] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        mount = before.split(" ")[4]
        if kind == "cgroup2":
            roots.setdefault("", mount)
        elif kind == "cgroup":
            for option in options.split(","):
                if option not in ("rw", "ro", "xattr", "clone_children") and "release_agent" not in option:
                    roots.setdefault(option, mount)
    return roots


def probe() -> Cgroups:
    with open("/proc/self/mountinfo") as mountinfo:
        roots = read_mounts(mountinfo.read())
    v1 = frozenset(name for name in roots if name and not name.startswith("name="))
    if not v1 and "" in roots:
        with open(f"{roots['']}/cgroup.controllers") as controllers:
            return Cgroups("v2", {"": roots[""]}, frozenset(controllers.read().split()))
    layout = "hybrid" if "" in roots else "v1"
    knobs = frozenset(
        knob for controller, names in _KNOBS.items() for knob in names if _exists_below(roots.get(controller), knob)
    )
    return Cgroups(layout, roots, v1, knobs)


def _exists_below(root: str | None, knob: str) -> bool:
    """The root group lacks some files that every child has, so a child is looked at too where there is one."""
    if root is None:
        return False
    if os.path.exists(f"{root}/{knob}"):
        return True
    with os.scandir(root) as entries:
        return any(entry.is_dir() and os.path.exists(f"{entry.path}/{knob}") for entry in entries)


def pids(cgroups: Cgroups, group: str) -> list[int]:
    """All processes in the group and below, sorted; empty if there is no such group."""
    root = cgroups.path("pids" if "pids" in cgroups.roots else "freezer", group)
    found: set[int] = set()
    for directory in _walk(root) if root else ():
        with contextlib.suppress(OSError), open(f"{directory}/cgroup.procs") as procs:
            found.update(int(line) for line in procs)
    return sorted(found)


def _walk(root: str) -> Iterator[str]:
    """``root`` and all groups below it, parents first."""
    if os.path.isdir(root):
        yield root
        with contextlib.suppress(FileNotFoundError), os.scandir(root) as entries:
            children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for child in children:
            yield from _walk(child)


def kill(cgroups: Cgroups, group: str) -> None:
    """SIGKILL to all in the group, again while forks slip through; blocks until they are gone, at most
    ``REMOVE_LIMIT``. Those that had become our children are reaped."""
    deadline = time.monotonic() + REMOVE_LIMIT
    while (victims := pids(cgroups, group)) and time.monotonic() < deadline:
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                _kill_and_reap(pid, deadline)


def _kill_and_reap(pid: int, deadline: float) -> None:
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], max(0, deadline - time.monotonic()))
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG)
    finally:
        os.close(handle)


def remove(cgroups: Cgroups, group: str) -> None:
    """Removes the group in every tree. Blocks up to ``REMOVE_LIMIT`` while the kernel lets dying tasks go; raises
    OSError (EBUSY) if something still lives in it."""
    deadline = time.monotonic() + REMOVE_LIMIT
    for tree in cgroups.trees():
        for directory in reversed(list(_walk(tree + group))):
            _rmdir(directory, deadline)


def _rmdir(directory: str, deadline: float) -> None:
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError as busy:
            if busy.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(_REMOVE_PAUSE)
            continue
        return


def frozen(cgroups: Cgroups, group: str) -> bool:
    directory = cgroups.path("freezer", group)
    if directory is None:
        return False
    if cgroups.unified:
        return b"frozen 1" in read(f"{directory}/cgroup.events")
    return read(f"{directory}/freezer.state").strip() in (b"FROZEN", b"FREEZING")


def read(path: str) -> bytes:
    """A control file's content; empty if the group or the file is not there (any more)."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


def read_int(path: str) -> int:
    """0 if absent; "max" is told as 2**64 - 1, as Docker does."""
    text = read(path).strip()
    if text == b"max":
        return (1 << 64) - 1
    return int(text) if text.lstrip(b"-").isdigit() else 0


def read_pairs(path: str) -> dict[str, int]:
    """Flat keyed files (memory.stat, cpu.stat)."""
    pairs = (line.split() for line in read(path).decode().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def read_nested(path: str) -> Iterable[tuple[str, dict[str, int]]]:
    """Nested keyed files of v2 (io.stat): ("8:0", {"rbytes": ...})."""
    for line in read(path).decode().splitlines():
        key, *pairs = line.split()
        yield key, {name: int(value) for name, _, value in (pair.partition("=") for pair in pairs) if value.isdigit()}
