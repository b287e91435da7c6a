"""The build context as it arrives: one tar stream, decompressed and indexed in one pass, its content in one spool file.

Nothing is extracted: COPY writes its layer straight from the spool, so a context of 20,000 files costs no inode before
it is in the layer. Limits guard against endless streams and bombs; names that leave the root are refused.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dockyard.errors import DockyardError
from dockyard.oci import tar
from dockyard.storage.compress import Plain, Reader
from dockyard.storage.pipe import run_with_input

from .dockerfile.patterns import Patterns, read_ignore_file
from .errors import BAD_CONTEXT, CONTEXT_TOO_BIG, DOCKERFILE_MISSING
from .space import context_of_full_disk, room_for_context
from .tree import ContextTree, Entry, Tree

__all__ = ["Context", "ContextLimits", "empty_context", "open_spool", "receive", "single_file"]

MAX_DOCKERFILE = 16 << 20
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class ContextLimits:
    entries: int = 2_000_000
    bytes: int = 1 << 40


class Context:
    """A tree and what .dockerignore hides of it."""

    def __init__(self, tree: Tree, ignore: Patterns | None = None) -> None:
        self.tree = tree
        self.ignore = ignore or Patterns(())

    def read_text(self, path: str, limit: int = MAX_DOCKERFILE) -> bytes | None:
        entry = self.tree.lookup(path)
        if entry is None or entry.kind != tar.REG:
            return None
        if entry.size > limit:
            raise CONTEXT_TOO_BIG(what=path, limit=f"{limit >> 20} MiB")
        return b"".join(self.tree.read(entry))

    def dockerfile(self, name: str) -> bytes:
        """Raises NotFound. Case matters, but a file ``dockerfile`` stands in for a missing ``Dockerfile``."""
        clean = posixpath.normpath("/" + name).lstrip("/")
        for candidate in (clean, clean.lower() if clean == "Dockerfile" else clean):
            if (text := self.read_text(candidate)) is not None:
                return text
        raise DOCKERFILE_MISSING(name=name)

    def load_ignore(self, dockerfile: str) -> None:
        """``<Dockerfile>.dockerignore`` first, then ``.dockerignore``."""
        for name in (dockerfile + ".dockerignore", ".dockerignore"):
            text = self.read_text(name)
            if text is not None:
                try:
                    self.ignore = Patterns(read_ignore_file(text.decode("utf-8", "replace")))
                except ValueError as error:
                    raise BAD_CONTEXT(cause=f"{name}: {error}") from None
                return

    def close(self) -> None:
        if isinstance(self.tree, ContextTree):
            self.tree.close()


def open_spool(directory: Path) -> int:
    """An unnamed file: a crash leaves nothing behind."""
    with suppress(OSError):
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fd, name = tempfile.mkstemp(dir=directory)
    os.unlink(name)
    return fd


def empty_context() -> Context:
    return Context(ContextTree({}, -1))


def single_file(directory: Path, name: str, content: bytes) -> Context:
    spool = open_spool(directory)
    os.write(spool, content)
    entry = Entry(name, tar.REG, 0o644, size=len(content), digest=hashlib.sha256(content).digest())
    return Context(ContextTree({name: entry}, spool))


async def receive(
    chunks: AsyncIterator[bytes], directory: Path, executor: Executor, limits: ContextLimits | None = None
) -> Context:
    """Raises InvalidParameter for what is no tar, Exhausted above a limit. A plain text body is a Dockerfile."""
    bounds = limits or ContextLimits()
    return await run_with_input(executor, chunks, lambda reader: read_context(reader, directory, bounds))


def read_context(reader: Reader, directory: Path, limits: ContextLimits, *, owners: bool = False) -> Context:
    """Blocking part of ``receive``. ``owners``: keep them, as ADD of an archive does; a context's are root's."""
    spool = open_spool(directory)
    try:
        try:
            entries = _Indexer(spool, limits, owners).run(Plain(reader))
        except DockyardError as error:
            if error.kind == "invalid parameter" and error.code != BAD_CONTEXT.id:
                raise BAD_CONTEXT(cause=str(error)) from None
            raise
        return Context(ContextTree(entries, spool))
    except BaseException:
        os.close(spool)
        raise


class _Spooled:
    """A stream that goes to the spool as it is, a piece at a time, while it is read in small parts.

    The spool is the plain archive itself: nothing is copied file by file, and an entry's offset is its place there."""

    def __init__(self, source: Reader, spool: int, most: int) -> None:
        self._source, self._spool, self._most = source, spool, most
        self._piece = b""
        self._at = self._before = 0

    @property
    def position(self) -> int:
        return self._before + self._at

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, never across two pieces; b"" at the end. Raises Exhausted."""
        at = self._at
        end = at + size
        if end <= len(self._piece):
            self._at = end
            return self._piece[at:end]
        if at == len(self._piece):
            self._refill()
            at, end = 0, min(size, len(self._piece))
        taken = self._piece[at:end]
        self._at = at + len(taken)
        return taken

    def _refill(self) -> None:
        self._before += len(self._piece)
        self._at = 0
        self._piece = self._source.read(PIECE)
        if self._before + len(self._piece) > self._most:
            raise CONTEXT_TOO_BIG(what="the content", limit=f"{self._most} bytes")
        view = memoryview(self._piece)
        with context_of_full_disk():
            while view:
                view = view[os.write(self._spool, view) :]


class _Indexer:
    def __init__(self, spool: int, limits: ContextLimits, owners: bool) -> None:
        self.most = room_for_context(spool, limits.bytes)
        self.spool, self.limits, self.owners = spool, limits, owners
        self.entries: dict[str, Entry] = {}

    def run(self, stream: Reader) -> dict[str, Entry]:
        source = _Spooled(stream, self.spool, self.most)
        archive = tar.StreamReader(source.read, self.limits.entries)
        known = ""
        while (header := archive.next()) is not None:
            path = _clean(header.name)
            if path is None or (not path and header.type != tar.DIR):
                raise BAD_CONTEXT(cause=f"bad file name {header.name[:200]!r}")
            if not path:
                continue
            if (parent := path.rpartition("/")[0]) != known:
                self._parents(known := parent)
            if header.type == tar.REG:
                self.entries[path] = self._file(path, header, archive, source.position)
            else:
                self._other(path, header)
        return self.entries

    def _parents(self, parent: str) -> None:
        while parent and parent not in self.entries:
            self.entries[parent] = Entry(parent, tar.DIR)
            parent = parent.rpartition("/")[0]

    def _file(self, path: str, header: tar.TarHeader, archive: tar.StreamReader, start: int) -> Entry:
        size = left = header.size
        if start + left > self.most:
            raise CONTEXT_TOO_BIG(what="the content", limit=f"{self.most} bytes")
        piece = archive.read(left)
        sha = hashlib.sha256(piece)
        while left := left - len(piece):
            piece = archive.read(left)
            sha.update(piece)
        uid, gid = (header.uid, header.gid) if self.owners else (0, 0)
        return Entry(
            path, tar.REG, header.mode & 0o7777, uid, gid, size, header.mtime_ns, "", sha.digest(), start,
            dict(header.xattrs) if header.xattrs else {},
        )  # fmt: skip

    def _other(self, path: str, header: tar.TarHeader) -> None:
        common = {"mode": header.mode & 0o7777, "mtime_ns": header.mtime_ns, "xattrs": dict(header.xattrs)}
        if self.owners:
            common |= {"uid": header.uid, "gid": header.gid}
        if header.type == tar.LINK:
            target = self.entries.get(_clean(header.linkname) or "")
            if target is None or target.kind != tar.REG:
                raise BAD_CONTEXT(cause=f"hard link {path} to {os.fsdecode(header.linkname)!r}, which is not before it")
            self.entries[path] = msgspec.structs.replace(target, path=path)
        elif header.type in (tar.CHAR, tar.BLOCK_DEV):
            if self.owners and (header.major or header.minor):  # 0:0 would be a whiteout
                numbers = {"major": header.major, "minor": header.minor}
                self.entries[path] = Entry(path, header.type, **common, **numbers)  # type: ignore[arg-type]
        elif header.type in (tar.DIR, tar.SYMLINK, tar.FIFO):
            link = os.fsdecode(header.linkname) if header.type == tar.SYMLINK else ""
            self.entries[path] = Entry(path, header.type, link=link, **common)  # type: ignore[arg-type]


def _clean(name: bytes) -> str | None:
    """Relative and inside; None for a name that points out."""
    path = os.fsdecode(name)
    if "\0" in path:
        return None
    if path and "//" not in path and "/." not in path and path[0] not in "./":
        return path[:-1] if path[-1] == "/" else path  # nearly all: nothing to resolve
    clean = posixpath.normpath(path).lstrip("/")
    if clean == ".":
        return ""
    return None if clean == ".." or clean.startswith("../") else clean
