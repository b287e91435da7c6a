"""Reading a container's log: tail, since, until, follow, across rotated files.

Files, oldest first: ``log.2``, ``log.1``, ``log`` (the one that conmon writes). A reader holds the file that it reads
by descriptor, so a rotation under its feet loses nothing: when a newer file exists, the old one is complete, is read to
its end, and the next newer one follows. Reading is driven by the consumer: a follower that does not read costs one
descriptor and no memory. Waiting is by inotify.

A log may be damaged: who truncates it under conmon leaves a hole of any size, a power failure leaves zeros. Holes are not read,
zeros before a line are passed over, and no line is longer in memory than ``MAX_LINE``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

from dockyard.runtime.inotify import CREATE, MODIFY, MOVED_TO, Inotify, Watch
from dockyard.runtime.logline import ends_line, parse_line, parse_stamp
from dockyard.runtime.model import STDERR, STDOUT, LogLine

BLOCK = 256 << 10
MAX_LINE = 1 << 20
"""A line longer than this is no line of conmon's (8 KiB and a header); what was read of it is dropped."""
MAX_FILES = 1000


@dataclass(frozen=True, slots=True)
class LogWish:
    """Times are nanoseconds since the epoch, 0 = unset; ``tail`` is a number of lines, -1 for all. As in Docker, the
    tail is cut before streams and times are looked at."""

    stdout: bool = True
    stderr: bool = True
    since: int = 0
    until: int = 0
    tail: int = -1
    follow: bool = False


def log_files(path: str) -> list[str]:
    """The files that exist, oldest first."""
    rotated = []
    for number in range(1, MAX_FILES):
        if not os.path.exists(f"{path}.{number}"):
            break
        rotated.append(f"{path}.{number}")
    return [*reversed(rotated), path] if os.path.exists(path) else rotated[::-1]


def log_usage(path: str) -> int:
    """Bytes on disk."""
    total = 0
    for name in log_files(path):
        with contextlib.suppress(FileNotFoundError):
            total += os.stat(name).st_blocks * 512
    return total


async def read_logs(
    path: str, wish: LogWish, *, threads: Executor, inotify: Inotify, ended: Callable[[], bool] = lambda: True,
    on_end: Callable[[Callable[[], None]], None] | None = None,
) -> AsyncIterator[LogLine]:  # fmt: skip
    """``ended`` tells whether the container has stopped (a follower then reads to the end and leaves); ``on_end``
    registers a call for that moment."""
    streams = {stream for stream, wanted in ((STDOUT, wish.stdout), (STDERR, wish.stderr)) if wanted}
    reader = _Reader(path, threads)
    try:
        await reader.open(wish)
        async with contextlib.AsyncExitStack() as stack:
            signs = _Signs(path, inotify, on_end) if wish.follow else None
            if signs is not None:
                stack.callback(signs.close)
            async for lines in reader.blocks(signs, ended, wish.until):
                for raw in lines:
                    line = parse_line(raw.lstrip(b"\0"))
                    if line is None or line.ts < wish.since or line.stream not in streams:
                        continue
                    if wish.until and line.ts > wish.until:
                        return
                    yield line
    finally:
        reader.close()


class _Signs:
    """Wakes a follower: the log grew, was replaced, or the container ended."""

    def __init__(self, path: str, inotify: Inotify, on_end: Callable[[Callable[[], None]], None] | None) -> None:
        self._wake = asyncio.Event()
        self._inotify = inotify
        self._path = path
        self._file: Watch | None = None
        with contextlib.suppress(OSError):
            self._directory = inotify.watch(os.path.dirname(path) or ".", CREATE | MOVED_TO, self._named)
        self.follow_file(path)
        if on_end is not None:
            on_end(self._wake.set)

    def _named(self, name: str) -> None:
        if name in ("", os.path.basename(self._path)):
            self._wake.set()

    def follow_file(self, path: str) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        with contextlib.suppress(OSError):
            self._file = self._inotify.watch(path, MODIFY, lambda _: self._wake.set())

    def clear(self) -> None:
        self._wake.clear()

    async def wait(self, limit: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._wake.wait()

    def close(self) -> None:
        for watch in (self._file, getattr(self, "_directory", None)):
            if watch is not None:
                watch.close()


class _Reader:
    def __init__(self, path: str, threads: Executor) -> None:
        self._path = path
        self._threads = threads
        self._fd = -1
        self._at = 0
        self._rest = b""

    async def open(self, wish: LogWish) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _find_start, self._path, wish)
        if found is not None:
            self._fd, self._at = found

    async def blocks(self, signs: _Signs | None, ended: Callable[[], bool], until: int) -> AsyncIterator[list[bytes]]:
        """Whole lines, a block at a time. Without ``signs``: to the end of what is there."""
        while True:
            if signs is not None:
                signs.clear()
            finished = signs is None or ended()  # asked before reading, so that the last words are read after it
            while lines := await self._block():
                yield lines
            if self._advance(signs):
                continue
            limit = None if not until else (until - time.time_ns()) / 1e9
            if finished or (limit is not None and limit <= 0):
                return
            assert signs is not None
            await signs.wait(limit)

    async def _block(self) -> list[bytes]:
        """[] at the end of the file (for now)."""
        while self._fd >= 0:
            loop = asyncio.get_running_loop()
            block, self._at = await loop.run_in_executor(self._threads, _next_data, self._fd, self._at)
            if not block:
                break
            self._at += len(block)
            whole, newline, rest = (self._rest + block).rpartition(b"\n")
            self._rest = rest if len(rest) <= MAX_LINE else b""
            if newline:
                return whole.split(b"\n")
        return []

    def _advance(self, signs: _Signs | None) -> bool:
        """Goes on to the next newer file; True if there is something more to read for sure or perhaps."""
        names = log_files(self._path)
        following = _newer(names, self._fd)
        if following is None:
            return False
        if self._fd >= 0 and os.fstat(self._fd).st_size > self._at:
            return True  # it grew between our last read and the coming of the new file
        self.close()
        try:
            self._fd = os.open(following, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True  # rotated this moment: look again
        self._at, self._rest = 0, b""
        if signs is not None:
            signs.follow_file(following)
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _next_data(fd: int, at: int) -> tuple[bytes, int]:
    """A block from the next place that is no hole, and where it begins; b"" at the end."""
    size = os.fstat(fd).st_size  # before looking: what comes meanwhile is beyond it
    try:
        at = os.lseek(fd, at, os.SEEK_DATA)
    except OSError:  # ENXIO: only a hole is left, or nothing
        return b"", max(at, size)
    return os.pread(fd, BLOCK, at), at


def _newer(names: list[str], fd: int) -> str | None:
    """The file that follows the open one; the oldest if the open one was rotated away; None if it is the newest."""
    if fd < 0:
        return names[0] if names else None
    own = os.fstat(fd)
    for index, name in enumerate(names):
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(name), own):
                return names[index + 1] if index + 1 < len(names) else None
    return names[0] if names else None


# -- where to begin ----------------------------------------------------------------------------------------------------


def _find_start(path: str, wish: LogWish) -> tuple[int, int] | None:
    """Descriptor and offset of the first line to read. None if there is no file yet."""
    names = log_files(path)
    wanted = wish.tail
    for index in range(len(names) - 1, -1, -1):
        try:
            fd = os.open(names[index], os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            offset, wanted = _backwards(fd, wanted, newest=index == len(names) - 1) if wanted >= 0 else (0, -1)
            if wish.since and not offset:
                offset = _first_since(fd, wish.since)
            if offset or index == 0 or wanted == 0:
                return fd, offset
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    return None


def _backwards(fd: int, lines: int, *, newest: bool = True) -> tuple[int, int]:
    """The offset at which the last ``lines`` lines begin, and how many are missing (0 if the file has enough). Pieces
    at the very end that have no newline yet are a line too; in an older file the next file has the rest of them."""
    start, last = os.fstat(fd).st_size, newest
    for offset, entry in _entries_backwards(fd):
        if ends_line(entry) or last:
            if lines == 0:
                return start, 0
            lines -= 1
        start, last = offset, False
    return start, lines


def _entries_backwards(fd: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each entry, the last first; of one that is too long the beginning."""
    position, rest = os.fstat(fd).st_size, b""
    while position > 0:
        end, position = position, max(0, position - BLOCK)
        if _is_hole(fd, position, end):
            rest, entries, offset = b"", [rest], end + len(rest) + 1
        else:
            rest, *entries = (os.pread(fd, end - position, position) + rest).split(b"\n")
            offset = position + len(rest) + 1 + sum(map(len, entries)) + len(entries)
        if rest.startswith(b"\0"):  # zeros end an entry, too
            rest, entries = b"", [rest, *entries]
        for entry in reversed(entries):
            offset -= len(entry) + 1
            if bare := entry.lstrip(b"\0"):
                yield offset + len(entry) - len(bare), bare
        rest = rest if len(rest) <= MAX_LINE else b""
    if rest:
        yield 0, rest


def _is_hole(fd: int, begin: int, end: int) -> bool:
    try:
        return os.lseek(fd, begin, os.SEEK_DATA) >= end
    except OSError:  # ENXIO: no data from there on
        return True


def _first_since(fd: int, since: int) -> int:
    """Bisects for the first line not older than ``since``; lines are in order of time."""
    low, high = 0, os.fstat(fd).st_size
    while high - low > BLOCK:
        middle = (low + high) // 2
        head, newline, tail = os.pread(fd, BLOCK, middle).partition(b"\n")
        stamp = parse_stamp(tail.split(b" ", 1)[0]) if newline else None
        if stamp is not None and stamp < since:
            low = middle + len(head) + 1
        else:
            high = middle
    return low
