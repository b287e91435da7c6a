"""HTTP/2 on a wire, either side, carrying length-prefixed messages (gRPC's framing) and nothing else.

Flow control is the memory bound: a stream's window is opened again only when its reader has taken what came, except for
the part of one unfinished message, which is bounded by ``MAX_MESSAGE``. The connection's own window is opened at once,
so that a stream nobody reads never stops the others. h2 does the framing and its checks (header sizes, continuation
floods); we bound the number of handlers that run or still end, so that a flood of resets gains nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)  # fmt: skip
from h2.exceptions import H2Error, StreamClosedError
from h2.settings import SettingCodes, Settings

from dockyard.errors import DockyardError

__all__ = ["MAX_MESSAGE", "Connection", "Headers", "MessageTooLarge", "Stream", "StreamLost", "Wire"]

Headers = list[tuple[str, str]]

MAX_MESSAGE = 16 << 20
"""Bytes of one message, as grpc-go's containerd default."""
WINDOW = 1 << 20
"""Bytes of one stream that may wait for their reader."""
CONNECTION_WINDOW = 16 << 20
MAX_STREAMS = 128
MAX_HEADER_LIST = 256 << 10  # include patterns of a context travel as headers
MAX_FRAME = 256 << 10
READ_SIZE = 256 << 10
CLOSE_LIMIT = 10.0
"""Seconds that handlers of a lost connection get to end."""


class Wire(Protocol):
    """``dockyard.http.RawStream``, or anything like it."""

    async def read(self, n: int = ...) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


class StreamLost(Exception):
    """Reset by the peer, or the connection is gone."""


class MessageTooLarge(Exception):
    pass


class Stream:
    """One exchange. Messages in order, ``recv`` gives None after the last."""

    def __init__(self, connection: Connection, number: int, headers: Headers) -> None:
        self.connection, self.number, self.headers = connection, number, headers
        self.trailers: Headers = []
        self.ended = False
        """The peer will send no more."""
        self.refused = False
        """Nor will it take any more."""
        self.error: Exception | None = None
        self.unreadable: MessageTooLarge | None = None
        """What comes is not taken any more; we can still answer."""
        self.task: asyncio.Task[None] | None = None
        """Serves it; cancelled when the peer resets."""
        self._messages: deque[bytes] = deque()
        self._queued = 0
        self._partial = bytearray()
        self._unopened = 0
        self._sent_end = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._sending = asyncio.Lock()

    async def recv(self) -> bytes | None:
        """Raises StreamLost or MessageTooLarge (after what came before it)."""
        while not self._messages:
            if self.error is not None:
                raise self.error
            if self.unreadable is not None:
                raise self.unreadable
            if self.ended:
                if self._partial:
                    raise StreamLost("the last message is not whole")
                return None
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._queued -= len(message) + 5
        if self._unopened and self._queued <= WINDOW // 2:
            self._open_window()
        return message

    async def headers_arrived(self) -> None:
        """For the side that asked: until the answer's head is there. Raises StreamLost."""
        while not self.headers and self.error is None:
            self._arrived.clear()
            await self._arrived.wait()
        if self.error is not None:
            raise self.error

    async def send(self, *messages: bytes) -> None:
        """Raises StreamLost. Waits while the peer has no room."""
        framed = b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)
        async with self._sending:
            view = memoryview(framed)
            h2 = self.connection.h2
            while view:
                self._check()
                if self.refused:
                    raise StreamLost("the peer has answered and takes no more")
                try:
                    size = min(h2.local_flow_control_window(self.number), h2.max_outbound_frame_size)
                    if size > 0:
                        h2.send_data(self.number, bytes(view[:size]))
                except H2Error as error:
                    raise StreamLost(f"the peer closed the stream: {error}") from None
                if size <= 0:
                    self._room.clear()
                    self.connection.flush()
                    await self._room.wait()
                    continue
                view = view[size:]
            self.connection.flush()
        await self.connection.drain()

    def send_headers(self, headers: Headers, *, end: bool = False) -> None:
        self._check()
        self._sent_end = self._sent_end or end
        self.connection.h2.send_headers(self.number, headers, end_stream=end)
        self.connection.flush()

    def end(self) -> None:
        """No more messages from us."""
        if self._sent_end or self.error is not None:
            return
        self._sent_end = True
        with contextlib.suppress(StreamClosedError):
            self.connection.h2.end_stream(self.number)
            self.connection.flush()

    def reset(self, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Nothing more in either direction."""
        if not self.connection.closed and not (self.ended and self._sent_end):
            with contextlib.suppress(H2Error):
                self.connection.h2.reset_stream(self.number, code)
                self.connection.flush()
        self.lost(StreamLost("ended by us"))

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _open_window(self) -> None:
        amount, self._unopened = self._unopened, 0
        if not self.ended and self.error is None:
            with contextlib.suppress(H2Error):
                self.connection.h2.increment_flow_control_window(amount, self.number)
                self.connection.flush()

    # by the connection only

    def feed(self, data: bytes, counted: int) -> None:
        self._unopened += counted
        if self.error is not None or self.unreadable is not None:
            return
        if not self._partial:
            rest = self._take(data)
            self._partial += rest
        else:
            self._partial += data
            if len(self._partial) >= 5 and len(self._partial) >= 5 + int.from_bytes(self._partial[1:5], "big"):
                rest = self._take(bytes(self._partial))
                self._partial = bytearray(rest)
            else:
                self._announced(self._partial)
        if self._queued <= WINDOW and self._unopened >= WINDOW // 4:
            self._open_window()
        self._arrived.set()

    def _take(self, data: bytes) -> bytes:
        """Whole messages into the queue; gives back what is left."""
        position, length = 0, len(data)
        while length - position >= 5:
            size = int.from_bytes(data[position + 1 : position + 5], "big")
            if data[position] or size > MAX_MESSAGE:
                self._announced(data[position:])
                return b""
            end = position + 5 + size
            if end > length:
                break
            self._messages.append(data[position + 5 : end])
            self._queued += size + 5
            position = end
        return data[position:]

    def _announced(self, head: bytes | bytearray) -> None:
        if len(head) >= 5:
            size = int.from_bytes(head[1:5], "big")
            if head[0] or size > MAX_MESSAGE:
                what = "a compressed message" if head[0] else f"a message of {size} bytes"
                self.unreadable = MessageTooLarge(
                    f"{what} is not accepted; the limit is {MAX_MESSAGE} bytes, uncompressed"
                )
                self._partial.clear()

    def feed_end(self) -> None:
        self.ended = True
        self._arrived.set()

    def opened(self) -> None:
        self._room.set()

    def lost(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
        self._arrived.set()
        self._room.set()

    @property
    def finished(self) -> bool:
        return self._sent_end


Accept = Callable[[Stream], Awaitable[None]]


class Connection:
    """``accept`` serves one stream; None for the asking side. ``run`` ends with the wire."""

    def __init__(self, wire: Wire, *, accept: Accept | None = None) -> None:
        self.wire = wire
        self.accept = accept
        client = accept is None
        self.h2 = H2Connection(H2Configuration(client_side=client, header_encoding=None))
        self.h2.local_settings = Settings(client, {
            SettingCodes.INITIAL_WINDOW_SIZE: WINDOW, SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
            SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS, SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
        } | ({SettingCodes.ENABLE_PUSH: 0} if client else {}))  # fmt: skip
        self.h2.max_inbound_frame_size = MAX_FRAME
        self.h2.decoder.max_header_list_size = MAX_HEADER_LIST
        self.streams: dict[int, Stream] = {}
        self.closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._unopened = 0

    def start(self) -> None:
        """Our preface; before the first ``open``."""
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(CONNECTION_WINDOW)
        self.flush()

    async def run(self) -> None:
        try:
            while not self.closed:
                data = await self.wire.read(READ_SIZE)
                if not data:
                    break
                for event in self.h2.receive_data(data):
                    self._handle(event)
                self.flush()
                await self.drain()
        except (H2Error, DockyardError, ConnectionError, StreamLost):
            self.flush()  # the GOAWAY that h2 has prepared, if the peer still listens
        finally:
            await self._end()

    def open(self, headers: Headers) -> Stream:
        """Asking side: a new stream with its head sent. Raises StreamLost."""
        if self.closed:
            raise StreamLost("the connection is gone")
        number = self.h2.get_next_available_stream_id()
        stream = Stream(self, number, [])
        self.streams[number] = stream
        try:
            self.h2.send_headers(number, headers)
        except H2Error as error:
            self.streams.pop(number, None)
            raise StreamLost(str(error)) from None
        self.flush()
        return stream

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and not self.closed:
            self.wire.write(data)

    async def drain(self) -> None:
        """Raises StreamLost."""
        try:
            await self.wire.drain()
        except (DockyardError, ConnectionError) as error:
            raise StreamLost(str(error)) from None

    def close(self) -> None:
        """Tells the peer and lets go; ``run`` then ends."""
        if not self.closed:
            with contextlib.suppress(H2Error):
                self.h2.close_connection()
            self.flush()
            self.closed = True
            self.wire.close()

    def forget(self, stream: Stream) -> None:
        self.streams.pop(stream.number, None)

    def _handle(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._data(event)
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            self._opened(event)
        elif isinstance(event, RequestReceived):
            self._begin(event)
        elif isinstance(event, ConnectionTerminated):
            self.closed = True
            self.wire.close()
        else:
            self._on_stream(event)

    def _on_stream(self, event: Event) -> None:
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
        if stream is None:
            return
        if isinstance(event, ResponseReceived):
            stream.headers = _decoded(event.headers)
            stream.opened()
            stream._arrived.set()
        elif isinstance(event, TrailersReceived):
            stream.trailers = _decoded(event.headers)
        elif isinstance(event, StreamEnded):
            stream.feed_end()
        elif isinstance(event, StreamReset) and (self.accept is not None or not stream.ended):
            # Not on a whole answer: Go ends a stream whose asking half is still open with RST_STREAM(NO_ERROR).
            stream.lost(StreamLost(f"reset by the peer ({event.error_code})"))
            if stream.task is not None:
                stream.task.cancel()
        elif isinstance(event, StreamReset):
            stream.refused = True
            stream.opened()

    def _data(self, event: DataReceived) -> None:
        counted = event.flow_controlled_length or 0
        self._unopened += counted
        if self._unopened >= CONNECTION_WINDOW // 4:
            amount, self._unopened = self._unopened, 0
            self.h2.increment_flow_control_window(amount)
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None:
            stream.feed(event.data or b"", counted)

    def _opened(self, event: Event) -> None:
        number = getattr(event, "stream_id", 0)
        if number:
            if number in self.streams:
                self.streams[number].opened()
            return
        for stream in self.streams.values():
            stream.opened()

    def _begin(self, event: RequestReceived) -> None:
        number = event.stream_id or 0
        if self.accept is None or len(self._tasks) >= 2 * MAX_STREAMS:
            self.close()
            return
        stream = Stream(self, number, _decoded(event.headers))
        self.streams[number] = stream
        stream.task = asyncio.get_running_loop().create_task(self._serve(stream))
        self._tasks.add(stream.task)
        stream.task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: Stream) -> None:
        assert self.accept is not None
        try:
            await self.accept(stream)
        finally:
            self.forget(stream)

    async def _end(self) -> None:
        self.closed = True
        self.wire.close()
        for stream in list(self.streams.values()):
            stream.lost(StreamLost("the connection is gone"))
        self.streams.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_LIMIT)


def _decoded(headers: Sequence[tuple[Any, Any]] | None) -> Headers:
    return [(_text(name), _text(value)) for name, value in headers or ()]


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
