"""Safe paths: the one way this house touches files whose names or surroundings someone else controls.

Container roots, layers, build contexts and volumes may hold symlinks that point anywhere and may change while we look.
Resolving a path first and opening it later loses that race (CVE-2018-15664, CVE-2026-42306). Here a path is always
opened in one system call from a descriptor of the root: ``openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`` makes the
kernel resolve every component, ``..`` and absolute symlinks included, as if that descriptor were ``/`` (openat2(2)).

Absences: never chroots (a lazy import afterwards would load the container's files, as CVE-2019-14271 did with libnss),
never looks a name up in NSS, never follows a symlink in the last component unless the function says so, never returns a
descriptor that a child inherits.

Paths are ``str`` or ``bytes`` and may be absolute: ``/etc/passwd`` is taken inside the root. Every function raises
OSError; ELOOP means a symlink where none is allowed, EXDEV a way out.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .syscalls import OPENAT2, syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# A rename anywhere in the system during the walk gives EAGAIN; runc and crun retry about as often.
MAX_RESOLVE_TRIES = 128
DEFAULT_READ_LIMIT = 1 << 20
FLAT_DEPTH = 64
MAX_DEPTH = 400  # below Python's own recursion limit

Path = str | bytes


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_root(path: Path) -> int:
    """An O_PATH descriptor of a directory that *we* named; the starting point of everything below."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


@contextmanager
def root_fd(path: Path) -> Iterator[int]:
    fd = open_root(path)
    try:
        yield fd
    finally:
        os.close(fd)


def open_in_root(root: int, path: Path, flags: int = os.O_RDONLY, mode: int = 0, *, resolve: int = 0) -> int:
    """Open ``path`` with ``root`` as the root directory.

    A symlink in the last component is followed (inside the root) unless ``flags`` has O_NOFOLLOW; with
    ``resolve=RESOLVE_NO_SYMLINKS`` no component may be one.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve)
    name = os.fsencode(path) or b"."
    if b"\0" in name:
        raise ValueError("embedded null byte")
    for _ in range(MAX_RESOLVE_TRIES):
        try:
            return syscall(OPENAT2, root, name, ctypes.byref(how), ctypes.sizeof(how))
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None
    raise OSError(errno.EAGAIN, "path keeps changing while it is resolved", os.fsdecode(path))


@contextmanager
def opened(root: int, path: Path, flags: int = os.O_RDONLY, mode: int = 0, *, resolve: int = 0) -> Iterator[int]:
    """open_in_root as a context: the descriptor is closed at the end."""
    fd = open_in_root(root, path, flags, mode, resolve=resolve)
    try:
        yield fd
    finally:
        os.close(fd)


def split_leaf(path: Path) -> tuple[str, str]:
    """(parent, last component) of a path. Raises EINVAL where there is no last component of its own ("", "/", "..")."""
    parent, _, leaf = os.fsdecode(path).rstrip("/").rpartition("/")
    if leaf in ("", ".", ".."):
        raise OSError(errno.EINVAL, "path has no last component", os.fsdecode(path))
    return parent or ".", leaf


@contextmanager
def parent_of(
    root: int, path: Path, *, create: bool = False, mode: int = 0o755, owner: tuple[int, int] = (0, 0)
) -> Iterator[tuple[int, str]]:
    """The opened parent directory and the leaf's name: what ``dir_fd=`` functions take to act on the leaf itself.

    With ``create`` missing parents are made (owner and mode as ``make_dirs``).
    """
    parent, leaf = split_leaf(path)
    fd = make_dirs(root, parent, mode, owner) if create else open_in_root(root, parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd, leaf
    finally:
        os.close(fd)


def make_dirs(root: int, path: Path, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> int:
    """mkdir -p inside the root; returns an O_PATH descriptor of the directory. ``owner`` (uid, gid) of what is made.

    Existing symlinks on the way are followed inside the root; a dangling one is ENOENT, a file on the way ENOTDIR.
    The walk keeps a descriptor of every level, so that ``..`` after a symlink means what the kernel means by it.
    """
    flags = os.O_PATH | os.O_DIRECTORY
    with suppress(FileNotFoundError):
        return open_in_root(root, path, flags)
    done, missing = "", [part for part in os.fsdecode(path).split("/") if part not in ("", ".")]
    current = open_in_root(root, ".", flags)
    for part in missing:
        try:
            following = _step_or_make(root, current, done, part, mode, owner)
        finally:
            os.close(current)
        current, done = following, f"{done}/{part}"
    return current


def _step_or_make(root: int, current: int, done: str, part: str, mode: int, owner: tuple[int, int]) -> int:
    path = f"{done}/{part}"
    try:
        return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        if part == "..":
            raise
    with suppress(FileExistsError):
        os.mkdir(part, mode, dir_fd=current)
        if owner != (0, 0):
            os.chown(part, *owner, dir_fd=current, follow_symlinks=False)
    # A dangling symlink of that name gives ENOENT here, instead of a directory made where it points.
    return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)


def create_file(root: int, path: Path, mode: int = 0o644, *, replace: bool = False) -> int:
    """A new regular file, opened for writing. What stands there is EEXIST or, with ``replace``, is unlinked first
    (never written through: it may be a symlink or a hard link to something precious)."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with parent_of(root, path) as (parent, leaf):
        if replace:
            remove_tree(parent, leaf, missing_ok=True)
        return os.open(leaf, flags, mode, dir_fd=parent)


def read_file(root: int, path: Path, limit: int = DEFAULT_READ_LIMIT) -> bytes:
    """Content of a regular file inside the root (symlinks resolved there). EINVAL for a device, a fifo or a directory,
    EFBIG above ``limit`` bytes: an image's /etc/passwd may be a link to /dev/zero (CVE-2024-9676)."""
    # O_NONBLOCK: opening a fifo without a writer would otherwise wait for ever.
    with opened(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as fd:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
        data = bytearray()
        while len(data) <= limit:
            piece = os.read(fd, limit + 1 - len(data))
            if not piece:
                return bytes(data)
            data += piece
    raise OSError(errno.EFBIG, f"larger than {limit} bytes", os.fsdecode(path))


def write_file(root: int, path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put a whole new file in place of whatever stood there (not through it)."""
    fd = create_file(root, path, mode, replace=True)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def stat_in_root(root: int, path: Path, *, follow: bool = True) -> os.stat_result:
    with opened(root, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW)) as fd:
        return os.fstat(fd)


def readlink_in_root(root: int, path: Path) -> str:
    with opened(root, path, os.O_PATH | os.O_NOFOLLOW) as fd:
        return os.readlink("", dir_fd=fd)


def real_path(root: int, path: Path) -> str:
    """Where ``path`` leads, as an absolute path inside the root. For showing only: it is stale as soon as it is read;
    to act on the place keep the descriptor."""
    with opened(root, path, os.O_PATH) as fd:
        base, full = (os.readlink(f"/proc/self/fd/{n}") for n in (root, fd))
    if base == "/":
        return full
    inside = full.removeprefix(base)
    if inside == full or (inside and not inside.startswith("/")):
        raise OSError(errno.EXDEV, "path left its root", os.fsdecode(path))
    return inside or "/"


def fd_path(fd: int) -> str:
    """A path that names exactly the opened file, for calls that take only paths (mount(2), setxattr)."""
    return f"/proc/self/fd/{fd}"


def remove_tree(parent: int, name: str, *, missing_ok: bool = False) -> None:
    """rm -r of one entry of an opened directory; symlinks are removed, not followed. A mount point inside is EXDEV.

    The deep end of a tree nested more than FLAT_DEPTH times is first moved next to ``name``: neither descriptors nor
    the stack run out on a tree that someone nested a hundred thousand times.
    """
    deep: list[str] = []
    try:
        _remove_entry(parent, name, _Hoist(parent, name, deep), 0)
    except FileNotFoundError:
        if not missing_ok:
            raise
    while deep:
        _remove_entry(parent, deep.pop(), _Hoist(parent, name, deep), 0)


@dataclass(slots=True)
class _Hoist:
    """Where deep ends go: siblings of the tree being removed."""

    parent: int
    prefix: str
    deep: list[str]

    def take(self, parent: int, name: str) -> bool:
        target = f"{self.prefix[:100]}.deep-{os.urandom(8).hex()}"
        try:
            os.rename(name, target, src_dir_fd=parent, dst_dir_fd=self.parent)
        except OSError as error:
            if error.errno == errno.EXDEV:  # overlayfs does not rename a directory that has a lower one
                return False
            raise
        self.deep.append(target)
        return True


def _remove_entry(parent: int, name: str, hoist: _Hoist, depth: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
    if depth and depth % FLAT_DEPTH == 0 and hoist.take(parent, name):
        return
    if depth > MAX_DEPTH:
        raise OSError(errno.ELOOP, "directories are nested too deeply", name)
    fd = open_in_root(parent, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=RESOLVE_NO_XDEV)
    try:
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries]
        for child in names:
            with suppress(FileNotFoundError):
                _remove_entry(fd, child, hoist, depth + 1)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
