"""``docker cp``: files of a container by descriptor, running or not.

A running container is entered through ``/proc/<pid>/root``: its own mounts are there, and nothing is mounted or resolved
on the host (CVE-2018-15664, CVE-2026-42306). A stopped one has its root file system mounted for the length of the call;
a path below one of its volumes or binds is looked up in that mount's source. No chroot, no helper program: bytes are
packed and unpacked here (CVE-2019-14271, CVE-2026-41567).
"""

from __future__ import annotations

import asyncio
import errno
import posixpath
import stat as modes
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from dockyard.engine.errors import BAD_ENTRY, NO_SUCH_PATH, NOT_A_DIRECTORY, PATH_READ_ONLY
from dockyard.engine.kit import Kit
from dockyard.engine.model import Record
from dockyard.kernel import safefs
from dockyard.lib import clock
from dockyard.model.exchange import PathStat
from dockyard.runtime import users
from dockyard.storage.files import Owner, pack, unpack
from dockyard.storage.pipe import run_with_input, stream_from_thread

COPIES = 4
"""Copies in or out that run at the same time; later ones wait."""
_threads = ThreadPoolExecutor(COPIES, "archive")
_GO_MODES = {
    modes.S_IFDIR: 1 << 31, modes.S_IFLNK: 1 << 27, modes.S_IFBLK: 1 << 26, modes.S_IFIFO: 1 << 25,
    modes.S_IFSOCK: 1 << 24, modes.S_IFCHR: 1 << 26 | 1 << 21,
}  # fmt: skip
"""Go's os.FileMode bits for file types; permissions are the same nine bits."""
_ENTRY_FAULTS = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EXDEV, errno.EEXIST, errno.ENOTEMPTY, errno.EPERM, errno.EACCES,
    errno.EROFS, errno.ENAMETOOLONG, errno.EINVAL, errno.EBUSY, errno.ETXTBSY, errno.EOPNOTSUPP,
})  # fmt: skip
_GO_SPECIAL = ((modes.S_ISUID, 1 << 23), (modes.S_ISGID, 1 << 22), (modes.S_ISVTX, 1 << 20))


@dataclass(frozen=True, slots=True)
class Place:
    """``path`` inside the directory that ``root`` (a descriptor) stands for; ``writable`` as the container sees it."""

    root: int
    path: str
    writable: bool


def go_mode(mode: int) -> int:
    special = sum(go for unix, go in _GO_SPECIAL if mode & unix)
    return _GO_MODES.get(modes.S_IFMT(mode), 0) | special | modes.S_IMODE(mode) & 0o777


@asynccontextmanager
async def _place(kit: Kit, record: Record, path: str) -> AsyncIterator[Place]:
    clean = posixpath.normpath("/" + path.lstrip("/"))
    covering = [point for point in record.mounts if clean == point.target or clean.startswith(point.target + "/")]
    mount = max(covering, key=lambda point: len(point.target), default=None)
    writable = mount.rw if mount else not record.host.readonly_rootfs
    if record.live:
        with safefs.root_fd(f"/proc/{record.state.pid}/root") as root:
            yield Place(root, clean, writable)
    elif mount is not None and mount.source:
        with safefs.root_fd(mount.source) as root:
            yield Place(root, clean[len(mount.target) :] or "/", writable)
    else:
        rootfs = await kit.rootfs.mount(record.id)
        try:
            with safefs.root_fd(rootfs) as root:
                yield Place(root, clean, writable)
        finally:
            await kit.rootfs.unmount(record.id)


def _look(place: Place, asked: str) -> PathStat:
    """The leaf itself, not what it points to, unless a trailing slash or ``/.`` asks for what is inside."""
    follow = asked.endswith(("/", "/."))
    found = safefs.stat_in_root(place.root, place.path, follow=follow)
    target = ""
    if modes.S_ISLNK(found.st_mode):
        link = safefs.readlink_in_root(place.root, place.path)
        target = posixpath.normpath(posixpath.join("/", posixpath.dirname(place.path), link))
    # "." stays for /dir/., as in dockerd: clients take it for "what is in it" when they unpack.
    name = posixpath.basename(asked.rstrip("/")).replace("..", "") or posixpath.basename(place.path) or "/"
    return PathStat(name, found.st_size, go_mode(found.st_mode), clock.rfc3339(found.st_mtime_ns), target)


def _missing(error: OSError, record: Record, path: str) -> Exception:
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG}:
        return NO_SUCH_PATH(path=path, ref=record.id)
    return error


async def stat(kit: Kit, record: Record, path: str) -> PathStat:
    async with _place(kit, record, path) as place:
        try:
            return await asyncio.to_thread(_look, place, path)
        except OSError as error:
            raise _missing(error, record, path) from None


async def get(kit: Kit, record: Record, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
    """The stat and a tar whose entries start with the path's last component."""
    found = await stat(kit, record, path)
    return found, _packed(kit, record, path, found.name)


async def _packed(kit: Kit, record: Record, path: str, name: str) -> AsyncIterator[bytes]:
    async with _place(kit, record, path) as place:
        follow, ids = path.endswith(("/", "/.")), kit.namespace.of(record.host).ids
        tar = pack(place.root, place.path, name.strip("/") or ".", follow=follow, ids=ids)
        async with aclosing(stream_from_thread(_threads, tar)) as pieces:
            async for piece in pieces:
                yield piece


async def put(
    kit: Kit, record: Record, path: str, tar: AsyncIterator[bytes], *, keep_kind: bool, copy_owner: bool
) -> None:
    """Unpacks into an existing directory. ``keep_kind``: a directory is never replaced by a file, nor the reverse. Files
    belong to whom the archive says, or, with ``copy_owner``, to the user that the container runs as (moby's
    copyUIDGID)."""
    owner, ids = await _user(kit, record) if copy_owner else None, kit.namespace.of(record.host).ids
    async with _place(kit, record, path) as place:
        if not place.writable:
            raise PATH_READ_ONLY()
        try:
            found = safefs.stat_in_root(place.root, place.path)
        except OSError as error:
            raise _missing(error, record, path) from None
        if not modes.S_ISDIR(found.st_mode):
            raise NOT_A_DIRECTORY()
        try:
            await run_with_input(
                _threads,
                tar,
                lambda source: unpack(source, place.root, place.path, keep_kind=keep_kind, owner=owner, ids=ids),
            )
        except OSError as error:
            raise _refused(error) from None


async def _user(kit: Kit, record: Record) -> Owner | None:
    """Who the container runs as, where its config says so."""
    if not record.config.user:
        return None
    async with _place(kit, record, "/") as place:
        user = await asyncio.to_thread(users.resolve, place.root, record.config.user)
    return user.uid, user.gid


def _refused(error: OSError) -> Exception:
    """What an entry of the client's archive ran into; what is wrong with this host stays an OSError."""
    if error.errno in _ENTRY_FAULTS:
        return BAD_ENTRY(name=error.filename or "an entry", cause=error.strerror or str(error))
    return error
