"""A connection that was taken over: bytes both ways, each way closable on its own."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from dockyard.http.errors import CLIENT_LEFT

if TYPE_CHECKING:
    from dockyard.http.connection import Connection


class RawStream:
    """`read` sees the client's shutdown(SHUT_WR) as b"" while writing goes on; `write_eof` is our half."""

    __slots__ = ("_buffer", "_connection", "_eof", "_limit", "_lost", "_size", "_waiter", "detached", "transport")

    def __init__(self, connection: Connection, transport: asyncio.Transport, early: bytes, limit: int) -> None:
        self._connection = connection
        self.transport = transport
        self._buffer: deque[bytes] = deque([early] if early else [])
        self._size = len(early)
        self._limit = limit
        self._eof = False
        self._lost = asyncio.Event()
        self._waiter: asyncio.Future[None] | None = None
        self.detached = False

    async def read(self, n: int = 65536) -> bytes:
        """1..n bytes, b"" at the end of the client's direction."""
        while not self._buffer:
            if self._eof:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._buffer.popleft()
        if len(data) > n:
            self._buffer.appendleft(data[n:])
            data = data[:n]
        self._size -= len(data)
        if self._size <= self._limit:
            self._connection.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        """Never waits; a client that is gone swallows it (drain tells)."""
        if not self._lost.is_set():
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the client took enough. Raises CLIENT_LEFT."""
        if self._lost.is_set():
            raise CLIENT_LEFT()
        await self._connection.writable()

    def write_eof(self) -> None:
        """Half close; over TLS there is no half, so the whole connection is closed once flushed."""
        if self._lost.is_set() or self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def close(self) -> None:
        self.transport.close()

    @property
    def closed(self) -> bool:
        return self._lost.is_set()

    async def wait_closed(self) -> None:
        """Until the connection is gone in both directions."""
        await self._lost.wait()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Give the transport to another protocol (set_protocol), with the bytes that arrived already."""
        self.detached = True
        early = b"".join(self._buffer)
        self._buffer.clear()
        self._size = 0
        self._connection.resume_reading()
        self._connection.forget()
        return self.transport, early

    # by the connection only

    def feed(self, data: bytes) -> None:
        self._buffer.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self._connection.pause_reading()
        self._wake()

    def feed_eof(self) -> None:
        self._eof = True
        self._wake()

    def lost(self) -> None:
        self._lost.set()
        self.feed_eof()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
