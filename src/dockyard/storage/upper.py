"""What an overlay's upper directory says: changes as ``docker diff`` lists them, and the layer it makes.

::

    upper has                        means in a layer tar
    char device 0:0 NAME             .wh.NAME
    dir with trusted.overlay.opaque  DIR/ and DIR/.wh..wh..opq
    anything else                    itself

Everything is opened relative to its directory's descriptor and never followed: the container may still be running.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

from dockyard.kernel import mount as kmount
from dockyard.kernel import safefs
from dockyard.model.idmap import UNCHANGED, IdMaps
from dockyard.oci import tar
from dockyard.oci.layers import OPAQUE_MARKER, OPAQUE_XATTR, OVERLAY_PREFIX, WHITEOUT_PREFIX
from dockyard.oci.tar import TarHeader, encode_header, padding

from .model import ChangeKind

READ_PIECE = 1 << 20
CAPABILITY = "security.capability"
MAX_DEPTH = 300  # deeper is refused; each level holds a descriptor

Entry = tuple[str, int, str, os.stat_result]  # (path, directory descriptor, name, lstat)


def walk(root: int, path: str = "", depth: int = 0) -> Iterator[Entry]:
    """Everything below an opened directory, parents first, sorted by name; the descriptor is good until the next
    step."""
    if depth > MAX_DEPTH:
        raise OSError(36, "directories are nested too deeply", path)
    for name in sorted(os.listdir(root)):
        try:
            info = os.stat(name, dir_fd=root, follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield f"{path}/{name}", root, name, info
        if stat.S_ISDIR(info.st_mode):
            with suppress(FileNotFoundError, NotADirectoryError):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                with safefs.opened(root, name, flags, resolve=safefs.RESOLVE_NO_XDEV) as child:
                    yield from walk(child, f"{path}/{name}", depth + 1)


def is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def changes(upper: int, lower: int) -> Iterator[tuple[ChangeKind, str]]:
    """Changes against the opened merged view of the lower layers, as ``docker diff`` gives them."""
    for path, _, _, info in walk(upper):
        try:
            safefs.stat_in_root(lower, path, follow=False)
            existed = True
        except (FileNotFoundError, NotADirectoryError):
            existed = False
        if not is_whiteout(info):
            yield ChangeKind.MODIFIED if existed else ChangeKind.ADDED, path
        elif existed:
            yield ChangeKind.DELETED, path


def diff_tar(
    upper: int, skip: frozenset[str] = frozenset(), latest_ns: int | None = None
) -> Generator[bytes, None, None]:
    """The upper directory as a layer tar (blocking generator). Sockets are left out, as every engine does, and the
    paths in ``skip``; times after ``latest_ns`` become that."""
    links: dict[tuple[int, int], bytes] = {}
    for path, folder, name, info in walk(upper):
        if path[1:] in skip:
            continue
        member = os.fsencode(path[1:])
        mtime = info.st_mtime_ns if latest_ns is None else min(info.st_mtime_ns, latest_ns)
        if is_whiteout(info):
            base, _, leaf = member.rpartition(b"/")
            hidden = (base + b"/" if base else b"") + WHITEOUT_PREFIX + leaf
            yield encode_header(TarHeader(hidden, mode=0, mtime_ns=mtime))
            continue
        yield from tar_member(member, folder, name, info, links, mtime)
        if stat.S_ISDIR(info.st_mode) and is_opaque(folder, name):
            yield encode_header(TarHeader(member + b"/" + OPAQUE_MARKER, mode=0, mtime_ns=mtime))
    yield tar.END_OF_ARCHIVE


def tree_tar(root: int, ids: IdMaps = UNCHANGED) -> Generator[bytes, None, None]:
    """A whole tree as a plain tar (``docker export``), owners as ``ids`` shows them inside."""
    links: dict[tuple[int, int], bytes] = {}
    for path, folder, name, info in walk(root):
        yield from tar_member(os.fsencode(path[1:]), folder, name, info, links, ids=ids)
    yield tar.END_OF_ARCHIVE


def tar_member(
    member: bytes, folder: int, name: str, info: os.stat_result, links: dict[tuple[int, int], bytes],
    mtime_ns: int | None = None, ids: IdMaps = UNCHANGED,
) -> Iterator[bytes]:  # fmt: skip
    mode, kind = stat.S_IMODE(info.st_mode), stat.S_IFMT(info.st_mode)
    moment = info.st_mtime_ns if mtime_ns is None else mtime_ns
    uid, gid = ids.inside(info.st_uid, info.st_gid)
    common = {"mode": mode, "uid": uid, "gid": gid, "mtime_ns": moment}
    if kind == stat.S_IFREG:
        first = links.get((info.st_dev, info.st_ino)) if info.st_nlink > 1 else None
        if first is not None:
            yield encode_header(TarHeader(member, tar.LINK, linkname=first, **common))  # type: ignore[arg-type]
            return
        links[info.st_dev, info.st_ino] = member
        yield from _file(member, folder, name, common, ids)
        return
    types = {
        stat.S_IFDIR: tar.DIR, stat.S_IFLNK: tar.SYMLINK, stat.S_IFCHR: tar.CHAR, stat.S_IFBLK: tar.BLOCK_DEV,
        stat.S_IFIFO: tar.FIFO,
    }  # fmt: skip
    if kind not in types:
        return
    target = os.fsencode(os.readlink(name, dir_fd=folder)) if kind == stat.S_IFLNK else b""
    yield encode_header(TarHeader(
        member + (b"/" if kind == stat.S_IFDIR else b""), types[kind], linkname=target,
        major=os.major(info.st_rdev), minor=os.minor(info.st_rdev), xattrs=read_xattrs(folder, name), **common,  # type: ignore[arg-type]
    ))  # fmt: skip


def _file(member: bytes, folder: int, name: str, common: dict[str, int], ids: IdMaps) -> Iterator[bytes]:
    """Exactly as many bytes as the header promises, though a running container may change the file meanwhile."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(fd).st_size
        xattrs = read_xattrs(folder, name)
        if CAPABILITY in xattrs and ids:
            xattrs[CAPABILITY] = capability_inside(xattrs[CAPABILITY], ids)
        yield encode_header(TarHeader(member, size=size, xattrs=xattrs, **common))  # type: ignore[arg-type]
        left = size
        while left and (piece := os.read(fd, min(left, READ_PIECE))):
            left -= len(piece)
            yield piece
        while left:
            zeros = bytes(min(left, READ_PIECE))
            left -= len(zeros)
            yield zeros
        yield padding(size)
    finally:
        os.close(fd)


def read_xattrs(folder: int, name: str) -> dict[str, bytes]:
    """xattrs that belong into a layer; overlayfs' own are its business, an escaped one is given back its name."""
    path = f"{safefs.fd_path(folder)}/{name}"
    found: dict[str, bytes] = {}
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return found
    for key in names:
        if key.startswith(OVERLAY_PREFIX) and not key.startswith(OVERLAY_PREFIX + "overlay."):
            continue
        if key.startswith(("user.", "trusted.", "security.capability", "system.posix_acl_")):
            plain = key.replace(OVERLAY_PREFIX + "overlay.", OVERLAY_PREFIX, 1)
            with suppress(OSError):
                found[plain] = os.getxattr(path, key, follow_symlinks=False)
    return found


_CAPABILITY_V2, _CAPABILITY_V3, _V2_SIZE, _V3_SIZE = 0x02000000, 0x03000000, 20, 24


def capability_inside(value: bytes, ids: IdMaps) -> bytes:
    """File capabilities as an image holds them. In a user namespace they carry its root's id of the host (version 3 of
    capabilities(7)); in its own view they are plain (version 2)."""
    magic, owner = int.from_bytes(value[:4], "little"), int.from_bytes(value[_V2_SIZE:], "little")
    if len(value) != _V3_SIZE or magic & 0xFF000000 != _CAPABILITY_V3 or owner != ids.root[0]:
        return value
    return (magic & 0x00FFFFFF | _CAPABILITY_V2).to_bytes(4, "little") + value[4:_V2_SIZE]


def capability_outside(value: bytes, ids: IdMaps) -> bytes:
    """The reverse: what an image holds becomes the namespace's own."""
    magic = int.from_bytes(value[:4], "little")
    if len(value) != _V2_SIZE or magic & 0xFF000000 != _CAPABILITY_V2:
        return value
    return (magic & 0x00FFFFFF | _CAPABILITY_V3).to_bytes(4, "little") + value[4:] + ids.root[0].to_bytes(4, "little")


def is_opaque(folder: int, name: str) -> bool:
    with suppress(OSError):
        return os.getxattr(f"{safefs.fd_path(folder)}/{name}", OPAQUE_XATTR, follow_symlinks=False) == b"y"
    return False


def disk_usage(root: int) -> tuple[int, int]:
    """(bytes, files) below an opened directory; a hard link counts once."""
    size = count = 0
    seen: set[tuple[int, int]] = set()
    for _, _, _, info in walk(root):
        count += 1
        if stat.S_ISREG(info.st_mode):
            if info.st_nlink > 1:
                if (info.st_dev, info.st_ino) in seen:
                    continue
                seen.add((info.st_dev, info.st_ino))
            size += info.st_size
    return size, count


def usage_of(path: Path) -> tuple[int, int]:
    with safefs.root_fd(str(path)) as root, safefs.opened(root, ".", os.O_RDONLY | os.O_DIRECTORY) as folder:
        return disk_usage(folder)


def list_changes(path: Path, lowers: list[str]) -> list[tuple[ChangeKind, str]]:
    """Changes of an upper directory; the lower layers are looked at through a detached overlay of their own
    (thread)."""
    keys = [("lowerdir+", lower) for lower in lowers]
    below = safefs.open_root(lowers[0]) if len(lowers) == 1 else kmount.fs_mount("overlay", keys)
    try:
        with safefs.root_fd(str(path)) as root, safefs.opened(root, ".", os.O_RDONLY | os.O_DIRECTORY) as folder:
            return list(changes(folder, below))
    finally:
        os.close(below)
