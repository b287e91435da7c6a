"""A directory of this machine as the engine asks for it: what a .dockerignore hides stays here, owners are nobody's.

Followed paths are what COPY names: wildcards, and symlinks, which bring their targets along inside the directory.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from dockyard.build.dockerfile.patterns import Patterns, has_wildcard
from dockyard.build.doors.buildkit import filesync
from dockyard.build.proto import session_pb2

__all__ = ["followed", "listed"]

MAX_LINKS = 255
MAX_FOUND = 100_000
_KINDS = {
    stat.S_IFDIR: filesync.MODE_DIR, stat.S_IFLNK: filesync.MODE_SYMLINK, stat.S_IFIFO: filesync.MODE_PIPE, stat.S_IFREG: 0,
}  # fmt: skip
_BITS = ((0o4000, filesync.MODE_SETUID), (0o2000, filesync.MODE_SETGID), (0o1000, filesync.MODE_STICKY))


def listed(root: Path, follow: Sequence[str], exclude: Sequence[str]) -> Iterator[tuple[str, session_pb2.Stat]]:
    """(path, what is sent of it), parents first, in order. No ``follow`` is everything."""
    ignore = Patterns(exclude)
    wanted = followed(root, follow) if follow else frozenset({""})
    yield from _folder(root, "", wanted, ignore)


def _folder(root: Path, folder: str, wanted: frozenset[str], ignore: Patterns) -> Iterator[tuple[str, session_pb2.Stat]]:
    for name in sorted(os.listdir(root / folder)):
        path = f"{folder}/{name}" if folder else name
        if not any(_related(path, each) for each in wanted):
            continue
        info = os.lstat(root / path)
        is_dir = stat.S_ISDIR(info.st_mode)
        hidden = ignore.match(path)
        if hidden and not (is_dir and ignore.has_negation):
            continue
        below = _folder(root, path, wanted, ignore) if is_dir else iter(())
        if not hidden and (shown := _stat(root, path, info)) is not None:
            yield path, shown
        elif hidden:  # only for what it holds
            first = next(below, None)
            if first is None:
                continue
            shown = _stat(root, path, info)
            assert shown is not None
            yield path, shown
            yield first
        yield from below


def _related(path: str, wanted: str) -> bool:
    return not wanted or path == wanted or path.startswith(wanted + "/") or wanted.startswith(path + "/")


def _stat(root: Path, path: str, info: os.stat_result) -> session_pb2.Stat | None:
    kind = _KINDS.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        return None  # sockets and devices are nothing to copy
    mode = kind | info.st_mode & 0o777
    for bit, value in _BITS:
        mode |= value if info.st_mode & bit else 0
    link = os.readlink(root / path) if kind == filesync.MODE_SYMLINK else ""
    return session_pb2.Stat(
        path=path, mode=mode, size=0 if kind else info.st_size, mod_time=info.st_mtime_ns, linkname=link
    )


def followed(root: Path, patterns: Sequence[str]) -> frozenset[str]:
    """Paths that the patterns lead to, and the links on the way."""
    found: set[str] = set()
    waiting = [(posixpath.normpath("/" + pattern).strip("/"), 0) for pattern in patterns]
    while waiting and len(found) < MAX_FOUND:
        pattern, links = waiting.pop()
        if not pattern:
            return frozenset({""})
        waiting += [(path, links + 1) for path in _walk(root, pattern, found) if links < MAX_LINKS]
    return frozenset(found)


def _walk(root: Path, pattern: str, found: set[str]) -> Iterator[str]:
    """Adds what one pattern leads to; gives back where links lead to instead."""
    at = ""
    parts = pattern.split("/")
    for place, part in enumerate(parts):
        rest = "/".join(parts[place + 1 :])
        if has_wildcard(part):
            try:
                names = os.listdir(root / at)
            except OSError:
                return
            yield from (posixpath.join(at, name, rest).rstrip("/") for name in names if fnmatch.fnmatchcase(name, part))
            return
        at = posixpath.join(at, part)
        try:
            target = os.readlink(root / at)
        except OSError:
            continue
        found.add(at)
        joined = posixpath.normpath(posixpath.join("/", posixpath.dirname(at), target))
        yield posixpath.join(joined, rest).strip("/")
        return
    found.add(at)
