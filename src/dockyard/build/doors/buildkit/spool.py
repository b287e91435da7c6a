"""Where a client's files lie once they are here: one unlinked file per shared context, grown by appending.

::

    Spool ── fd, size ──┐
    index: path ─► Entry (stat as the client told it, digest, offset) ─┘   next sync asks only for what differs

A file whose size, mtime, mode and xattrs are what they were is taken to be the same, as BuildKit does. Content is
hashed and written in a thread, small files many at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from ...context import Context, ContextLimits, open_spool
from ...errors import CONTEXT_TOO_BIG
from ...space import context_of_full_disk, room_for_context
from ...tree import ContextTree, Entry

__all__ = ["Shelf", "Spool", "Stored", "Writer"]

BATCH = 4 << 20
"""Bytes on their way to the disk; as many again may be collected meanwhile."""
SMALL = 1 << 20
"""Larger files are written as they come, at a place reserved for them."""
KEEP_CONTEXTS = 16
KEEP_BYTES = 4 << 30
KEEP_SECONDS = 3600.0
SLACK = 64 << 20
"""Bytes of garbage that never matter."""
MAX_HELD = 64 << 20
"""Bytes of small files that have begun and not ended; an honest client sends four at a time."""


@dataclass(eq=False)
class Spool:
    """``index`` is the last known state of every path ever synced here; ``lock`` lets one sync append at a time."""

    fd: int
    size: int = 0
    index: dict[str, Entry] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    used: float = field(default_factory=time.time)
    created: float = field(default_factory=time.time)
    uses: int = 0
    users: int = 0

    def context(self, entries: dict[str, Entry]) -> Context:
        """A view of its own: it stays valid when the spool is let go of."""
        return Context(ContextTree(entries, os.dup(self.fd)))

    def close(self) -> None:
        os.close(self.fd)


@dataclass
class Stored:
    """One file that is arriving."""

    entry: Entry
    offset: int = -1
    received: int = 0
    sha: hashlib._Hash = field(default_factory=hashlib.sha256)
    chunks: list[bytes] = field(default_factory=list)

    @property
    def result(self) -> Entry:
        """After the writer's flush."""
        told = self.entry
        return Entry(
            told.path, told.kind, told.mode, told.uid, told.gid, self.received, told.mtime_ns,
            digest=self.sha.digest(), offset=max(self.offset, 0), xattrs=told.xattrs,
        )  # fmt: skip


class Writer:
    """Appends to a spool. ``add`` and ``finish`` per file in any mixture; then ``flush``, or ``give_up``."""

    def __init__(self, spool: Spool, executor: Executor, limits: ContextLimits) -> None:
        self.spool, self.executor, self.limits = spool, executor, limits
        self._before = spool.size
        self.most = room_for_context(spool.fd, limits.bytes)
        self.taken = 0
        self._held = 0
        self._batch: list[tuple[Stored, list[bytes], int]] = []
        self._size = 0
        self._running: asyncio.Future[None] | None = None

    async def add(self, file: Stored, data: bytes) -> None:
        """Bytes beyond the size that was announced are left out: the context is what it was when it was listed.
        Raises Exhausted."""
        data = data[: file.entry.size - file.received]
        self.taken += len(data)
        if self.taken > self.most:
            raise CONTEXT_TOO_BIG(what="the content", limit=f"{self.most} bytes")
        file.received += len(data)
        if file.entry.size <= SMALL:
            file.chunks.append(data)
            self._held += len(data)
            if self._held > MAX_HELD:
                raise CONTEXT_TOO_BIG(what="the content of unfinished files", limit=f"{MAX_HELD} bytes")
            return
        if file.offset < 0:
            if self.spool.size + file.entry.size > self.limits.bytes:
                raise CONTEXT_TOO_BIG(what="the content", limit=f"{self.limits.bytes} bytes")
            file.offset = self.spool.size
            self.spool.size += file.entry.size
        await self._put(file, [data], file.offset + file.received - len(data))

    async def finish(self, file: Stored) -> None:
        if file.entry.size <= SMALL and file.received:
            file.offset = self.spool.size
            self.spool.size += file.received
            self._held -= file.received
            await self._put(file, file.chunks, file.offset)
            file.chunks = []

    async def flush(self) -> None:
        await self._start()
        if self._running is not None:
            await self._running
            self._running = None

    async def give_up(self) -> None:
        """What was appended goes: nothing refers to it, and it may be what filled the disk."""
        self._batch = []
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        self.spool.size = self._before
        os.ftruncate(self.spool.fd, self._before)

    async def _put(self, file: Stored, chunks: list[bytes], offset: int) -> None:
        self._batch.append((file, chunks, offset))
        self._size += sum(map(len, chunks))
        if self._size >= BATCH:
            await self._start()

    async def _start(self) -> None:
        if self._running is not None:
            await self._running
        batch, self._batch, self._size = self._batch, [], 0
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(self.executor, _write, self.spool.fd, batch) if batch else None


def _write(fd: int, batch: list[tuple[Stored, list[bytes], int]]) -> None:
    pending: list[bytes] = []
    start = end = 0
    for file, chunks, offset in batch:
        for chunk in chunks:
            file.sha.update(chunk)
        if offset != end:
            _write_all(fd, pending, start)
            pending, start, end = [], offset, offset
        pending += chunks
        end += sum(map(len, chunks))
    _write_all(fd, pending, start)


def _write_all(fd: int, chunks: list[bytes], offset: int) -> None:
    view = memoryview(b"".join(chunks))
    with context_of_full_disk():
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written


class Shelf:
    """Spools of contexts that may come again, the least recently used let go of first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._spools: OrderedDict[str, Spool] = OrderedDict()

    def spool(self, key: str) -> Spool:
        """The one to sync ``key`` into. "" is never kept."""
        found = self._spools.get(key)
        if found is None:
            found = Spool(open_spool(self.directory))
            if key:
                self._spools[key] = found
        if key:
            self._spools.move_to_end(key)
        found.used = time.time()
        found.uses += 1
        found.users += 1
        return found

    def done(self, key: str, spool: Spool, live: int) -> None:
        """After a sync. ``live``: bytes that the latest tree refers to."""
        spool.used = time.time()
        spool.users -= 1
        if self._spools.get(key) is not spool:
            if not spool.users:
                spool.close()
        elif spool.size > 2 * live + SLACK:
            self.drop(key)  # mostly garbage: the next sync begins anew
        self._bound()

    def drop(self, key: str) -> int:
        """Bytes freed; 0 for one that is in use."""
        spool = self._spools.get(key)
        if spool is None or spool.users:
            return 0
        del self._spools[key]
        spool.close()
        return spool.size

    def records(self) -> list[tuple[str, Spool]]:
        return list(self._spools.items())

    def close(self) -> None:
        for key, spool in list(self._spools.items()):
            del self._spools[key]
            if not spool.users:
                spool.close()

    def _bound(self) -> None:
        now = time.time()
        for key, spool in list(self._spools.items()):
            total = sum(each.size for each in self._spools.values())
            if total > KEEP_BYTES or len(self._spools) > KEEP_CONTEXTS or now - spool.used > KEEP_SECONDS:
                self.drop(key)
