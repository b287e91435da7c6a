"""Attach on the real conmon: before start, both directions, end of file, and clients that do not read."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from dockyard.errors import System
from dockyard.runtime import attach as hub_module
from dockyard.runtime import log_files
from dockyard.runtime.attach import Overflow

pytestmark = pytest.mark.root
LIMIT = 30


async def collect(attachment) -> dict[int, bytes]:
    out: dict[int, bytes] = {}
    async with asyncio.timeout(LIMIT):
        async for frame in attachment.frames():
            out[frame.stream] = out.get(frame.stream, b"") + frame.data
    return out


async def test_attached_before_start_nothing_is_lost(runtime, box):
    container, bundle, spec = box.spec("/bin/sh", "-c", "echo first; echo wrong >&2; seq 20000")
    await runtime.create(container, bundle, spec)
    clients = [runtime.attach(container) for _ in range(3)]
    only_errors = runtime.attach(container, stdout=False)
    await runtime.start(container)
    results = await asyncio.gather(*map(collect, (*clients, only_errors)))
    whole = b"first\n" + "".join(f"{number}\n" for number in range(1, 20001)).encode()
    assert results[:3] == [{1: whole, 2: b"wrong\n"}] * 3
    assert results[3] == {2: b"wrong\n"}
    assert await collect(runtime.attach(container)) == {}


async def test_stdin_before_start_and_end_of_file(runtime, box):
    container, bundle, spec = box.spec("/bin/sh", "-c", "cat; echo after")
    await runtime.create(container, bundle, spec, open_stdin=True, stdin_once=True)
    client = runtime.attach(container, stdin=True)
    await client.write(b"typed early\n")
    await runtime.start(container)
    await client.write(b"x" * 100_000)
    await client.write_eof()
    assert await collect(client) == {1: b"typed early\n" + b"x" * 100_000 + b"after\n"}
    with pytest.raises(BrokenPipeError):
        await client.write(b"late")


async def test_a_reader_that_leaves_does_not_end_stdin(runtime, box):
    container, bundle, spec = box.spec("/bin/cat")
    await runtime.create(container, bundle, spec, open_stdin=True, stdin_once=True)
    writer, reader = runtime.attach(container, stdin=True), runtime.attach(container)
    await runtime.start(container)
    await reader.close()
    await writer.write(b"still here\n")
    frames = writer.frames()
    assert (await asyncio.wait_for(anext(frames), LIMIT)).data == b"still here\n"
    await frames.aclose()
    await writer.close()
    assert (await asyncio.wait_for(runtime.wait_exit(container), LIMIT)).code == 0


async def test_open_stdin_outlives_its_clients(runtime, box):
    container, bundle, spec = box.spec("/bin/cat")
    await runtime.create(container, bundle, spec, open_stdin=True)
    await runtime.start(container)
    first = runtime.attach(container, stdin=True)
    await first.write(b"one\n")
    await first.close()
    second = runtime.attach(container, stdin=True)
    frames = second.frames()
    await second.write(b"two\n")
    seen = b""
    async with asyncio.timeout(LIMIT):
        while b"two\n" not in seen:
            seen += (await anext(frames)).data
    await frames.aclose()


async def test_terminal_and_its_size(runtime, box):
    container, bundle, spec = box.spec(
        "/bin/sh", "-c", "stty size; read line; stty size; echo got $line", terminal=True
    )
    await runtime.create(container, bundle, spec, tty=True, open_stdin=True, log_path=f"{bundle}/log")
    await runtime.resize(container, 33, 101)
    client = runtime.attach(container, stdin=True)
    await runtime.start(container)
    frames, text = client.frames(), b""
    async with asyncio.timeout(LIMIT):
        while b"\n" not in text:
            text += (await anext(frames)).data
        await runtime.resize(container, 12, 34)
        await client.write(b"hello\n")
        async for frame in frames:
            text += frame.data
    assert text.replace(b"\r", b"").split(b"\n")[:4] == [b"33 101", b"hello", b"12 34", b"got hello"]


async def test_a_client_that_does_not_read_neither_freezes_nor_keeps_the_container(runtime, box, monkeypatch):
    monkeypatch.setattr(hub_module, "STALL_LIMIT", 0.2)
    container, bundle, spec = box.spec("/bin/sh", "-c", "seq 400000")
    await runtime.create(container, bundle, spec, log_path=f"{bundle}/log")
    deaf, lossy, reader = (
        runtime.attach(container),
        runtime.attach(container, overflow=Overflow.DROP),
        runtime.attach(container),
    )
    await runtime.start(container)
    everything = (await collect(reader))[1]
    assert everything.endswith(b"400000\n")
    assert everything.count(b"\n") == 400_000
    assert (await asyncio.wait_for(runtime.wait_exit(container), LIMIT)).code == 0
    with pytest.raises(System, match="did not read"):
        await collect(deaf)
    late = (await collect(lossy))[1]
    assert late.endswith(b"400000\n")
    assert len(late) <= hub_module.BUFFER_LIMIT
    assert sum(Path(name).read_bytes().count(b" F ") for name in log_files(f"{bundle}/log")) == 400_000


async def test_a_slow_reader_still_gets_every_byte(runtime, box, monkeypatch):
    monkeypatch.setattr(hub_module, "BUFFER_LIMIT", 64 << 10)
    container, bundle, spec = box.spec("/bin/sh", "-c", "seq 100000")
    await runtime.create(container, bundle, spec)
    client = runtime.attach(container)
    await runtime.start(container)
    size = 0
    async with asyncio.timeout(LIMIT):
        async for frame in client.frames():
            size += len(frame.data)
            await asyncio.sleep(0)
    assert size == sum(len(str(number)) + 1 for number in range(1, 100_001))


async def test_no_more_descriptors_than_one_connection(runtime, box):
    container, bundle, spec = box.spec("/bin/sleep", "1000")
    await runtime.create(container, bundle, spec)
    before = len(os.listdir("/proc/self/fd"))
    clients = [runtime.attach(container) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    for client in clients:
        await client.close()
