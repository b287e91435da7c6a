"""Trees that COPY reads from: a build context (index in memory over one spool file) and a root file system.

Both answer the same four questions (lookup, walk, glob, read) and never leave their root: a context's symlinks are
resolved in the index, a root's by openat2(RESOLVE_IN_ROOT).
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import msgspec

from dockyard.kernel import safefs
from dockyard.oci import tar

from .dockerfile.patterns import clean, has_wildcard, match_regex

__all__ = ["ContextTree", "Entry", "RootTree", "Tree", "glob"]

MAX_LINKS = 255
MAX_DEPTH = 300
PIECE = 1 << 20


class Entry(msgspec.Struct, frozen=True):
    """``path`` is relative and clean ("" is the root); ``kind`` a tar type; ``digest`` of a regular file's content."""

    path: str
    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: str = ""
    digest: bytes = b""
    offset: int = 0
    xattrs: dict[str, bytes] = {}
    major: int = 0
    minor: int = 0

    @property
    def is_dir(self) -> bool:
        return self.kind == tar.DIR


ROOT = Entry("", tar.DIR)


class Tree(Protocol):
    def lookup(self, path: str) -> Entry | None:
        """Symlinks followed inside the tree."""
        ...

    def children(self, path: str) -> list[str]: ...

    def walk(self, top: Entry) -> Iterator[Entry]:
        """All below a directory, parents first, sorted; links not followed."""
        ...

    def read(self, entry: Entry) -> Iterator[bytes]: ...

    def digest(self, entry: Entry) -> bytes: ...


def glob(tree: Tree, pattern: str) -> list[str]:
    """Paths that match, component by component; a path without wildcards is given back as it is."""
    found = [""]
    for part in clean(pattern).split("/"):
        if not has_wildcard(part):
            found = [posixpath.join(p, part) for p in found]
            continue
        regex = match_regex(part)
        found = [posixpath.join(p, n) for p in found for n in tree.children(p) if regex.fullmatch(n)]
    return found


class ContextTree:
    """``entries`` by path; file content lies in ``spool`` at each entry's offset. Closing removes nothing: the spool
    file is unlinked as soon as it is opened."""

    def __init__(self, entries: dict[str, Entry], spool: int) -> None:
        self.entries, self.spool = entries, spool
        self._children: dict[str, list[str]] | None = None

    def close(self) -> None:
        if self.spool >= 0:
            os.close(self.spool)
            self.spool = -1

    def lookup(self, path: str) -> Entry | None:
        todo = [p for p in reversed(path.split("/")) if p not in ("", ".")]
        here, links = "", 0
        while todo:
            part = todo.pop()
            if part == "..":
                here = posixpath.dirname(here)
                continue
            entry = self.entries.get(posixpath.join(here, part))
            if entry is None:
                return None
            if entry.kind == tar.SYMLINK:
                links += 1
                if links > MAX_LINKS:
                    return None
                here = "" if entry.link.startswith("/") else here
                todo += [p for p in reversed(entry.link.split("/")) if p not in ("", ".")]
            else:
                here = entry.path
        return self.entries.get(here, ROOT if not here else None)

    def children(self, path: str) -> list[str]:
        if self._children is None:
            found: dict[str, list[str]] = {}
            for name in self.entries:
                if name:
                    parent, _, leaf = name.rpartition("/")
                    found.setdefault(parent, []).append(leaf)
            for names in found.values():
                names.sort()
            self._children = found
        entry = self.lookup(path)
        return self._children.get(entry.path, []) if entry else []

    def walk(self, top: Entry) -> Iterator[Entry]:
        stack = [(top.path, iter(self.children(top.path)))]
        while stack:
            parent, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                continue
            entry = self.entries[f"{parent}/{name}" if parent else name]
            yield entry
            if entry.is_dir:
                stack.append((entry.path, iter(self.children(entry.path))))

    def read(self, entry: Entry) -> Iterator[bytes]:
        offset, left = entry.offset, entry.size
        while left:
            piece = os.pread(self.spool, min(left, PIECE), offset)
            if not piece:
                raise OSError(errno.EIO, "build context is cut off", entry.path)
            offset, left = offset + len(piece), left - len(piece)
            yield piece

    def digest(self, entry: Entry) -> bytes:
        return entry.digest


_KINDS = {
    stat.S_IFREG: tar.REG, stat.S_IFDIR: tar.DIR, stat.S_IFLNK: tar.SYMLINK, stat.S_IFIFO: tar.FIFO,
    stat.S_IFCHR: tar.CHAR, stat.S_IFBLK: tar.BLOCK_DEV,
}  # fmt: skip


class RootTree:
    """A directory of this machine, such as the mounted root of a stage."""

    def __init__(self, root: int) -> None:
        self.root = root

    def _entry(self, path: str, folder: int, name: str) -> Entry | None:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None or (kind == tar.CHAR and info.st_rdev == 0):
            return None  # sockets do not go into layers, and this device would be a whiteout there
        link = os.readlink(name, dir_fd=folder) if kind == tar.SYMLINK else ""
        xattrs: dict[str, bytes] = {}
        if kind == tar.REG:
            with suppress(OSError):
                full = f"{safefs.fd_path(folder)}/{name}"
                xattrs = {
                    key: os.getxattr(full, key, follow_symlinks=False)
                    for key in os.listxattr(full, follow_symlinks=False)
                    if key == "security.capability" or key.startswith("user.")
                }
        return Entry(
            path, kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_size if kind == tar.REG else 0,
            info.st_mtime_ns, link, xattrs=xattrs, major=os.major(info.st_rdev), minor=os.minor(info.st_rdev),
        )  # fmt: skip

    def lookup(self, path: str) -> Entry | None:
        try:
            canonical = safefs.real_path(self.root, path).strip("/")
            if not canonical:
                return ROOT
            with safefs.parent_of(self.root, canonical) as (folder, leaf):
                return self._entry(canonical, folder, leaf)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def leaf(self, path: str) -> Entry | None:
        """The entry itself, where ``lookup`` follows a symlink."""
        try:
            with safefs.parent_of(self.root, path) as (folder, name):
                return self._entry(path, folder, name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def children(self, path: str) -> list[str]:
        try:
            with safefs.opened(self.root, path, os.O_RDONLY | os.O_DIRECTORY) as fd:
                return sorted(os.listdir(fd))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def walk(self, top: Entry, depth: int = 0) -> Iterator[Entry]:
        if depth > MAX_DEPTH:
            raise OSError(errno.ELOOP, "directories are nested too deeply", top.path)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        with safefs.opened(self.root, top.path, flags, resolve=safefs.RESOLVE_NO_SYMLINKS) as fd:
            found = [self._entry(posixpath.join(top.path, name), fd, name) for name in sorted(os.listdir(fd))]
        for entry in found:
            if entry is not None:
                yield entry
                if entry.is_dir:
                    yield from self.walk(entry, depth + 1)

    def read(self, entry: Entry) -> Iterator[bytes]:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with safefs.opened(self.root, entry.path, flags, resolve=safefs.RESOLVE_NO_SYMLINKS) as fd:
            left = entry.size
            while left and (piece := os.read(fd, min(left, PIECE))):
                left -= len(piece)
                yield piece
            if left:
                raise OSError(errno.EIO, "file shrank while it was copied", entry.path)

    def digest(self, entry: Entry) -> bytes:
        sha = hashlib.sha256()
        for piece in self.read(entry):
            sha.update(piece)
        return sha.digest()
