"""Mount points: which of them a runtime will have to make in a root, and what is around them.

Looked at before the run, by descriptor; symlinks are followed as the runtime will, inside the root.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable

from dockyard.kernel import safefs
from dockyard.model import IdMaps

from .ports import Stubs

__all__ = ["find_stubs", "follow", "left_out"]

MAX_LINKS = 40


def find_stubs(root: int, targets: Iterable[str], ids: IdMaps) -> Stubs:
    """``ids``: how owners in the root differ from those in its upper directory."""
    made: dict[str, None] = {}
    parents: dict[str, tuple[int, int, int]] = {}
    for target in targets:
        try:
            here, missing = follow(root, target)
        except NotADirectoryError:
            continue  # the runtime will say so
        if not missing:
            continue
        with safefs.opened(root, here or ".", os.O_PATH) as fd:
            info = os.fstat(fd)
        parents[here] = (stat.S_IMODE(info.st_mode), *ids.inside(info.st_uid, info.st_gid))
        for part in missing:
            here = posixpath.join(here, part)
            made[here] = None
    return Stubs(tuple(made), {path: info for path, info in parents.items() if path and path not in made})


def follow(root: int, target: str) -> tuple[str, list[str]]:
    """(the part that exists, without a symlink in it; the components that do not). Links are followed inside the root,
    also one that leads to what is not there. Raises NotADirectoryError for a file on the way."""
    parts = [p for p in reversed(target.split("/")) if p not in ("", ".")]
    here, links = "", 0
    while parts:
        part = parts.pop()
        if part == "..":
            here = posixpath.dirname(here)
            continue
        path = posixpath.join(here, part)
        try:
            info = safefs.stat_in_root(root, path, follow=False)
        except FileNotFoundError:
            rest = posixpath.normpath("/".join([part, *reversed(parts)]))
            return here, [] if rest.startswith("..") else rest.split("/")
        if stat.S_ISLNK(info.st_mode):
            links += 1
            if links > MAX_LINKS:
                return here, []
            link = safefs.readlink_in_root(root, path)
            here = "" if link.startswith("/") else here
            parts += [p for p in reversed(link.split("/")) if p not in ("", ".")]
        else:
            here = path
    return here, []


def left_out(upper: int, stubs: Stubs) -> frozenset[str]:
    """Paths of an opened upper directory that are nothing but stubs: empty mount points, and directories that were only
    touched because a mount point was made in them."""
    out: set[str] = set()
    for path in reversed(stubs.made):
        info = _lstat(upper, path)
        empty_file = info is not None and stat.S_ISREG(info.st_mode) and info.st_size == 0
        if empty_file or (info is not None and stat.S_ISDIR(info.st_mode) and _holds_only(upper, path, out)):
            out.add(path)
    for path, before in sorted(stubs.parents.items(), key=lambda item: -item[0].count("/")):
        info = _lstat(upper, path)
        if info is None or not stat.S_ISDIR(info.st_mode) or not _holds_only(upper, path, out):
            continue
        if (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == before and not _opaque(upper, path):
            out.add(path)
            _add_bare_parents(upper, path, out)
    return frozenset(out)


def _add_bare_parents(upper: int, path: str, out: set[str]) -> None:
    """Copying a directory up copies those above it up too; their metadata is the lower one's."""
    while path := posixpath.dirname(path):
        if not _holds_only(upper, path, out) or _opaque(upper, path):
            return
        out.add(path)


def _lstat(root: int, path: str) -> os.stat_result | None:
    try:
        return safefs.stat_in_root(root, path, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _holds_only(root: int, path: str, names: set[str]) -> bool:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    with safefs.opened(root, path, flags, resolve=safefs.RESOLVE_NO_SYMLINKS) as fd:
        return all(posixpath.join(path, name) in names for name in os.listdir(fd))


def _opaque(root: int, path: str) -> bool:
    try:
        with safefs.opened(root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as fd:
            return os.getxattr(fd, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False
