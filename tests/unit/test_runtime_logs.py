"""Log lines and where reading begins."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from dockyard.runtime import logs
from dockyard.runtime.inotify import Inotify
from dockyard.runtime.logline import format_stamp, parse_line, parse_stamp
from dockyard.runtime.logs import LogWish, log_files, read_logs
from dockyard.runtime.model import LogLimits, LogLine
from dockyard.runtime.rotation import Rotation

T0 = 1_700_000_000_000_000_000


def row(number: int, text: str, *, stream: str = "stdout", tag: str = "F") -> str:
    return f"{format_stamp(T0 + number)[:-1]}+00:00 {stream} {tag} {text}\n"


def test_stamps():
    assert parse_stamp(b"2023-11-14T22:13:20.000000007+00:00") == T0 + 7
    assert parse_stamp(b"2023-11-14T23:13:20.5+01:00") == T0 + 500_000_000
    assert parse_stamp(b"2023-11-14T22:13:20Z") == T0
    assert format_stamp(T0 + 7) == "2023-11-14T22:13:20.000000007Z"
    assert parse_stamp(b"2023-99-14T22:13:20Z") is None


def test_lines():
    assert parse_line(row(1, "a b  c").rstrip("\n").encode()) == LogLine(1, T0 + 1, b"a b  c\n", partial=False)
    assert parse_line(row(1, "x", stream="stderr", tag="P")[:-1].encode()) == LogLine(2, T0 + 1, b"x", partial=True)
    assert parse_line(row(1, "").rstrip("\n").encode()) == LogLine(1, T0 + 1, b"\n", partial=False)
    for damaged in (b"", b"2023-11-14T22:13:20Z stdout F", b"\0\0\0\0 stdout F x", b"2023-11-14T22:13:20Z stdin F x"):
        assert parse_line(damaged) is None


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "log")


@pytest.fixture
async def reader():
    threads, inotify = ThreadPoolExecutor(1), Inotify(asyncio.get_running_loop())
    yield lambda path, wish, **more: read_logs(path, wish, threads=threads, inotify=inotify, **more)
    inotify.close()
    threads.shutdown()


async def texts(lines) -> list[str]:
    return [line.data.decode() async for line in lines]


def write(path: str, *rows: str) -> None:
    with open(path, "a") as file:
        file.write("".join(rows))


@pytest.mark.parametrize("block", [7, 64, 1 << 18])
async def test_tail_counts_lines_not_pieces_and_goes_into_rotated_files(path, reader, monkeypatch, block):
    monkeypatch.setattr(logs, "BLOCK", block)
    write(f"{path}.1", row(1, "one"), row(2, "two"))
    write(path, row(3, "thr", tag="P"), row(4, "ee"), row(5, "four"), row(6, "unfin", tag="P"))
    everything = ["one\n", "two\n", "thr", "ee\n", "four\n", "unfin"]
    assert await texts(reader(path, LogWish())) == everything
    for tail, first in ((0, 6), (1, 5), (2, 4), (3, 2), (4, 1), (5, 0), (50, 0)):
        assert await texts(reader(path, LogWish(tail=tail))) == everything[first:]


@pytest.mark.parametrize("block", [100, 1 << 18])
async def test_since_until_and_streams(path, reader, monkeypatch, block):
    monkeypatch.setattr(logs, "BLOCK", block)
    write(path, *(row(number, str(number), stream=("stdout", "stderr")[number % 2]) for number in range(200)))
    wish = LogWish(since=T0 + 50, until=T0 + 60, stderr=False)
    assert await texts(reader(path, wish)) == [f"{number}\n" for number in range(50, 61, 2)]
    assert await texts(reader(path, LogWish(since=T0 + 500))) == []


async def test_damaged_and_missing_logs(path, reader):
    assert await texts(reader(path, LogWish())) == []
    write(path, row(1, "good"), "\0\0\0\n", "torn", "\n", row(2, "again"), "2023-11-14T22:13:20Z stdout F no newli")
    assert await texts(reader(path, LogWish())) == ["good\n", "again\n"]


async def test_follow_over_two_rotations_and_to_the_end(path, reader):
    write(path, row(1, "one"))
    over = asyncio.Event()
    calls = []
    lines = reader(path, LogWish(follow=True), ended=over.is_set, on_end=calls.append)
    assert (await anext(lines)).data == b"one\n"
    waiting = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0)
    write(path, row(2, "two"))
    assert (await asyncio.wait_for(waiting, 5)).data == b"two\n"
    for number in (3, 5):
        write(path, row(number, f"old {number}"))
        if os.path.exists(f"{path}.1"):
            os.replace(f"{path}.1", f"{path}.2")
        os.replace(path, f"{path}.1")
        write(f"{path}.1", row(number + 1, f"late {number}"))
        write(path, row(number + 2, f"new {number}"))
    over.set()
    for call in calls:
        call()
    assert await texts(lines) == ["old 3\n", "late 3\n", "new 3\n", "old 5\n", "late 5\n", "new 5\n"]


async def test_follow_waits_for_a_log_that_is_not_there_yet(path, reader):
    over = asyncio.Event()
    lines = reader(path, LogWish(follow=True), ended=over.is_set, on_end=lambda call: None)
    waiting = asyncio.ensure_future(anext(lines))
    for _ in range(5):
        await asyncio.sleep(0.01)
    write(path, row(1, "first"))
    assert (await asyncio.wait_for(waiting, 5)).data == b"first\n"
    await lines.aclose()


async def test_follow_ends_at_until(path, reader):
    write(path, row(1, "past"))
    assert await asyncio.wait_for(texts(reader(path, LogWish(follow=True, until=T0 + 5), ended=lambda: False)), 5) == [
        "past\n"
    ]


@pytest.mark.parametrize(("max_file", "left"), [(1, 1), (3, 3)])
def test_rotation_keeps_so_many_files(path, max_file, left):
    def conmon_reopens() -> None:
        open(path, "w").close()

    conmon_reopens()
    rotation = Rotation(path, LogLimits(max_size=1000, max_file=max_file), conmon_reopens)
    for number in range(200):
        text = row(number, "x" * 50)
        write(path, text)
        rotation.count(b"x" * 50 + b"\n")
    rotation.count(b"")
    assert len(log_files(path)) in (left, left + (max_file == 1))
    assert all(os.stat(name).st_size <= 1100 for name in log_files(path))


def test_no_rotation_when_told(path):
    rotation = Rotation(path, LogLimits(max_size=-1), lambda: pytest.fail("rotated"))
    write(path, "x" * 10_000)
    rotation.count(b"x" * 10_000)
    assert log_files(path) == [path]
