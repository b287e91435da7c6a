"""The mount table of a container, in the order in which it is mounted. Pure."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Sequence
from typing import Any

from dockyard.model import Mount
from dockyard.runtime import errors
from dockyard.runtime.model import HostFacts
from dockyard.runtime.request import HOST, PRIVATE, ResolvedMount, SpecRequest

INIT_PATH = "/sbin/docker-init"
_PROPAGATIONS = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_FLAGS = frozenset(("nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "nodiratime", "relatime"))
_IGNORED = frozenset(("", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated", "rbind", "copy"))
_TMPFS_OPTIONS = ("noexec", "nosuid", "nodev")
_TMPFS_KEYS = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"))
_TMPFS_WORDS = frozenset((
    "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "remount", "mand",
    "nomand", "atime", "noatime", "diratime", "nodiratime", "bind", "rbind", "unbindable", "runbindable", "private", "rprivate",
    "shared", "rshared", "slave", "rslave", "relatime", "norelatime", "strictatime", "nostrictatime",
))  # fmt: skip
"""What moby's mount.MergeTmpfsOptions takes."""
RRO_KERNEL = (5, 12)
"""mount_setattr(2), by which a whole tree is made read-only."""


def plan_mounts(request: SpecRequest, facts: HostFacts, *, writable_cgroups: bool) -> tuple[list[dict[str, Any]], str]:
    """The mounts and the root's propagation ("" = the runtime's default, private)."""
    own = _defaults(request, facts, writable_cgroups)
    wished = [_bind(mount, facts) if mount.kind == "bind" else _tmpfs(mount) for mount in request.mounts]
    wished += [_tmpfs(ResolvedMount("", path, tuple(text.split(",")))) for path, text in _tmpfs_wishes(request)]
    wished += [_mount_tmpfs(mount) for mount in request.host.mounts or () if mount.type == "tmpfs"]
    if request.init:
        wished.append(_bind(ResolvedMount(facts.init_path, INIT_PATH, ("ro",)), facts))
    wished.sort(key=lambda mount: mount["destination"].rstrip("/").count("/"))
    taken = {mount["destination"] for mount in wished}
    table = [mount for mount in own if not _replaced(mount["destination"], taken)] + wished
    return table, _root_propagation(wished)


def _replaced(destination: str, taken: set[str]) -> bool:
    """A wish for /dev replaces what we would put below it too, as in Docker."""
    return destination in taken or ("/dev" in taken and destination.startswith("/dev/"))


def _root_propagation(mounts: Sequence[dict[str, Any]]) -> str:
    """``rslave`` as Docker sends it, though the schema lists ``slave`` only: without the recursion the host's shared
    submounts would stay peers of the container's."""
    used = {option.removeprefix("r") for mount in mounts for option in mount["options"] if option in _PROPAGATIONS}
    return "shared" if "shared" in used else "rslave" if "slave" in used else ""


def _defaults(request: SpecRequest, facts: HostFacts, writable_cgroups: bool) -> list[dict[str, Any]]:
    read = [] if request.host.privileged else ["ro"]
    cgroup_read = [] if request.host.privileged or writable_cgroups else ["ro"]
    safe = ["nosuid", "noexec", "nodev"]
    table = [
        _mount("/proc", "proc", "proc", safe),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/sys", "sysfs", "sysfs", [*safe, *read]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*cgroup_read, *safe]),
    ]
    # also for --ipc host, where it shows the host's queues whether or not the host has it mounted
    if not (request.ids and request.namespaces.ipc == HOST):  # who does not own the IPC namespace may not mount it
        table.append(_mount("/dev/mqueue", "mqueue", "mqueue", safe))
    if request.shm_source:
        table.append(_mount("/dev/shm", "bind", request.shm_source, [*safe, "rbind", "rprivate"]))
    elif request.namespaces.ipc == PRIVATE and request.host.ipc_mode != "none":
        size = request.host.shm_size or request.shm_size
        table.append(_mount("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", f"size={size}"]))
    if request.ids and request.namespaces.net == HOST:
        # sysfs belongs to the network namespace; a user namespace that does not own it may only bind it
        table[3] = _mount("/sys", "bind", "/sys", ["rbind", *safe, *read])
    return table


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _bind(mount: ResolvedMount, facts: HostFacts) -> dict[str, Any]:
    words = set(mount.options)
    unknown = words - _PROPAGATIONS - _FLAGS - _IGNORED - {"ro", "bind", "ro-non-recursive", "ro-force-recursive"}
    if unknown:
        raise errors.INVALID(cause=f"invalid mode: {','.join(mount.options)}")
    options = ["bind" if "bind" in words else "rbind"]
    options += [option for option in mount.options if option in _FLAGS]
    propagation = next((option for option in mount.options if option in _PROPAGATIONS), "rprivate")
    if words & {"ro", "ro-non-recursive", "ro-force-recursive"}:
        options += _read_only(words, propagation, facts)
    return _mount(posixpath.normpath(mount.target), "bind", mount.source, [*options, propagation])


def _read_only(words: set[str], propagation: str, facts: HostFacts) -> list[str]:
    """Since Docker 25 a read-only bind is so in the whole tree, where kernel and runtime can do it."""
    able = facts.kernel >= RRO_KERNEL and "rro" in facts.runtime.features
    if "ro-force-recursive" in words:
        if not able:
            cause = "recursive read-only mounts are not supported by this kernel and runtime"
            raise errors.INVALID(cause=cause)
        if propagation not in ("private", "rprivate"):
            raise errors.INVALID(cause="mount with ReadOnlyForceRecursive must have propagation rprivate")
    recursive = able and "ro-non-recursive" not in words and "bind" not in words and propagation == "rprivate"
    return ["ro", "rro"] if recursive else ["ro"]


def _tmpfs_wishes(request: SpecRequest) -> list[tuple[str, str]]:
    return sorted((request.host.tmpfs or {}).items())


def _tmpfs(mount: ResolvedMount) -> dict[str, Any]:
    """``--tmpfs /run:rw,size=64k``: the user's words override the safe defaults of the same kind."""
    words = [word for word in mount.options if word]
    for word in words:
        key, equals, value = word.partition("=")
        if (key not in _TMPFS_KEYS or not value) if equals else (word not in _TMPFS_WORDS):
            raise errors.INVALID(cause=f"invalid tmpfs option {json.dumps([key, value] if equals else [key]).replace(',', '')}")
    options = [word for word in _TMPFS_OPTIONS if word.removeprefix("no") not in words and word not in words]
    return _mount(_absolute(mount.target), "tmpfs", "tmpfs", [*options, *words])


def _mount_tmpfs(mount: Mount) -> dict[str, Any]:
    """``--mount type=tmpfs``: size in bytes, mode as a number, further options as [key] or [key, value]."""
    wish = mount.tmpfs_options or {}
    options = ["ro"] if mount.read_only else []
    options += [f"mode={wish['Mode']:o}"] if wish.get("Mode") else []
    options += [f"size={wish['SizeBytes']}"] if wish.get("SizeBytes") else []
    options += ["=".join(pair) for pair in wish.get("Options") or ()]
    return _tmpfs(ResolvedMount("", mount.target, tuple(options)))


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise errors.INVALID(cause=f"invalid mount path: '{path}' mount path must be absolute")
    return posixpath.normpath(path)
