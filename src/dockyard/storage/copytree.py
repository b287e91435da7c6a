"""Copy a directory's content by descriptor: volumes filled from an image, never outside of what was opened."""

from __future__ import annotations

import os
import stat

from dockyard.kernel import safefs
from dockyard.model.idmap import UNCHANGED, IdMaps
from dockyard.oci.layers import Node

from .extract import apply_metadata, make_node
from .upper import MAX_DEPTH, read_xattrs


def copy_tree(source: int, target: int, ids: IdMaps = UNCHANGED) -> None:
    """Everything below ``source`` into the empty ``target``, and owner, mode and times of the directory itself. Owners
    become those that ``ids`` has for them outside."""
    _copy(source, target, 0, ids)
    apply_metadata(target, _node_of(os.fstat(source), read_xattrs(source, "."), ids))


def _copy(source: int, target: int, depth: int, ids: IdMaps) -> None:
    if depth > MAX_DEPTH:
        raise OSError(36, "directories are nested too deeply")
    for name in sorted(os.listdir(source)):
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        node = _node_of(info, read_xattrs(source, name), ids)
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            with safefs.opened(source, name, flags) as below, safefs.opened(target, name, flags) as into:
                _copy(below, into, depth + 1, ids)
                apply_metadata(into, node)
        elif stat.S_ISREG(info.st_mode):
            with safefs.opened(source, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as file:
                node.size = os.fstat(file).st_size
                make_node(target, name, node, file)
        elif not stat.S_ISSOCK(info.st_mode):
            if stat.S_ISLNK(info.st_mode):
                node.target = os.fsencode(os.readlink(name, dir_fd=source))
            make_node(target, name, node, -1)


def _node_of(info: os.stat_result, xattrs: dict[str, bytes], ids: IdMaps) -> Node:
    return Node(
        info.st_mode, *ids.outside(info.st_uid, info.st_gid), info.st_mtime_ns, major=os.major(info.st_rdev),
        minor=os.minor(info.st_rdev), xattrs=xattrs or None,
    )  # fmt: skip
