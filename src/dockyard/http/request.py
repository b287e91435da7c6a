"""What a client asks: head, peer, and a body that is read as it comes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from dockyard.errors import DockyardError
from dockyard.http.errors import BODY_NOT_READ, BODY_TOO_LARGE, CLIENT_LEFT

if TYPE_CHECKING:
    from dockyard.http.connection import Connection
    from dockyard.http.raw import RawStream


class Headers:
    """Header fields as received; names compare without case, the index is made at the first question."""

    __slots__ = ("_index", "raw")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self.raw = raw
        self._index: dict[str, str] | None = None

    def _fields(self) -> dict[str, str]:
        if self._index is None:
            index: dict[str, str] = {}
            for name, value in self.raw:
                key, text = name.decode("latin-1").lower(), value.decode("latin-1")
                index[key] = f"{index[key]}, {text}" if key in index else text  # RFC 9110 section 5.3
            self._index = index
        return self._index

    def get(self, name: str, default: str = "") -> str:
        return self._fields().get(name.lower(), default)

    def all(self, name: str) -> list[str]:
        """Every field line of that name on its own."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.raw if key.lower() == wanted]

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._fields()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields().items())


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. pid/uid/gid only on a unix socket, certificate only with a verified TLS client."""

    address: str
    port: int = 0
    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    certificate: dict[str, Any] | None = None
    tls: bool = False


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    sock = transport.get_extra_info("socket")
    tls = transport.get_extra_info("ssl_object") is not None
    if sock is not None and sock.family == socket.AF_UNIX:
        pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Peer("@", 0, pid, uid, gid)
    name = transport.get_extra_info("peername") or ("", 0)
    return Peer(str(name[0]), int(name[1]), certificate=transport.get_extra_info("peercert") or None, tls=tls)


class Body:
    """Bytes between the socket and their one reader. The connection feeds, `next` takes."""

    __slots__ = ("_chunks", "_connection", "_error", "_waiter", "complete", "discarding", "size")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: DockyardError | None = None
        self.size = 0  # bytes that wait; while discarding: bytes thrown away
        self.complete = False
        self.discarding = False

    @property
    def waiting(self) -> bool:
        return self._waiter is not None

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        if not self.discarding:
            self._chunks.append(data)
            self._wake()

    def finish(self) -> None:
        self.complete = True
        self._wake()

    def fail(self, error: DockyardError) -> None:
        if self._error is None and not self.complete:
            self._error = error
            self._wake()

    def discard(self) -> None:
        self.discarding = True
        self._chunks.clear()
        self.size = 0

    async def next(self) -> bytes:
        """The next piece, b"" at the end."""
        if not self._chunks and not self.complete and self._error is None:
            self._connection.body_wanted()
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._chunks.popleft()
        self.size -= len(data)
        self._connection.body_taken()
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Request:
    """One request. `target` is what was on the line; in `path`, which is decoded, %2F cannot be told from /."""

    __slots__ = ("_body", "_callbacks", "_connection", "_path", "_query", "disconnected", "headers", "keep_alive",
                 "method", "state", "target", "version")  # fmt: skip

    def __init__(self, connection: Connection, method: str, target: str, headers: Headers, body: Body | None) -> None:
        self._connection = connection
        self.method = method
        self.target = target
        self.headers = headers
        self._body = body
        self.version = "1.1"
        self.keep_alive = True
        self.disconnected = False
        self.state: Any = None
        """For the owner: whatever its middle layers want to hand down."""
        self._path: str | None = None
        self._query: dict[str, list[str]] | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def raw_path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def path(self) -> str:
        if self._path is None:
            raw = self.raw_path
            self._path = unquote(raw) if "%" in raw else raw
        return self._path

    @property
    def query(self) -> dict[str, list[str]]:
        if self._query is None:
            text = self.target.partition("?")[2]
            self._query = parse_qs(text, keep_blank_values=True) if text else {}
        return self._query

    def query_get(self, name: str, default: str = "") -> str:
        values = self.query.get(name)
        return values[0] if values else default

    @property
    def peer(self) -> Peer:
        return self._connection.peer

    @property
    def has_body(self) -> bool:
        return self._body is not None

    async def stream(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they arrive; the socket rests while the reader is behind. Raises CLIENT_LEFT."""
        if self._body is not None:
            while data := await self._body.next():
                yield data

    async def body(self, limit: int | None = None) -> bytes:
        """The whole body. Raises BODY_TOO_LARGE, CLIENT_LEFT."""
        bound = self._connection.limits.body_bytes if limit is None else limit
        if self._body is None:
            return b""
        declared = self.headers.get("content-length")
        if declared.isdigit() and int(declared) > bound:  # known before a byte of it has come
            raise BODY_TOO_LARGE(limit=bound, status=413)
        pieces: list[bytes] = []
        size = 0
        while data := await self._body.next():
            size += len(data)
            if size > bound:
                raise BODY_TOO_LARGE(limit=bound, status=413)
            pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Called once when the client leaves before its answer is complete; at once if it is gone already."""
        if self.disconnected:
            callback()
        else:
            self._callbacks.append(callback)

    def client_left(self) -> None:
        """By the connection only."""
        if self.disconnected:
            return
        self.disconnected = True
        if self._body is not None:
            self._body.fail(CLIENT_LEFT())
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def hijack(self, head: bytes) -> RawStream:
        """Send `head` (status line, headers, empty line) and take the connection over.

        The handler returns None afterwards; the stream is closed then unless it was detached.
        """
        if self._body is not None and not self._body.complete:
            raise BODY_NOT_READ()
        return self._connection.hijack(head)
