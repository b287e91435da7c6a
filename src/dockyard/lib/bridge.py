"""Between a blocking thread and the event loop: bytes in bounded queues, either way.

``from_thread`` turns a generator that blocks (reads a disk) into an async iterator; ``to_file`` turns an async iterator
(a request body) into a readable for a thread. The queue's bound is the back-pressure: whoever is ahead waits. A side
that leaves early ends the other: an abandoned async iterator stops its thread at the next piece, an abandoned readable
stops pulling the source.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor
from typing import TypeVar

QUEUE = 8
"""Pieces in flight; with pieces of 64 KiB to 1 MiB this bounds memory to some MiB a stream."""

T = TypeVar("T")


class _Left(Exception):
    """The reader has gone."""


async def from_thread(make: Callable[[], Iterator[bytes]], executor: Executor | None = None) -> AsyncIterator[bytes]:
    """Runs ``make()`` in a thread and yields its pieces. Its error is raised here, after the pieces before it."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
    room = threading.Semaphore(QUEUE)
    left = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        room.acquire()
        if left.is_set():
            raise _Left
        loop.call_soon_threadsafe(queue.put_nowait, item)

    def work() -> None:
        try:
            for piece in make():
                put(piece)
            put(None)
        except _Left:
            return
        except BaseException as error:  # noqa: BLE001 - carried over to the reader, whatever it is
            room.release()
            loop.call_soon_threadsafe(queue.put_nowait, error)

    task = loop.run_in_executor(executor, work)
    try:
        while (item := await queue.get()) is not None:
            room.release()
            if isinstance(item, BaseException):
                raise item
            yield item
        await task
    finally:
        left.set()
        room.release()


class ThreadReader:
    """A blocking readable (``read(n)``) over an async iterator of the loop; for use in one other thread."""

    def __init__(self, source: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._source = source
        self._loop = loop
        self._buffer = bytearray()
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """As io.RawIOBase: fewer bytes than asked for only at the end; ``b""`` is the end."""
        while not self._ended and (size < 0 or len(self._buffer) < size):
            piece = asyncio.run_coroutine_threadsafe(_next(self._source), self._loop).result()
            if piece is None:
                self._ended = True
            else:
                self._buffer += piece
        size = len(self._buffer) if size < 0 else size
        out = bytes(self._buffer[:size])
        del self._buffer[:size]
        return out


async def _next(source: AsyncIterator[bytes]) -> bytes | None:
    return await anext(source, None)


async def in_thread(source: AsyncIterator[bytes], work: Callable[[ThreadReader], T]) -> T:
    """Runs ``work`` in a thread with ``source`` as its readable."""
    reader = ThreadReader(source, asyncio.get_running_loop())
    result: Awaitable[T] = asyncio.to_thread(work, reader)
    return await result
