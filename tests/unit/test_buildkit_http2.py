"""HTTP/2 and gRPC under peers that break rules, flood, stall or vanish."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from h2.settings import SettingCodes

from dockyard.build.doors.buildkit import http2, rpc
from dockyard.build.doors.buildkit.rpc import Call, Channel, RpcError, serve, streaming, unary
from dockyard.build.proto import rpc_pb2
from dockyard.errors import NotFound
from dockyard.testing.buildkit import StreamPairWire, wire_pair

LIMIT = 30.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = [(":method", "POST"), (":scheme", "http"), (":path", "/x/Echo"), (":authority", "x"), ("te", "trailers")]


class Handlers:
    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.cancelled = 0
        self.release = asyncio.Event()

    async def echo(self, call: Call, asked: rpc_pb2.BytesMessage) -> rpc_pb2.BytesMessage:
        return asked

    async def wait(self, call: Call, asked: rpc_pb2.BytesMessage) -> rpc_pb2.BytesMessage:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return asked

    async def pour(self, call: Call, asked: rpc_pb2.BytesMessage) -> None:
        for _ in range(200):
            await call.send(rpc_pb2.BytesMessage(data=b"x" * 50_000))

    async def fail(self, call: Call, asked: rpc_pb2.BytesMessage) -> rpc_pb2.BytesMessage:
        if asked.data == b"ours":
            raise NotFound("no such thing: naïve %")
        raise ZeroDivisionError("a secret of the inside")

    def routes(self) -> dict[str, Any]:
        kind = rpc_pb2.BytesMessage
        return {
            "/x/Echo": unary(kind, self.echo), "/x/Wait": unary(kind, self.wait), "/x/Fail": unary(kind, self.fail),
            "/x/Pour": streaming(kind, self.pour),
        }  # fmt: skip


class Rig:
    def __init__(self) -> None:
        self.handlers = Handlers()
        self.tasks: list[asyncio.Future[None]] = []
        self.wires: list[StreamPairWire] = []

    async def wire(self) -> StreamPairWire:
        ours, theirs = await wire_pair()
        self.wires += [ours, theirs]
        self.tasks.append(asyncio.ensure_future(serve(theirs, self.handlers.routes())))
        return ours

    async def channel(self) -> Channel:
        channel = Channel(await self.wire())
        self.tasks.append(asyncio.ensure_future(channel.run()))
        return channel


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    for wire in rig.wires:
        wire.close()
    await asyncio.wait_for(asyncio.gather(*rig.tasks, return_exceptions=True), LIMIT)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - turns of the loop, no time
            await asyncio.sleep(0)


async def ask(channel: Channel, name: str, data: bytes = b"") -> bytes:
    question = rpc_pb2.BytesMessage(data=data)
    return (await channel.ask(f"/x/{name}", question, rpc_pb2.BytesMessage, timeout=LIMIT)).data


async def test_large_messages_and_many_at_once(rig: Rig) -> None:
    channel = await rig.channel()
    sizes = [0, 1, 70_000, 3 << 20, *range(60)]
    got = await asyncio.gather(*(ask(channel, "Echo", b"y" * size) for size in sizes))
    assert [len(data) for data in got] == sizes


async def test_errors_are_told_and_the_inside_is_not(rig: Rig) -> None:
    channel = await rig.channel()
    with pytest.raises(RpcError, match="no such thing: naïve %") as ours:
        await ask(channel, "Fail", b"ours")
    assert ours.value.code == rpc.NOT_FOUND
    with pytest.raises(RpcError, match=r"^internal error$") as theirs:
        await ask(channel, "Fail")
    assert theirs.value.code == rpc.INTERNAL
    with pytest.raises(RpcError, match="/x/Nothing is not implemented"):
        await ask(channel, "Nothing")


async def test_a_question_that_is_no_protobuf_is_refused(rig: Rig) -> None:
    channel = await rig.channel()
    async with channel.open("/x/Echo") as exchange:
        await exchange.stream.send(b"\xff\xff\xff")
        exchange.end()
        with pytest.raises(RpcError, match="not a protobuf message"):
            await exchange.recv()


async def test_a_message_over_the_limit_is_refused_before_it_is_held(rig: Rig) -> None:
    channel = await rig.channel()
    async with channel.open("/x/Echo") as exchange:
        stream = exchange.stream
        stream.connection.h2.send_data(stream.number, b"\0" + (http2.MAX_MESSAGE + 1).to_bytes(4, "big") + b"z" * 100)
        stream.connection.flush()
        with pytest.raises(RpcError, match="is not accepted") as refused:
            await exchange.recv()
    assert refused.value.code == rpc.EXHAUSTED
    assert await ask(channel, "Echo", b"still here") == b"still here"


async def test_a_reader_that_stalls_holds_its_stream_only(rig: Rig) -> None:
    channel = await rig.channel()
    async with channel.open("/x/Pour") as exchange:
        await exchange.send(rpc_pb2.BytesMessage())
        exchange.end()
        await exchange.recv()
        assert await ask(channel, "Echo", b"beside") == b"beside"
        assert exchange.stream._queued <= 2 * http2.WINDOW
        count = 1
        while await exchange.recv() is not None:
            count += 1
    assert count == 200


async def test_a_peer_that_leaves_cancels_what_it_asked_for(rig: Rig) -> None:
    channel = await rig.channel()
    waiting = [asyncio.ensure_future(ask(channel, "Wait")) for _ in range(5)]
    await until(lambda: rig.handlers.running == 5)
    channel.close()
    await until(lambda: rig.handlers.cancelled == 5)
    for task in waiting:
        with pytest.raises(RpcError):
            await task


async def test_leaving_one_exchange_cancels_only_that(rig: Rig) -> None:
    channel = await rig.channel()
    async with channel.open("/x/Wait") as exchange:
        await exchange.send(rpc_pb2.BytesMessage())
        exchange.end()
        await until(lambda: rig.handlers.running == 1)
    assert await ask(channel, "Echo", b"on") == b"on"
    await until(lambda: rig.handlers.cancelled == 1)


class RawPeer:
    """A peer that says what it likes."""

    def __init__(self, wire: StreamPairWire) -> None:
        self.wire = wire
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()

    def flush(self) -> None:
        self.wire.write(self.h2.data_to_send())

    async def until_closed(self) -> bytes:
        whole = b""
        async with asyncio.timeout(LIMIT):
            while data := await self.wire.read():
                whole += data
        return whole


async def test_a_flood_of_resets_runs_few_handlers(rig: Rig) -> None:
    """CVE-2023-44487: streams opened and reset as fast as they can be written."""
    peer = RawPeer(await rig.wire())
    for number in range(1, 4001, 2):
        peer.h2.send_headers(number, [*HEAD[:2], (":path", "/x/Wait"), *HEAD[3:]])
        peer.h2.send_data(number, b"\0\0\0\0\0", end_stream=True)
        peer.h2.reset_stream(number)
    peer.flush()
    await asyncio.wait_for(peer.wire.drain(), LIMIT)
    channel = await rig.channel()
    assert await ask(channel, "Echo", b"other connections go on") == b"other connections go on"
    assert rig.handlers.most <= 2 * http2.MAX_STREAMS


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, PREFACE + b"\0" * 8 + b"\1"])
async def test_junk_ends_the_connection(rig: Rig, junk: bytes) -> None:
    wire = await rig.wire()
    wire.write(junk)
    async with asyncio.timeout(LIMIT):
        while await wire.read():
            pass


async def test_headers_without_end_are_refused(rig: Rig) -> None:
    peer = RawPeer(await rig.wire())
    peer.h2.update_settings({SettingCodes.MAX_HEADER_LIST_SIZE: 1 << 20})
    peer.h2.send_headers(1, [*HEAD, *(("x-" + str(number), "v" * 4000) for number in range(100))])
    peer.flush()
    await peer.until_closed()


async def test_a_go_server_that_resets_after_its_trailers_is_no_failure() -> None:
    """Go ends a stream whose asking half is open with RST_STREAM(NO_ERROR)."""
    left, right = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=right)
    channel = Channel(StreamPairWire(*await asyncio.open_unix_connection(sock=left)))
    running = asyncio.ensure_future(channel.run())
    server = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    server.initiate_connection()

    async def go() -> None:
        ended = False
        while not ended:
            for event in server.receive_data(await reader.read(65536)):
                if isinstance(event, DataReceived):
                    server.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
                    server.send_data(1, b"\0\0\0\0\x04\x0a\x02hi")
                    server.send_headers(1, [("grpc-status", "0")], end_stream=True)
                    server.reset_stream(1, 0)
                    ended = True
            writer.write(server.data_to_send())

    serving = asyncio.ensure_future(go())
    async with asyncio.timeout(LIMIT), channel.open("/x/Echo") as exchange:
        await exchange.send(rpc_pb2.BytesMessage(data=b"q"))  # and our half stays open
        message = await exchange.recv()
        assert message is not None
        assert rpc_pb2.BytesMessage.FromString(message).data == b"hi"
        assert await exchange.recv() is None
    channel.close()
    writer.close()
    await asyncio.gather(running, serving)
