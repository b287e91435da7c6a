"""Directories that a layer holds without describing them, and the owner, mode and times that they should show.

A tar may hold ``a/b/file`` and neither ``a`` nor ``a/b``. In the layer they are 0755 root, and overlayfs shows the topmost
layer's metadata: a lower layer's 1777 ``tmp`` would become 0755 because some layer put one file there. Extracting engines
do not have the problem, since they write into what is there. Here a snapshot gets one more lower directory above its
layers, with just those directories and what the topmost layer that does describe them says.

::

    layers/<number>/implied      paths, each ended by NUL; only where there are any
    snapshots/<key>/implied/     the directories, only where a layer below knows better
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from dockyard.oci.layers import OPAQUE_XATTR, OVERLAY_PREFIX

NAME = "implied"
MAX_PATHS = 20_000
"""More in one layer are left as they are: no honest tar has them, and each costs a few system calls at every create."""


@dataclass(frozen=True, slots=True)
class View:
    """A layer's tree as a path, and what it only implies."""

    root: str
    implied: frozenset[bytes] = field(default_factory=frozenset)


def encode(paths: Iterable[bytes]) -> bytes:
    return b"".join(path + b"\0" for path in sorted(paths))


def decode(text: bytes) -> frozenset[bytes]:
    paths = text.split(b"\0")[:-1]
    return frozenset(paths) if len(paths) <= MAX_PATHS else frozenset()


def corrections(layers: Sequence[View]) -> dict[bytes, str]:
    """Path -> where its metadata is to be taken from, parents first; ``layers`` topmost first. Empty nearly always."""
    wanted: dict[bytes, str] = {}
    for path in {path for layer in layers for path in layer.implied}:
        first, source = _described(layers, path)
        if source is not None and source is not first:
            wanted[path] = _join(source.root, path)
    needed = {parent for path in wanted for parent in _parents(path)} - set(wanted)
    for path in needed:
        first, source = _described(layers, path)
        chosen = source or first
        if chosen is not None:
            wanted[path] = _join(chosen.root, path)
    return dict(sorted(wanted.items()))


def _described(layers: Sequence[View], path: bytes) -> tuple[View | None, View | None]:
    """(the topmost layer that has the directory, the topmost that describes it), within what overlayfs merges."""
    first: View | None = None
    for layer in layers:
        found, ends = _look(layer.root, path)
        if found:
            first = first or layer
            if path not in layer.implied:
                return first, layer
        if ends:
            break
    return first, None


def _look(root: str, path: bytes) -> tuple[bool, bool]:
    """(a directory is there, lower layers do not show through). Symlinks are never followed: to overlayfs they hide."""
    place, opaque = os.fsencode(root), False
    for part in filter(None, path.split(b"/")):
        place = os.path.join(place, part)
        try:
            info = os.lstat(place)
        except FileNotFoundError:
            return False, opaque
        if not stat.S_ISDIR(info.st_mode):
            return False, True
        opaque = opaque or _is_opaque(place)
    return True, opaque


def _is_opaque(place: bytes) -> bool:
    with suppress(OSError):
        return os.getxattr(place, OPAQUE_XATTR, follow_symlinks=False) == b"y"
    return False


def _parents(path: bytes) -> Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _join(root: str, path: bytes) -> str:
    return os.path.join(root, os.fsdecode(path)) if path else root


def make(target: str, wanted: Mapping[bytes, str]) -> None:
    """The directories below ``target``, which is made too; metadata last, for making a child changes its parent's times."""
    os.mkdir(target, 0o755)
    for path in wanted:
        if path:
            os.mkdir(_join(target, path), 0o700)
    for path, source in reversed(list(wanted.items())):
        _copy(source, _join(target, path))


def _copy(source: str, target: str) -> None:
    info = os.lstat(source)
    os.chown(target, info.st_uid, info.st_gid)
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith(OVERLAY_PREFIX):
            with suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False))
    os.chmod(target, stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))
