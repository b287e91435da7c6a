"""One connection: one request at a time, from its first byte to the last byte of its answer.

    head --(no body)--> wait --answered--> head ...        `wait`: bytes that arrive are kept, unparsed, bounded
      \\--(body)-> body --complete--> wait                  `raw` : hijacked, bytes go to the RawStream
                                       \\--hijack--> raw    `linger`, `gone`: what arrives is dropped

The handler is called as soon as the head is there. What it returns decides: a Response is written at once; anything
awaitable becomes the one task of this connection.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast

import httptools

from dockyard.errors import Cancelled, DockyardError
from dockyard.http.chunked import ChunkDecoder
from dockyard.http.errors import CLIENT_LEFT, REQUEST_TIMEOUT
from dockyard.http.raw import RawStream
from dockyard.http.request import Body, Headers, Peer, Request, peer_of
from dockyard.http.response import Answer, FileResponse, Response, StreamResponse
from dockyard.http.sendfile import lane, send_file

if TYPE_CHECKING:
    from dockyard.http.server import Server

_SMALL_FILE = 64 * 1024  # read inline and sent with its head in one write: cheaper than a visit to the lane
_TLS_HANDSHAKE = 0x16
"""First byte of a client that expects TLS: docker, skopeo and podman try it first and then wait ten seconds each time
for an end of the head that never comes, unless they are refused."""
_H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_BODY_READ = b"Connection: close\r\n"


class Connection(asyncio.Protocol):
    __slots__ = ("_advancing", "_body", "_chunked", "_closing", "_expect", "_fields", "_lasting", "_lost", "_need",
                 "_parser", "_paused", "_peer", "_pending", "_raw", "_request", "_room", "_state", "_streaming",
                 "_target", "_task", "_transport", "_whole", "limits", "server", "since")  # fmt: skip

    def __init__(self, server: Server) -> None:
        self.server = server
        self.limits = server.limits
        self.since = server.clock  # coarse time of the last progress; the sweep compares
        self._state = "head"
        self._pending = b""
        self._parser = httptools.HttpRequestParser(self)
        self._fields: list[tuple[bytes, bytes]] = []
        self._target = b""
        self._whole = False
        self._lasting = True
        self._advancing = False
        self._closing = False
        self._paused = False
        self._request: Request | None = None
        self._body: Body | None = None
        self._need = 0
        self._chunked: ChunkDecoder | None = None
        self._expect = False
        self._raw: RawStream | None = None
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[None] | None = None
        self._streaming = False
        self._peer: Peer | None = None

    # ---- from the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self.limits.write_ahead_bytes)
        self.server.opened(self)

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == "linger":
            return
        self.since = self.server.clock
        if state == "head":
            self._advance(self._pending + data if self._pending else data)
        elif state == "body":
            rest = self._take_body(data)
            if rest and self._state == "head":  # the answer was out before the body: what follows is the next request
                self._advance(rest)
            else:
                self._keep(rest)
        elif state == "wait":
            self._keep(data)
        elif self._raw is not None and state == "raw":
            self._raw.feed(data)

    def eof_received(self) -> bool:
        if self._raw is not None:
            self._raw.feed_eof()
            return True
        if self._request is None:
            return False
        # As Go's server: an end of input means that the client is gone. An answer at hand is still written.
        self._client_left()
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        self._state = "gone"
        self._wake_room()
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        self._client_left()
        if self._raw is not None:
            self._raw.lost()
        self.server.closed(self)

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        self.since = self.server.clock
        self._wake_room()

    def _wake_room(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # ---- from the parser

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_message_complete(self) -> None:
        self._whole = True
        self._lasting = self._parser.should_keep_alive()  # forgotten by llhttp after this call

    # ---- heads

    def _advance(self, data: bytes) -> None:
        """Take as many whole requests as may be taken now; a handler that answers at once lets the next one follow."""
        self._advancing = True
        while self._state == "head" and data:
            end = data.find(b"\r\n\r\n")
            if end < 0 or end > self.limits.head_bytes:
                if data[0] == _TLS_HANDSHAKE:
                    self._refuse(400)
                    return
                if len(data) <= self.limits.head_bytes:
                    break
                self._refuse(431 if b"\n" in data[: self.limits.line_bytes] else 414)
                return
            if len(data) == end + 4:
                head, data = data, b""
            else:
                head, data = data[: end + 4], data[end + 4 :]
            if not self._begin(head, data):
                self._advancing = False
                return
            if self._state == "body":
                data = self._take_body(data)
        self._advancing = False
        self._pending = b""
        if data:
            self._keep(data)

    def _begin(self, head: bytes, rest: bytes) -> bool:
        """Parse one head and call the handler. False when the connection is refused or given away."""
        if head == _H2_PREFACE[:18] and self.server.on_h2 is not None:
            return self._to_h2(head + rest)
        self._fields = []
        self._target = b""
        self._whole = False
        upgrade = False
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            upgrade = True
        except httptools.HttpParserError:
            self._refuse(400)
            return False
        if len(self._target) > self.limits.line_bytes:
            self._refuse(414)
            return False
        if not self._target:
            return True  # empty lines before a request line (RFC 9112 section 2.2)
        headers = Headers(self._fields)
        if (upgrade or not self._whole) and not self._begin_body(headers):
            self._refuse(400)
            return False
        method = self._parser.get_method().decode("latin-1")
        request = Request(self, method, self._target.decode("latin-1"), headers, self._body)
        request.keep_alive = self._lasting if self._whole else self._parser.should_keep_alive()
        if self._parser.get_http_version() != "1.1":
            request.version = self._parser.get_http_version()
        if upgrade or not self._whole:
            self._parser = httptools.HttpRequestParser(self)
        self._state = "wait" if self._body is None else "body"
        self._dispatch(request)
        return True

    def _begin_body(self, headers: Headers) -> bool:
        """Find the framing of the body; llhttp has refused ambiguous ones (both framings, repeated or bad lengths)."""
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if coding:
            if coding.lower() != "chunked":
                return False
            self._chunked = ChunkDecoder()
        elif not length or length == "0":
            return True  # an Upgrade without body
        elif not length.isascii() or not length.isdigit():
            return False
        else:
            self._need = int(length)
        self._body = Body(self)
        self._expect = headers.get("expect").lower() == "100-continue"
        return True

    def _to_h2(self, data: bytes) -> bool:
        assert self.server.on_h2 is not None
        self._state = "gone"
        self.forget()
        self.server.on_h2(self._transport, data)
        return False

    def _refuse(self, status: int) -> None:
        """An answer without a request: the head cannot be trusted, so nothing after it can."""
        self._state = "gone"
        self._advancing = False
        response = self.server.refusal(status)
        self._transport.write(
            b"".join((response.line, self.server.common, _NO_BODY_READ, response.block, b"\r\n", response.body))
        )
        self._transport.close()

    # ---- bodies

    def _take_body(self, data: bytes) -> bytes:
        """Feed the body; gives back what lies behind it."""
        body = self._body
        if body is None or body.complete:
            return data
        rest = b""
        if self._chunked is not None:
            try:
                payload, rest = self._chunked.feed(data)
            except DockyardError as error:
                self._body_broken(body, error)
                return b""
            if payload:
                body.feed(payload)
            done = self._chunked.complete
        else:
            if len(data) > self._need:
                data, rest = data[: self._need], data[self._need :]
            self._need -= len(data)
            if data:
                body.feed(data)
            done = self._need == 0
        if done:
            body.finish()
            self._body_complete()
        elif body.discarding:
            if body.size > self.limits.discard_bytes:
                self._linger()
        elif body.size > self.limits.read_ahead_bytes:
            self.pause_reading()
        return rest

    def _body_broken(self, body: Body, error: DockyardError) -> None:
        body.fail(error)
        self._state = "gone"
        if self._request is None:
            self._close()
        else:
            self._request.keep_alive = False

    def _body_complete(self) -> None:
        self._body = None
        self._chunked = None
        self._state = "wait"
        if self._request is None:
            self._ready()

    def body_wanted(self) -> None:
        """The reader waits for the first time: RFC 9110 section 10.1.1 wants the 100 now."""
        if self._expect:
            self._expect = False
            self._transport.write(_CONTINUE)

    def body_taken(self) -> None:
        if self._paused and (self._body is None or self._body.size <= self.limits.read_ahead_bytes // 2):
            self.resume_reading()

    def _keep(self, data: bytes) -> None:
        """Bytes of the next request, unparsed until it is their turn."""
        if data:
            self._pending += data
            if len(self._pending) > self.limits.read_ahead_bytes:
                self.pause_reading()

    def pause_reading(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # ---- answers

    def _dispatch(self, request: Request) -> None:
        self._request = request
        self.server.requests += 1
        try:
            answer = self.server.handler(request)
        except Exception as error:  # noqa: BLE001 - the border: the owner's hook turns it into an answer
            answer = self.server.failed(request, error)
        if type(answer) is Response:
            self._send(request, answer)
        else:
            self._task = self.server.spawn(self._answer(request, answer))

    async def _answer(self, request: Request, pending: Answer | Awaitable[Answer]) -> None:
        answer: Answer = None
        try:
            if pending is None or isinstance(pending, Response | StreamResponse | FileResponse):
                answer = pending
            else:
                answer = await pending
            await self._deliver(request, answer)
        except asyncio.CancelledError:
            self._abort()
            raise
        except Exception as error:  # noqa: BLE001 - the border: the owner's hook turns it into an answer
            self._answer_error(request, answer, error)
        finally:
            if isinstance(answer, FileResponse):
                answer.close()
            if isinstance(answer, StreamResponse):
                await _close_chunks(answer)
            self._task = None

    def _answer_error(self, request: Request, answer: Answer, error: Exception) -> None:
        if isinstance(error, Cancelled) and request.disconnected:
            self._abort()
            return
        response = self.server.failed(request, error)
        if answer is not None or self._raw is not None:  # its head is on the wire: only a cut says that it failed
            self._abort()
        else:
            self._send(request, response)

    async def _deliver(self, request: Request, answer: Answer) -> None:
        if isinstance(answer, Response):
            self._send(request, answer)
        elif isinstance(answer, StreamResponse):
            await self._send_stream(request, answer)
        elif isinstance(answer, FileResponse):
            await self._send_file(request, answer)
        elif self._raw is None:
            raise TypeError(f"handler of {request.method} {request.raw_path} gave no answer")
        elif not self._raw.detached:
            self._raw.close()

    def _head(self, request: Request, line: bytes, block: bytes, extra: bytes = b"") -> bytes:
        body = self._body
        if body is not None and (self._expect or (self._chunked is None and self._need > self.limits.discard_bytes)):
            request.keep_alive = False
        if not request.keep_alive or self._closing:
            extra += b"Connection: close\r\n"
        elif request.version != "1.1":
            extra += b"Connection: keep-alive\r\n"
        return b"".join((line, self.server.common, block, extra, b"\r\n"))

    def _send(self, request: Request, response: Response) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        body = response.body
        # Fast path: nothing unread, keep-alive, 1.1; one join, one write.
        if self._body is None and request.keep_alive and not self._closing and request.version == "1.1":
            if request.method == "HEAD":
                body = b""
            transport.write(b"".join((response.line, self.server.common, response.block, b"\r\n", body)))
        else:
            head = self._head(request, response.line, response.block)
            transport.write(head if request.method == "HEAD" else head + body)
        self._finish(request)

    async def _send_stream(self, request: Request, answer: StreamResponse) -> None:
        chunked = not answer.counted and request.version == "1.1"
        if not answer.counted and not chunked:
            request.keep_alive = False
        extra = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        if self._expect and answer.status < 400:
            self.body_wanted()  # the stream may read the body while it runs: its 100 must not come between two chunks
        write = self._transport.write
        write(self._head(request, answer.line, answer.block, extra))
        if request.method != "HEAD":
            self._streaming = True
            if request.disconnected:
                raise CLIENT_LEFT()
            async for chunk in answer.chunks:
                if not chunk:
                    continue
                write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                if self._room is not None:
                    await self.writable()
            self._streaming = False
            if chunked:
                write(b"0\r\n\r\n")
        self._finish(request)

    async def _send_file(self, request: Request, answer: FileResponse) -> None:
        head = self._head(request, answer.line, answer.block)
        transport = self._transport
        if request.method == "HEAD":
            transport.write(head)
        elif answer.count <= _SMALL_FILE:
            body = os.pread(answer.fd, answer.count, answer.offset)
            if len(body) != answer.count:
                raise EOFError("file is shorter than announced")
            transport.write(head + body)
        elif self.peer.tls:
            transport.write(head)
            await self._send_file_read(answer)
        else:
            transport.write(head)
            await self._flushed()
            self._lost = asyncio.get_running_loop().create_future()
            sock = transport.get_extra_info("socket")
            await send_file(sock.fileno(), answer.fd, answer.offset, answer.count, self._lost)
        self._finish(request)

    async def _send_file_read(self, answer: FileResponse) -> None:
        loop = asyncio.get_running_loop()
        offset, left = answer.offset, answer.count
        while left:
            piece = await loop.run_in_executor(lane(), os.pread, answer.fd, min(left, 256 * 1024), offset)
            if not piece:
                raise EOFError("file is shorter than announced")
            offset += len(piece)
            left -= len(piece)
            self._transport.write(piece)
            await self.writable()

    async def _flushed(self) -> None:
        """Until the transport holds nothing, so that another writer may use the socket."""
        transport = self._transport
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(high=0)  # calls pause_writing at once
            await self.writable()
            transport.set_write_buffer_limits(high=self.limits.write_ahead_bytes)

    async def writable(self) -> None:
        """Until the client took enough. Raises CLIENT_LEFT."""
        if self._room is not None:
            await asyncio.shield(self._room)
        if self._state == "gone" and self._transport.is_closing():
            raise CLIENT_LEFT()

    def _finish(self, request: Request) -> None:
        """The answer is written: the next request's turn, or the end."""
        self._request = None
        self.since = self.server.clock
        if not request.keep_alive or self._closing or request.disconnected or self._state == "gone":
            if self._body is None or request.disconnected:
                self._close()
            else:
                self._linger()
        elif self._body is not None:
            self._body.discard()
            self.resume_reading()
        else:
            self._ready()

    def _ready(self) -> None:
        self._state = "head"
        if self._paused:
            self.resume_reading()
        if not self._advancing and self._pending:
            data, self._pending = self._pending, b""
            self._advance(data)

    def _linger(self) -> None:
        """Close our half and drop what still comes, for a while: a reset would take the answer from the client."""
        self._state = "linger"
        self.since = self.server.clock
        self._body = None
        self.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _close(self) -> None:
        self._state = "gone"
        self._transport.close()

    def _abort(self) -> None:
        self._state = "gone"
        self._transport.abort()

    def _client_left(self) -> None:
        request = self._request
        if request is None:
            return
        request.client_left()
        if self._task is not None and self._streaming:
            self._task.cancel()

    # ---- hijack

    def hijack(self, head: bytes) -> RawStream:
        early, self._pending = self._pending, b""
        self._state = "raw"
        self._raw = RawStream(self, self._transport, early, self.limits.read_ahead_bytes)
        self.resume_reading()
        if head:
            self._transport.write(head)
        return self._raw

    def forget(self) -> None:
        """The transport belongs to another protocol now."""
        self.server.closed(self)

    # ---- from the server

    @property
    def peer(self) -> Peer:
        if self._peer is None:
            self._peer = peer_of(self._transport)
        return self._peer

    @property
    def idle(self) -> bool:
        return self._request is None and self._raw is None

    def sweep(self, now: float) -> None:
        """Once a second: close what has waited too long."""
        quiet = now - self.since
        limits = self.limits
        if self._raw is not None:
            return
        if self._state == "linger":
            if quiet > limits.linger_seconds:
                self._abort()
            return
        if self._request is None:
            if quiet > (limits.head_seconds if self._pending or self._body is not None else limits.idle_seconds):
                self._close()
        elif self._body is not None and self._body.waiting and quiet > limits.body_seconds:
            self._body.fail(REQUEST_TIMEOUT(seconds=int(limits.body_seconds), status=408))
            self._request.keep_alive = False
        elif self._room is not None and limits.write_seconds is not None and quiet > limits.write_seconds:
            self._abort()

    def shut(self) -> None:
        """The server closes: idle connections end now, the others after their answer."""
        self._closing = True
        if self.idle:
            self._close()

    def abort(self) -> None:
        self._abort()


async def _close_chunks(answer: StreamResponse) -> None:
    closing: Any = getattr(answer.chunks, "aclose", None)
    if closing is not None:
        await closing()
