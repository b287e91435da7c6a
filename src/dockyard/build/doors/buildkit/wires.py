"""A wire inside a gRPC call: Control.Session carries the session's HTTP/2 as BytesMessages."""

from __future__ import annotations

import asyncio

from dockyard.http import CLIENT_LEFT

from ...proto import rpc_pb2
from .http2 import MessageTooLarge, StreamLost
from .rpc import Call

__all__ = ["CallWire"]

HIGH = 1 << 20


class CallWire:
    def __init__(self, call: Call) -> None:
        self._call = call
        self._out = bytearray()
        self._closed = False
        self._writing = asyncio.Lock()
        self._flushing: asyncio.Task[None] | None = None

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

    def write(self, data: bytes) -> None:
        if not self._closed:
            self._out += data
            if self._flushing is None or self._flushing.done():
                self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def drain(self) -> None:
        while len(self._out) > HIGH and self._flushing is not None and not self._closed:
            await asyncio.shield(self._flushing)
        if self._closed:
            raise CLIENT_LEFT()

    def close(self) -> None:
        self._closed = True

    async def _flush(self) -> None:
        try:
            while self._out and not self._closed:
                data = bytes(self._out)
                self._out.clear()
                await self._call.send(rpc_pb2.BytesMessage(data=data))
        except StreamLost:
            self._closed = True
