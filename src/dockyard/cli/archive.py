"""``cp``: where a copy goes (a pure plan, docker's rules of moby/go-archive copy.go), and the tar streams that carry it.

What comes from a container is hostile: it is unpacked by descriptor below the directory that the user named, so that no
name or link in it leads anywhere else (CVE-2018-15664, CVE-2019-14271).
"""

from __future__ import annotations

import os
import posixpath
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from dockyard.cli.flags import Refusal
from dockyard.cli.shell import Shell
from dockyard.client import quote
from dockyard.errors import Code, NotFound
from dockyard.kernel import safefs
from dockyard.oci.tar import END_OF_ARCHIVE, LINK, StreamReader, encode_header, padding
from dockyard.storage.files import MAX_MEMBERS, PIECE, pack, unpack

Json = dict[str, Any]
NO_SUCH_FILE = Code("DY-CLI-006", NotFound, "Could not find the file {path} in container {container}")
_GO_DIR, _GO_LINK = 1 << 31, 1 << 27


class Target(NamedTuple):
    """Where the copy is to go, as it is now."""

    path: str
    exists: bool
    is_dir: bool


class Plan(NamedTuple):
    """Unpack in ``folder``; the root of the archive becomes ``name`` ("": what is in it goes to ``folder`` itself)."""

    folder: str
    name: str


def place(word: str) -> tuple[str, str]:
    """(container, path); the container is "" for a path of this machine. A path with a colon is written ``./a:b``."""
    container, colon, path = word.partition(":")
    if word.startswith(("/", ".")) or not colon:
        return "", word
    return container, path


def absolute(path: str) -> str:
    """The whole path; a slash or ``/.`` at the end means something and stays."""
    whole = os.path.abspath(path)
    if path.endswith("/.") or path == ".":
        return whole.rstrip("/") + "/."
    return whole.rstrip("/") + "/" if path.endswith("/") else whole


def plan(source: str, source_is_dir: bool, target: Target) -> Plan:
    """Raises Refusal where a directory would go onto a file or below a directory that is not there."""
    contents = source.endswith("/.") and source_is_dir
    clean = posixpath.normpath(target.path)
    if target.exists and target.is_dir:
        name = "" if contents else posixpath.basename(posixpath.normpath(source)).strip("/")
        return Plan(clean, name)
    if target.exists and source_is_dir:
        raise Refusal(f"cannot copy directory {source} onto the file {target.path}")
    if not target.exists and not source_is_dir and target.path.endswith("/"):
        raise Refusal(f"no such directory: {target.path}")
    return Plan(posixpath.dirname(clean) or "/", posixpath.basename(clean))


def renamed(chunks: Iterable[bytes], name: str, counted: list[int]) -> Iterator[bytes]:
    """The archive with the first part of all names replaced; the sizes of its files are added to ``counted[0]``."""
    source = ChunkReader(chunks)
    archive = StreamReader(source.read, MAX_MEMBERS)
    root = None
    while (header := archive.next()) is not None:
        if root is None:
            root = header.name.lstrip(b"/").partition(b"/")[0]
        moved = _moved(header.name, root, name)
        if header.type == LINK:
            header = header._replace(linkname=_moved(header.linkname, root, name))
        if moved.strip(b"/") or header.size:
            yield encode_header(header._replace(name=moved))
            yield from _data(archive, header.size)
            counted[0] += header.size
    yield END_OF_ARCHIVE
    while source.read(PIECE):
        pass


def _moved(path: bytes, root: bytes, name: str) -> bytes:
    """``root/a`` as ``name/a``; a name outside of the root goes below it, where `unpack` judges it."""
    path = path.lstrip(b"/")
    first, slash, rest = path.partition(b"/")
    if first != root:
        slash, rest = b"/", path
    return os.fsencode(name) + (slash if name else b"") + rest


def _data(archive: StreamReader, size: int) -> Iterator[bytes]:
    while piece := archive.read(PIECE):
        yield piece
    yield padding(size)


class ChunkReader:
    """``read(size)`` over pieces of any size."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        while not self._rest:
            piece = next(self._chunks, None)
            if piece is None:
                return b""
            self._rest = piece
        cut = len(self._rest) if size < 0 else size
        taken, self._rest = self._rest[:cut], self._rest[cut:]
        return taken


def to_stdout(shell: Shell, container: str, path: str, *, follow: bool) -> int:
    if follow:
        path, _ = _source_in(shell, container, path, follow=True)
    _, answer = shell.client.get_archive(container, path)
    with answer:
        for piece in answer.chunks():
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return 0


def from_stdin(shell: Shell, container: str, path: str, chunks: Iterable[bytes], *, keep: bool) -> None:
    target = _target_in(shell, container, path)
    shell.client.put_archive(container, target.path, chunks, **_put_query(keep))


def from_container(shell: Shell, container: str, source: str, path: str, *, follow: bool, keep: bool) -> int:
    """Copies to this machine; the bytes of its files."""
    place, is_dir = _source_in(shell, container, source, follow=follow)
    whole = absolute(path)
    made = plan(source, is_dir, Target(whole, os.path.exists(whole), os.path.isdir(whole)))
    _, answer = shell.client.get_archive(container, place)
    counted = [0]
    with answer:
        try:
            with safefs.root_fd(made.folder) as root:
                stream = ChunkReader(renamed(answer.chunks(), made.name, counted))
                unpack(stream, root, "/", keep_kind=True, owner=None if keep else (os.geteuid(), os.getegid()))
        except FileNotFoundError:
            raise Refusal(f"invalid output path: directory {made.folder} does not exist") from None
        except OSError as error:
            raise Refusal(f"cannot copy to {whole}: {error.strerror or error}") from None
    return counted[0]


def to_container(shell: Shell, path: str, container: str, target: str, *, follow: bool, keep: bool) -> int:
    """Copies from this machine; the bytes of its files."""
    whole = absolute(path)
    info = _stat_here(whole, follow=follow)
    made = plan(whole, stat.S_ISDIR(info.st_mode), _target_in(shell, container, target))
    counted = [0]
    with safefs.root_fd("/") as root:
        archive = pack(root, os.path.normpath(whole), "root", follow=follow)
        body = renamed(archive, made.name, counted)
        shell.client.put_archive(container, made.folder, body, **_put_query(keep))
    return counted[0]


def between(shell: Shell, origin: tuple[str, str], goal: tuple[str, str], *, follow: bool, keep: bool) -> int:
    """Copies from a container to a container, through here without a stop on the disk."""
    place, is_dir = _source_in(shell, *origin, follow=follow)
    made = plan(origin[1], is_dir, _target_in(shell, *goal))
    _, answer = shell.client.get_archive(origin[0], place)
    counted = [0]
    with answer:
        body = renamed(answer.chunks(), made.name, counted)
        shell.client.put_archive(goal[0], made.folder, body, **_put_query(keep))
    return counted[0]


def _put_query(keep: bool) -> Json:
    return {"noOverwriteDirNonDir": True, "copyUIDGID": True if keep else None}


def _stat_here(path: str, *, follow: bool) -> os.stat_result:
    try:
        info = os.stat(path, follow_symlinks=follow or path.endswith("/"))
    except OSError as error:
        raise Refusal(f"{'stat' if follow else 'lstat'} {path}: {(error.strerror or str(error)).lower()}") from None
    if not stat.S_ISDIR(info.st_mode) and path.endswith(("/", "/.")):
        raise Refusal(f"{path} is not a directory")
    return info


def _source_in(shell: Shell, container: str, path: str, *, follow: bool) -> tuple[str, bool]:
    """(path to ask for, whether it is a directory)."""
    told = _stat_or_none(shell, container, path)
    if told and follow and told.get("mode", 0) & _GO_LINK and (link := told.get("linkTarget")):
        path = posixpath.join(posixpath.dirname(path), link)
        told = _stat_or_none(shell, container, path)
    if told is None:
        raise NO_SUCH_FILE(path=path, container=container)
    return path, bool(told.get("mode", 0) & _GO_DIR)


def _target_in(shell: Shell, container: str, path: str) -> Target:
    """A link at the end is followed once, as docker does."""
    whole = "/" + path.lstrip("/")
    told = _stat_or_none(shell, container, whole)
    if told and told.get("mode", 0) & _GO_LINK and (link := told.get("linkTarget")):
        whole = posixpath.join(posixpath.dirname(whole), link)
        told = _stat_or_none(shell, container, whole)
    return Target(whole, told is not None, bool(told and told.get("mode", 0) & _GO_DIR))


def _stat_or_none(shell: Shell, container: str, path: str) -> Json | None:
    try:
        return shell.client.stat_archive(container, path)
    except NotFound:
        # The answer to HEAD has no sentence: this one says whether it is the container that is missing.
        shell.client.request("GET", f"/containers/{quote(container)}/json")
        return None
