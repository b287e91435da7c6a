from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from dockyard.lib.bridge import QUEUE, ThreadReader, from_thread, in_thread


async def test_pieces_arrive_in_order_and_errors_after_them() -> None:
    def broken() -> Iterator[bytes]:
        yield b"a"
        yield b"b"
        raise OSError("disk")

    stream = from_thread(broken)
    assert [await anext(stream), await anext(stream)] == [b"a", b"b"]
    with pytest.raises(OSError, match="disk"):
        await anext(stream)


async def test_a_thread_never_runs_far_ahead_and_ends_when_its_reader_leaves() -> None:
    made, ended = [], threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                made.append(1)
                yield b"x"
        finally:
            ended.set()

    stream = from_thread(endless)
    assert await anext(stream) == b"x"
    await stream.aclose()
    assert ended.wait(5)
    assert len(made) <= QUEUE + 3


async def test_a_thread_reads_what_the_loop_produces() -> None:
    async def source() -> AsyncIterator[bytes]:
        for piece in (b"abc", b"", b"defg"):
            yield piece

    def work(reader: ThreadReader) -> list[bytes]:
        return [reader.read(2), reader.read(4), reader.read(4), reader.read(4)]

    assert await in_thread(source(), work) == [b"ab", b"cdef", b"g", b""]
