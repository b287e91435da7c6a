"""The machine: kernel, memory, disks, sysctls, cgroup layout, kernel log, resolver file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dockyard.doctor.facts import Disk, Host

_SYSCTLS = (
    "vm/max_map_count",
    "vm/overcommit_memory",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "fs/file-max",
    "fs/file-nr",
    "kernel/pid_max",
    "kernel/threads-max",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_count",
    "user/max_user_namespaces",
    "net/core/somaxconn",
)
_LOG_LINES = re.compile(
    rb"oom|Out of memory|table full|table overflow|I/O error|EXT4-fs error|Remounting filesystem|segfault"
    rb"|apparmor=.DENIED|avc:.*denied|unregister_netdevice|upperdir|d_type|hung_task|blocked for more",
    re.IGNORECASE,
)
_MAX_LOG = 200
_NO_SPACE_NEEDED = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "nsfs", "bpf", "tracefs", "debugfs",
                    "securityfs", "configfs", "pstore", "fusectl", "hugetlbfs", "autofs", "rpc_pipefs"}  # fmt: skip


def read_host(engine_root: str, data_root: str) -> Host:
    """Facts of the machine. ``engine_root`` is /proc/PID/root of the engine (its own view), or empty."""
    memory = _meminfo()
    release = os.uname().release
    resolv, dangling = _resolv(engine_root)
    return Host(
        release=release,
        machine=os.uname().machine,
        modules=os.path.isdir(f"/lib/modules/{release}") or not os.path.exists("/proc/modules"),
        memory_total=memory.get("MemTotal", 0),
        memory_available=memory.get("MemAvailable", 0),
        cgroup=_cgroup(),
        controllers=_controllers(),
        sysctls={name.replace("/", "."): value for name in _SYSCTLS if (value := _read(f"/proc/sys/{name}"))},
        disks=read_disks(engine_root, data_root),
        kernel_log=_kernel_log(),
        binfmt=_listing("/proc/sys/fs/binfmt_misc"),
        resolv_conf=resolv,
        resolv_link=dangling,
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _listing(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _meminfo() -> dict[str, int]:
    found = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdigit():
            found[name] = int(number[0]) * 1024
    return found


def _cgroup() -> str:
    mounts = _read("/proc/self/mounts")
    one, two = " cgroup " in mounts, " cgroup2 " in mounts
    return "hybrid" if one and two else "v2" if two else "v1" if one else "none"


def _controllers() -> list[str]:
    unified = _read("/sys/fs/cgroup/cgroup.controllers").split()
    legacy = [line.split()[0] for line in _read("/proc/cgroups").splitlines()[1:] if line.split()[3:4] == ["1"]]
    return sorted({*unified, *(legacy if _cgroup() != "v2" else [])})


def read_disks(root: str, data_root: str) -> list[Disk]:
    """File systems of the engine's mount namespace that hold data: its data root first."""
    source = f"{root[: -len('/root')]}/mountinfo" if root.endswith("/root") else "/proc/self/mountinfo"
    found: dict[int, Disk] = {}
    for line in _read(source).splitlines():
        fields, _, rest = line.partition(" - ")
        before, after = fields.split(), rest.split()
        if len(before) < 6 or len(after) < 3 or after[0] in _NO_SPACE_NEEDED or after[0] == "overlay":
            continue
        disk = _disk(root, before[4].replace("\\040", " "), after[0], _options(before[5], after[2]))
        if disk is None or (after[0] != "btrfs" and disk.device != _device(before[2])):
            continue  # covered by a later mount: what is seen at that path is another file system
        if disk.device not in found or _holds(disk.path, data_root, found[disk.device].path):
            found[disk.device] = disk
    if data_root:
        kind = _kind_of(root, data_root, found)
        disk = _disk(root, data_root, kind[0], kind[1])
        if disk is not None:
            return [disk, *(other for other in found.values() if other.device != disk.device)]
    return list(found.values())


def _options(mount: str, superblock: str) -> str:
    """Of the mount and of the file system, as /proc/mounts joins them: read-only if either is."""
    words = list(dict.fromkeys([*mount.split(","), *superblock.split(",")]))
    return ",".join(word for word in words if not (word == "rw" and "ro" in words))


def _device(text: str) -> int:
    major, _, minor = text.partition(":")
    return os.makedev(int(major), int(minor))


def _holds(path: str, data_root: str, than: str) -> bool:
    return data_root.startswith(path) and len(path) > len(than)


def _kind_of(root: str, data_root: str, found: dict[int, Disk]) -> tuple[str, str]:
    try:
        device = os.stat(root + data_root).st_dev
    except OSError:
        return "", ""
    return (found[device].kind, found[device].options) if device in found else ("", "")


def _disk(root: str, path: str, kind: str, options: str) -> Disk | None:
    try:
        numbers = os.statvfs(root + path)
        device = os.stat(root + path).st_dev
    except OSError:
        return None
    size = numbers.f_frsize
    return Disk(
        path, kind, options, numbers.f_blocks * size, numbers.f_bavail * size, numbers.f_files, numbers.f_favail, device
    )


def _kernel_log() -> list[str]:
    """Lines of the kernel log that any rule could want, newest last."""
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    found: list[str] = []
    try:
        while len(found) < 5 * _MAX_LOG:
            record = os.read(fd, 8192)
            if _LOG_LINES.search(record):
                found.append(record.split(b"\n")[0].decode("utf-8", "replace"))
    except OSError:
        pass  # EAGAIN: read to the end; EPIPE: overwritten while reading
    finally:
        os.close(fd)
    return found[-_MAX_LOG:]


def _resolv(root: str) -> tuple[str | None, str]:
    path = f"{root}/etc/resolv.conf"
    try:
        return Path(path).read_text(errors="replace"), ""
    except FileNotFoundError:
        return None, os.readlink(path) if os.path.islink(path) else ""
    except OSError:
        return "", ""  # there, and not for this caller to read: nothing is known of it
