"""Connections that are taken over: attach and exec start (raw, half-closable both ways), attach over a websocket,
BuildKit's session and gRPC (HTTP/2 on the upgraded connection).

With an ``Upgrade`` header the answer is 101 UPGRADED, else 200 and then raw bytes. Input and output run side by side;
the client's half close is end of input, ours comes when the output has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from dockyard.api import answers, frames
from dockyard.api.call import BAD_PARAMETER, Call
from dockyard.api.failure import message_of
from dockyard.api.handlers.execs import ExecStart
from dockyard.api.ports import Attachment
from dockyard.api.websocket import WebSocket, accept
from dockyard.errors import DockyardError
from dockyard.http import CLIENT_LEFT, Answer, RawStream, Request
from dockyard.model.exchange import AttachQuery, Frame
from dockyard.runtime.detach import DetachKeys, parse_detach_keys

INPUT_PIECE = 32 << 10
LINGER = 2.0
"""Seconds that a client gets to close its half after ours."""


def _head(request: Request, content_type: str) -> bytes:
    if "upgrade" in request.headers:
        return (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        ).encode()
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode()


def _query(call: Call) -> AttachQuery:
    return AttachQuery(
        logs=call.flag("logs"), stream=call.flag("stream"), stdin=call.flag("stdin"), stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
    )  # fmt: skip


async def attach(call: Call) -> Answer:
    keys = parse_detach_keys(call.text("detachKeys"))
    query = _query(call)
    attachment = await call.engine.containers.attach(call.params["id"], query)
    return await _take_over(call, attachment, keys, stdin=query.stdin)


async def exec_start(call: Call) -> Answer:
    wish = await call.json(ExecStart, empty=ExecStart())
    described = await call.engine.execs.inspect(call.params["id"])
    tty = wish.tty  # of the stream; whether the process has a terminal was said at create (as in moby)
    size = wish.console_size
    if wish.detach:
        await call.engine.execs.start(call.params["id"], detach=True, tty=tty, size=None)
        return answers.empty(200)
    keys = parse_detach_keys(described.get("DetachKeys") or "")
    if described["Running"] or described["ExitCode"] is not None:
        # Refusals are told by status while there still is one (moby checks the same before it hijacks).
        await call.engine.execs.start(call.params["id"], detach=True, tty=tty, size=None)
    starting = _ExecStart(call, tty, tuple(size) if size and all(size) else None)
    return await _take_over(call, starting, keys, stdin=bool(described["OpenStdin"]))


class _ExecStart:
    """An exec's attachment that starts when its output is asked for: errors of the start then go into the stream."""

    def __init__(self, call: Call, tty: bool, size: tuple[int, ...] | None) -> None:
        self.tty = tty
        self._call = call
        self._size = (size[0], size[1]) if size and len(size) == 2 else None
        self._inner: asyncio.Future[Attachment | None] = asyncio.get_running_loop().create_future()

    async def frames(self) -> AsyncIterator[Frame]:
        try:
            inner = await self._call.engine.execs.start(
                self._call.params["id"], detach=False, tty=self.tty, size=self._size
            )
        except (DockyardError, OSError) as error:
            self._inner.set_result(None)
            yield Frame(1 if self.tty else 2, message_of(error).encode() + b"\r\n")
            return
        self._inner.set_result(inner)
        if inner is not None:
            async for frame in inner.frames():
                yield frame

    async def write(self, data: bytes) -> None:
        if (inner := await self._inner) is not None:
            await inner.write(data)

    async def write_eof(self) -> None:
        if (inner := await self._inner) is not None:
            await inner.write_eof()

    async def close(self) -> None:
        if self._inner.done() and (inner := self._inner.result()) is not None:
            await inner.close()


async def _take_over(call: Call, attachment: Attachment, keys: bytes, *, stdin: bool) -> Answer:
    request = call.request
    try:
        await request.body(1 << 20)
        content_type = frames.content_type(call.version, tty=attachment.tty, upgraded="upgrade" in request.headers)
        raw = request.hijack(_head(request, content_type))
    except BaseException:
        await attachment.close()
        raise
    await _pump(raw, attachment, keys, stdin=stdin)
    return None


async def _pump(raw: RawStream, attachment: Attachment, keys: bytes, *, stdin: bool) -> None:
    """Output until it ends, input until end of file or detach; a client that leaves ends both."""
    feeding = asyncio.create_task(_feed(raw, attachment, keys, stdin=stdin))
    sending = asyncio.create_task(_send(raw, attachment))
    try:
        done, _ = await asyncio.wait({feeding, sending}, return_when=asyncio.FIRST_COMPLETED)
        if sending not in done and feeding.exception() is None and not feeding.result():
            await sending  # end of input only: output goes on
    finally:
        for task in (feeding, sending):
            task.cancel()
        await asyncio.gather(feeding, sending, return_exceptions=True)
        await attachment.close()
        raw.write_eof()
    await _linger(raw)


async def _linger(raw: RawStream) -> None:
    """Reads away what the client still sends: a socket closed on unread input resets the peer, which may then not have
    read all of the output (``yes | docker run -i IMAGE head -1``)."""
    with contextlib.suppress(TimeoutError, CLIENT_LEFT.kind):
        async with asyncio.timeout(LINGER):
            while await raw.read(INPUT_PIECE):
                pass


async def _send(raw: RawStream, attachment: Attachment) -> None:
    tty = attachment.tty
    with contextlib.suppress(CLIENT_LEFT.kind, ConnectionError):
        async for frame in attachment.frames():
            raw.write(frames.encode(frame, tty=tty))
            await raw.drain()


async def _feed(raw: RawStream, attachment: Attachment, keys: bytes, *, stdin: bool) -> bool:
    """True when the client has detached or gone; False at end of input."""
    scanner = DetachKeys(keys) if keys else None
    while data := await raw.read(INPUT_PIECE):
        if not stdin:
            continue
        detached = False
        if scanner is not None and attachment.tty:
            data, detached = scanner.feed(data)
        if data:
            await attachment.write(data)
        if detached:
            return True
    if raw.closed:
        return True
    if stdin:
        await attachment.write_eof()
    return False


async def attach_websocket(call: Call) -> Answer:
    """Binary messages both ways, without frames: what a browser's terminal speaks."""
    request = call.request
    key = request.headers.get("sec-websocket-key")
    if request.headers.get("upgrade").lower() != "websocket" or not key:
        raise BAD_PARAMETER(cause="a websocket handshake is needed")
    query = _query(call)
    attachment = await call.engine.containers.attach(call.params["id"], query)
    socket = WebSocket(request.hijack(accept(key)))
    await _pump(socket, attachment, parse_detach_keys(call.text("detachKeys")), stdin=query.stdin)  # type: ignore[arg-type]
    return None


async def session(call: Call) -> Answer:
    raw = _upgraded(call)
    await call.engine.builds.serve_session(raw, dict(call.request.headers))
    return None


async def grpc(call: Call) -> Answer:
    await call.engine.builds.serve_grpc(_upgraded(call))
    return None


def _upgraded(call: Call) -> RawStream:
    if call.request.headers.get("upgrade").lower() != "h2c":
        raise BAD_PARAMETER(cause="this endpoint speaks HTTP/2 only: send Connection: Upgrade, Upgrade: h2c")
    return call.request.hijack(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
