"""The fallback where the kernel cannot mount EROFS from a file: the layer's tree written out, by descriptor.

The tree was decided before (dockyard.oci.layers), so that names here are single components below a directory that we
made ourselves: nothing is resolved, nothing followed. Order of metadata as the kernel demands it: chown (it clears
capabilities and setuid), xattrs, chmod, times; directories last, when their content is there.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from dockyard.kernel import safefs
from dockyard.oci.layers import LayerTree, Node

COPY_PIECE = 1 << 20


def extract_tree(tree: LayerTree, source: int, target: Path) -> None:
    """Write the tree into the empty directory ``target``; ``source`` is the tar's descriptor. Raises OSError."""
    links: dict[int, tuple[str, ...]] = {}
    with safefs.root_fd(str(target)) as root:
        pending: list[tuple[tuple[str, ...], Node]] = [((), tree.root)]
        folders: list[tuple[tuple[str, ...], Node]] = []
        while pending:
            path, folder = pending.pop()
            folders.append((path, folder))
            with safefs.opened(root, "/".join(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as here:
                for raw, node in (folder.children or {}).items():
                    name = os.fsdecode(raw)
                    if node.is_dir:
                        os.mkdir(name, 0o700, dir_fd=here)
                        pending.append(((*path, name), node))
                    elif id(node) in links:
                        _link(root, links[id(node)], here, name)
                    else:
                        make_node(here, name, node, source)
                        links[id(node)] = (*path, name)
        for path, folder in reversed(folders):
            with safefs.opened(root, "/".join(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as here:
                apply_metadata(here, folder)


def _link(root: int, existing: tuple[str, ...], here: int, name: str) -> None:
    with safefs.parent_of(root, "/".join(existing)) as (parent, leaf):
        os.link(leaf, name, src_dir_fd=parent, dst_dir_fd=here, follow_symlinks=False)


def make_node(here: int, name: str, node: Node, source: int) -> None:
    """One non-directory with all its metadata; ``source`` holds a regular file's data at ``node.offset``."""
    kind = stat.S_IFMT(node.mode)
    if kind == stat.S_IFREG:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=here)
        try:
            _copy(node, source, fd)
            apply_metadata(fd, node)
        finally:
            os.close(fd)
        return
    if kind == stat.S_IFLNK:
        os.symlink(node.target, os.fsencode(name), dir_fd=here)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        os.mknod(name, kind | 0o600, os.makedev(node.major, node.minor), dir_fd=here)
    else:
        os.mknod(name, stat.S_IFIFO | 0o600, dir_fd=here)
    os.chown(name, node.uid, node.gid, dir_fd=here, follow_symlinks=False)
    _set_xattrs(f"{safefs.fd_path(here)}/{name}", node, follow=False)
    if kind != stat.S_IFLNK:
        os.chmod(name, stat.S_IMODE(node.mode), dir_fd=here)
    os.utime(name, ns=(node.mtime_ns, node.mtime_ns), dir_fd=here, follow_symlinks=False)


def _copy(node: Node, source: int, fd: int) -> None:
    if node.segments is not None:
        os.truncate(fd, node.size)
    for offset, start, length in node.segments if node.segments is not None else ((0, node.offset, node.size),):
        os.lseek(fd, offset, os.SEEK_SET)
        while length:
            step = os.sendfile(fd, source, start, min(length, COPY_PIECE << 4))
            if step == 0:
                raise EOFError("the tar ended inside a member")
            start, length = start + step, length - step


def apply_metadata(fd: int, node: Node) -> None:
    """Owner, xattrs, mode and times of an opened file or directory, in that order."""
    os.fchown(fd, node.uid, node.gid)
    _set_xattrs(safefs.fd_path(fd), node, follow=True)  # a magic link
    os.fchmod(fd, stat.S_IMODE(node.mode))
    os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))


def _set_xattrs(path: str, node: Node, *, follow: bool) -> None:
    for name, value in (node.xattrs or {}).items():
        try:
            os.setxattr(path, name, value, follow_symlinks=follow)
        except OSError as error:
            # A file system without xattrs, or user.* on a link or device: the content matters more than the label.
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
