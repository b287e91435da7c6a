"""Between the event loop and the worker threads: bytes go over in pieces of a megabyte, both ways with a bound.

A hop between loop and thread costs about 0.1 ms here; at 64 KiB a piece that would be half the time of a load.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import Executor
from contextlib import suppress
from typing import TypeVar

PIECE = 1 << 20
QUEUED_PIECES = 4

T = TypeVar("T")


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class PipeReader:
    """The thread's end: ``read`` waits for the loop."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | _Failure | None] = queue.Queue(QUEUED_PIECES)
        self._piece = memoryview(b"")
        self._ended = False
        self.abandoned = False

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, all of what is at hand for -1; b"" at the end."""
        while not self._piece:
            if self._ended:
                return b""
            item = self._queue.get()
            if isinstance(item, _Failure):
                self._ended = True
                raise item.error
            if item is None:
                self._ended = True
            else:
                self._piece = memoryview(item)
        taken = self._piece if size < 0 else self._piece[:size]
        self._piece = self._piece[len(taken) :]
        return bytes(taken)

    def offer(self, item: bytes | _Failure | None) -> bool:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            return False
        return True

    def break_off(self, error: BaseException) -> None:
        """Drop what is queued; the next read raises."""
        while not self.offer(_Failure(error)):
            with suppress(queue.Empty):
                self._queue.get_nowait()

    def put_blocking(self, item: bytes | _Failure | None) -> None:
        while not self.abandoned:
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue
            return


async def run_with_input(executor: Executor, chunks: AsyncIterator[bytes], work: Callable[[PipeReader], T]) -> T:
    """``work(reader)`` in a thread, fed from ``chunks``. A failing or cancelled source raises inside ``work``'s read;
    a ``work`` that ends early stops the reading."""
    loop, reader = asyncio.get_running_loop(), PipeReader()
    done = loop.run_in_executor(executor, work, reader)

    async def put(item: bytes | _Failure | None) -> None:
        if not reader.offer(item) and not done.done():
            await loop.run_in_executor(None, reader.put_blocking, item)

    async def pump() -> None:
        try:
            batch = bytearray()
            async for chunk in chunks:
                batch += chunk
                if len(batch) >= PIECE:
                    await put(bytes(batch))
                    batch.clear()
            await put(bytes(batch))
            await put(None)
        except asyncio.CancelledError:
            reader.abandoned = True
            raise
        except Exception as error:  # noqa: BLE001 - handed to the worker, whose failure is what the caller sees
            await put(_Failure(error))

    pumping = loop.create_task(pump())
    try:
        return await asyncio.shield(done)  # pumping ends by itself when the source does
    finally:
        reader.abandoned = True
        pumping.cancel()
        if not done.done():
            reader.break_off(InterruptedError("the source of the data went away"))
        await asyncio.gather(pumping, return_exceptions=True)
        await asyncio.wait({done})
        if not done.cancelled():
            done.exception()  # asked for, so that nobody warns: it was raised above, or a cancellation goes first


async def stream_from_thread(executor: Executor, pieces: Generator[bytes, None, None]) -> AsyncGenerator[bytes, None]:
    """A blocking generator as an async one, a batch of at least PIECE bytes (but the last) at a time. Use it with
    ``aclosing``: the generator is closed, in its thread, before the caller's descriptors are."""
    loop = asyncio.get_running_loop()

    def batch() -> bytes:
        gathered = bytearray()
        for piece in pieces:
            gathered += piece
            if len(gathered) >= PIECE:
                break
        return bytes(gathered)

    running = loop.run_in_executor(executor, batch)
    try:
        while data := await asyncio.shield(running):
            running = loop.run_in_executor(executor, batch)  # the next batch is read while this one is sent
            yield data
    finally:
        await asyncio.wait({running})
        await loop.run_in_executor(executor, pieces.close)
