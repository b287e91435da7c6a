"""Wires that are not the HTTP server's: a session inside a gRPC call (Control.Session carries its HTTP/2 as BytesMessages),
and a connection that speaks HTTP/2 at once."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque

from dockyard.errors import DockyardError
from dockyard.http import CLIENT_LEFT

from ...proto import rpc_pb2
from .http2 import MessageTooLarge, StreamLost
from .rpc import Call

__all__ = ["CallWire", "Outbox", "TransportWire"]

HIGH = 1 << 20


class Outbox(ABC):
    """The writing half of a wire whose bytes have to be awaited: written at once, sent one after the other."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._closed = False
        self._flushing: asyncio.Task[None] | None = None

    def write(self, data: bytes) -> None:
        if not self._closed:
            self._out += data
            if self._flushing is None or self._flushing.done():
                self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def drain(self) -> None:
        """Raises CLIENT_LEFT once the other side is gone."""
        while len(self._out) > HIGH and self._flushing is not None and not self._closed:
            await asyncio.shield(self._flushing)
        if self._closed:
            raise CLIENT_LEFT()

    async def _flush(self) -> None:
        try:
            while self._out and not self._closed:
                data = bytes(self._out)
                self._out.clear()
                await self._send(data)
        except (OSError, RuntimeError, StreamLost, DockyardError):  # RuntimeError: its threads have been shut down
            self._closed = True

    @abstractmethod
    async def _send(self, data: bytes) -> None: ...


class CallWire(Outbox):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    async def read(self, n: int = 65536) -> bytes:
        if self._closed:
            return b""
        try:
            while (message := await self._call.recv()) is not None:
                if data := rpc_pb2.BytesMessage.FromString(message).data:
                    return data
        except (StreamLost, MessageTooLarge):
            pass
        return b""

    async def _send(self, data: bytes) -> None:
        await self._call.send(rpc_pb2.BytesMessage(data=data))

    def close(self) -> None:
        self._closed = True


class TransportWire(asyncio.Protocol):
    """A connection that spoke HTTP/2 from its first byte (clients of Docker 29 and later, buildctl)."""

    def __init__(self, transport: asyncio.Transport, early: bytes) -> None:
        self._transport = transport
        self._chunks: deque[bytes] = deque([early])
        self._size = len(early)
        self._ended = False
        self._paused = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        transport.set_protocol(self)
        transport.resume_reading()

    async def read(self, n: int = 65536) -> bytes:
        while not self._chunks:
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = self._chunks.popleft()
        self._size -= len(data)
        if self._paused and self._size < HIGH // 2 and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        await self._room.wait()
        if self._ended:
            raise CLIENT_LEFT()

    def close(self) -> None:
        self._transport.close()

    # -- from the loop --

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._arrived.set()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._ended = True
        self._arrived.set()
        self._room.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()
