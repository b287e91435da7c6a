"""Trees in and out of a root as plain tars (``docker cp``): by descriptor, following nothing out of the root.

``pack`` is a blocking generator, ``unpack`` a blocking consumer; both belong in a thread. Names inside an archive are
taken relative to the directory and resolved in the root, so that a link on the way stays inside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass

from dockyard.kernel import safefs
from dockyard.model.idmap import UNCHANGED, IdMaps
from dockyard.oci import tar
from dockyard.oci.tar import StreamReader, TarHeader, encode_header

from .compress import Plain, Reader
from .errors import CANNOT_UNPACK
from .upper import CAPABILITY, capability_outside, tar_member, walk

Owner = tuple[int, int]
MAX_MEMBERS = 5_000_000
PIECE = 1 << 20


def pack(root: int, path: str, name: str, *, follow: bool, ids: IdMaps = UNCHANGED) -> Generator[bytes, None, None]:
    """What is at ``path``; entries begin with ``name``. A link at the end is packed itself unless ``follow``. Owners are
    told as ``ids`` shows them inside."""
    links: dict[tuple[int, int], bytes] = {}
    info = safefs.stat_in_root(root, path, follow=follow)
    if stat.S_ISDIR(info.st_mode):
        with safefs.opened(root, path, os.O_RDONLY | os.O_DIRECTORY) as folder:
            prefix = os.fsencode(name)
            mtime, mode = info.st_mtime_ns, stat.S_IMODE(info.st_mode)
            uid, gid = ids.inside(info.st_uid, info.st_gid)
            yield encode_header(TarHeader(prefix + b"/", tar.DIR, mode, uid, gid, mtime_ns=mtime))
            for below, parent, leaf, entry in walk(folder):
                yield from tar_member(prefix + os.fsencode(below), parent, leaf, entry, links, ids=ids)
    else:
        target = safefs.real_path(root, path) if follow else path
        with safefs.parent_of(root, target) as (parent, leaf):
            yield from tar_member(os.fsencode(name), parent, leaf, info, links, ids=ids)
    yield tar.END_OF_ARCHIVE


def unpack(
    source: Reader, root: int, base: str, *, keep_kind: bool, owner: Owner | None, ids: IdMaps = UNCHANGED, whole: bool = False
) -> None:
    """Unpacks (compressed or not) below the directory ``base``. ``keep_kind``: a directory never replaces a file, nor the
    reverse. ``owner``: (uid, gid) of all that is made; None: what the archive says; both mean ids inside of ``ids``.
    ``whole``: the archive is of the directory itself, whose mode and owner it has too."""
    owners = _Owners(ids, owner)
    plain = Plain(source)
    archive = StreamReader(plain.read, MAX_MEMBERS)
    times: list[tuple[str, int]] = []
    while (header := archive.next()) is not None:
        name = _clean(header.name)
        if name:
            _place(root, f"{base.rstrip('/')}/{name}", base, header, archive, owners, keep_kind=keep_kind)
            if header.type == tar.DIR:
                times.append((f"{base.rstrip('/')}/{name}", header.mtime_ns))
        elif whole and header.type == tar.DIR:
            with safefs.parent_of(root, base) as (parent, leaf):
                _metadata(parent, leaf, header, owners)
    while plain.read(PIECE):
        pass  # What follows the end marker is read, or the sender would see a broken pipe.
    for path, moment in reversed(times):
        with suppress(FileNotFoundError), safefs.opened(root, path, os.O_RDONLY | os.O_DIRECTORY) as fd:
            os.utime(fd, ns=(moment, moment))


def _clean(name: bytes) -> str:
    parts = [part for part in os.fsdecode(name).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise CANNOT_UNPACK(name=os.fsdecode(name), cause="a name in the archive leads out of its directory")
    return "/".join(parts)


def _place(
    root: int, path: str, base: str, header: TarHeader, archive: StreamReader, owners: _Owners, *, keep_kind: bool
) -> None:
    with safefs.parent_of(root, path, create=True, owner=owners.ids.root) as (parent, leaf):
        is_dir = header.type == tar.DIR
        try:
            found = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if found is not None:
            there_dir = stat.S_ISDIR(found.st_mode)
            if keep_kind and there_dir != is_dir:
                kinds = ("directory", "non-directory") if there_dir else ("non-directory", "directory")
                raise CANNOT_UNPACK(name=path, cause=f"cannot overwrite {kinds[0]} with {kinds[1]}")
            if not (there_dir and is_dir):
                safefs.remove_tree(parent, leaf)
                found = None
        _make(root, base, parent, leaf, header, archive, exists=found is not None)
        _metadata(parent, leaf, header, owners)


def _make(
    root: int, base: str, parent: int, leaf: str, header: TarHeader, archive: StreamReader, *, exists: bool
) -> None:
    if header.type == tar.DIR:
        if not exists:
            os.mkdir(leaf, 0o700, dir_fd=parent)
    elif header.type == tar.SYMLINK:
        os.symlink(header.linkname, os.fsencode(leaf), dir_fd=parent)
    elif header.type == tar.LINK:
        with safefs.parent_of(root, f"{base.rstrip('/')}/{_clean(header.linkname)}") as (folder, name):
            os.link(name, leaf, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
    elif header.type in (tar.CHAR, tar.BLOCK_DEV):
        kind = stat.S_IFCHR if header.type == tar.CHAR else stat.S_IFBLK
        os.mknod(leaf, kind | 0o600, os.makedev(header.major, header.minor), dir_fd=parent)
    elif header.type == tar.FIFO:
        os.mkfifo(leaf, 0o600, dir_fd=parent)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(leaf, flags, 0o600, dir_fd=parent), "wb", buffering=0) as out:
            while piece := archive.read(PIECE):
                out.write(piece)


@dataclass(frozen=True, slots=True)
class _Owners:
    """Whom the files that are made belong to."""

    ids: IdMaps
    wish: Owner | None

    def of(self, header: TarHeader) -> Owner:
        uid, gid = self.wish or (header.uid, header.gid)
        try:
            return self.ids.outside(uid, gid)
        except ValueError:
            cause = f"owner {uid}:{gid} is not among the ids of the container's user namespace"
            raise CANNOT_UNPACK(name=os.fsdecode(header.name), cause=cause) from None


def _metadata(parent: int, leaf: str, header: TarHeader, owners: _Owners) -> None:
    """chown first: it clears setuid bits and file capabilities."""
    if header.type == tar.LINK:
        return
    uid, gid = owners.of(header)
    os.chown(leaf, uid, gid, dir_fd=parent, follow_symlinks=False)
    if header.type != tar.SYMLINK:
        os.chmod(leaf, stat.S_IMODE(header.mode), dir_fd=parent)
    for name, value in header.xattrs.items():
        if name == CAPABILITY and owners.ids:
            value = capability_outside(value, owners.ids)
        try:
            os.setxattr(f"{safefs.fd_path(parent)}/{leaf}", name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
    if header.type != tar.DIR:
        os.utime(leaf, ns=(header.mtime_ns, header.mtime_ns), dir_fd=parent, follow_symlinks=False)
