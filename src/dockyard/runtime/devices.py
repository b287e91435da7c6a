"""Device nodes of this host: what --device, privileged and blkio limits name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from dockyard.model import DeviceMapping
from dockyard.model.container import Resources
from dockyard.runtime import errors
from dockyard.runtime.request import DeviceNode

_SKIPPED = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"))
"""Below /dev: what every container has of its own."""
MAX_NODES = 8192


def resolve_devices(wishes: Sequence[DeviceMapping]) -> tuple[DeviceNode, ...]:
    """A directory stands for all nodes below it. Raises InvalidParameter as Docker does."""
    found: list[DeviceNode] = []
    for wish in wishes:
        permissions = wish.cgroup_permissions or "rwm"
        target = wish.path_in_container or wish.path_on_host
        host = os.path.realpath(wish.path_on_host)
        if os.path.isdir(host):
            found += [_moved(node, host, target, permissions) for node in _walk(host)]
        else:
            node = _node(host)
            if node is None:
                cause = f'error gathering device information while adding custom device "{wish.path_on_host}": '
                missing = not os.path.exists(host)
                raise errors.INVALID(cause=cause + ("no such file or directory" if missing else "not a device node"))
            found.append(_moved(node, host, target, permissions))
    return tuple(found)


def host_devices() -> tuple[DeviceNode, ...]:
    return tuple(_walk("/dev"))


def block_numbers(resources: Resources) -> dict[str, tuple[int, int]]:
    """Path -> (major, minor) for all devices that blkio limits name; what is no device is left out (the plan tells)."""
    throttles = (
        resources.blkio_device_read_bps, resources.blkio_device_write_bps,
        resources.blkio_device_read_iops, resources.blkio_device_write_iops,
    )  # fmt: skip
    paths = {row.path for rows in throttles for row in rows or ()}
    paths |= {row.path for row in resources.blkio_weight_device or ()}
    nodes = {path: _node(os.path.realpath(path)) for path in paths}
    return {path: (node.major, node.minor) for path, node in nodes.items() if node is not None and node.kind == "b"}


def _moved(node: DeviceNode, host: str, target: str, permissions: str) -> DeviceNode:
    path = target + node.path[len(host) :]
    return DeviceNode(path, node.kind, node.major, node.minor, node.mode, node.uid, node.gid, permissions)


def _walk(root: str) -> Iterator[DeviceNode]:
    count = 0
    for directory, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(files):
            node = None if name in _SKIPPED else _node(f"{directory}/{name}")
            if node is not None:
                count += 1
                if count > MAX_NODES:
                    return
                yield node


def _node(path: str) -> DeviceNode | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind:
        return None
    major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    return DeviceNode(path, kind, major, minor, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
