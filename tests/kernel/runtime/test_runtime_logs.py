"""Logs of the real conmon: rotation under load loses no line, followers survive it."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from dockyard.errors import NotImplementedYet
from dockyard.runtime import LogLimits, LogWish, log_files

pytestmark = pytest.mark.root
LIMIT = 30


async def texts(lines) -> list[bytes]:
    async with asyncio.timeout(LIMIT):
        return [line.data async for line in lines]


async def test_rotation_loses_no_line_and_followers_go_on(runtime, box):
    container, bundle, spec = box.spec("/bin/sh", "-c", "seq 60000")
    log = f"{bundle}/log"
    await runtime.create(container, bundle, spec, log_path=log, log_limits=LogLimits(200_000, 50))
    follower = asyncio.ensure_future(texts(runtime.logs(container, log, LogWish(follow=True))))
    await runtime.start(container)
    await asyncio.wait_for(runtime.wait_exit(container), LIMIT)
    whole = [f"{number}\n".encode() for number in range(1, 60_001)]
    assert b"".join(await follower) == b"".join(whole)
    assert b"".join(await texts(runtime.logs(container, log, LogWish()))) == b"".join(whole)
    assert b"".join(await texts(runtime.logs(container, log, LogWish(tail=9000)))) == b"".join(whole[-9000:])
    assert len(log_files(log)) > 1  # conmon under load answers late: files may be larger than the limit


async def test_rotation_keeps_the_newest_lines(runtime, box):
    container, bundle, spec = box.spec("/bin/sh", "-c", "seq 300000")
    log = f"{bundle}/log"
    await runtime.create(container, bundle, spec, log_path=log, log_limits=LogLimits(1_000_000, 2))
    await runtime.start(container)
    await asyncio.wait_for(runtime.wait_exit(container), LIMIT)
    kept = b"".join(await texts(runtime.logs(container, log, LogWish()))).splitlines()[1:]
    assert kept == [str(number).encode() for number in range(300_001 - len(kept), 300_001)]
    assert 10_000 < len(kept) < 150_000
    assert len(log_files(log)) <= 2


async def test_pieces_without_newline(runtime, box):
    container, bundle, spec = box.spec("/bin/sh", "-c", "printf abc; printf %020000d 7; echo")
    await runtime.create(container, bundle, spec, log_path=f"{bundle}/log")
    await runtime.start(container)
    await asyncio.wait_for(runtime.wait_exit(container), LIMIT)
    pieces = await texts(runtime.logs(container, f"{bundle}/log", LogWish()))
    assert b"".join(pieces) == b"abc" + b"7".rjust(20000, b"0") + b"\n"
    assert len(pieces) > 2


async def test_no_log(runtime, box):
    container, bundle, spec = box.spec("/bin/echo", "hello")
    await runtime.create(container, bundle, spec)
    client = runtime.attach(container)
    await runtime.start(container)
    assert [frame.data async for frame in client.frames()] == [b"hello\n"]
    with pytest.raises(NotImplementedYet, match="configured logging driver does not support reading"):
        runtime.logs(container, "", LogWish())


@pytest.mark.parametrize("damage", ["hole", "zeros", "no end of line"])
async def test_a_damaged_log_costs_no_memory_and_no_line(runtime, tmp_path, damage):
    """What a truncation under conmon leaves (a hole), a power failure (zeros), and a line without an end."""
    log, size = tmp_path / "log", (4 << 30) if damage == "hole" else (48 << 20)
    stamp = b"2023-11-14T22:13:20Z stdout F "
    with log.open("wb") as file:
        file.write(stamp + b"before\n")
        if damage == "hole":
            file.seek(size)
        else:
            for _ in range(size >> 20):
                file.write((b"x" if damage == "no end of line" else b"\0") * (1 << 20))
        file.write(b"\n" * (damage == "no end of line") + stamp + b"one\n" + stamp + b"two\n")
    tracemalloc.start()
    try:
        for tail, expected in ((1, [b"two\n"]), (2, [b"one\n", b"two\n"]), (-1, [b"before\n", b"one\n", b"two\n"])):
            assert await texts(runtime.logs("gone", str(log), LogWish(tail=tail))) == expected
        assert (await texts(runtime.logs("gone", str(log), LogWish(tail=4))))[-2:] == [b"one\n", b"two\n"]
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
