"""The little of RFC 6455 that attach needs: unfragmented or fragmented data in, binary messages out, ping and close."""

from __future__ import annotations

import base64
import hashlib
import struct

from dockyard.http import RawStream

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MAX_MESSAGE = 1 << 20
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10


def accept(key: str) -> bytes:
    """The head of the answer to a handshake with ``Sec-WebSocket-Key: key``."""
    digest = base64.b64encode(hashlib.sha1(key.encode("latin-1", "replace") + _GUID).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {digest}\r\n\r\n"
    ).encode()


class WebSocket:
    """Has the face of a RawStream, so that one pump serves both."""

    def __init__(self, raw: RawStream) -> None:
        self._raw = raw
        self._buffer = bytearray()

    @property
    def closed(self) -> bool:
        return self._raw.closed

    async def read(self, n: int = 0) -> bytes:
        """Payload of the next data message; b"" at close, at a broken frame, or when the client has gone."""
        while True:
            header = await self._exactly(2)
            if len(header) < 2:
                return b""
            operation, masked, length = header[0] & 15, header[1] & 128, header[1] & 127
            if length > 125:
                extended = await self._exactly(2 if length == 126 else 8)
                length = int.from_bytes(extended, "big")
            if length > MAX_MESSAGE or not masked:  # RFC 6455 5.1: a client masks every frame
                return b""
            mask = await self._exactly(4)
            data = await self._exactly(length)
            if len(mask) < 4 or len(data) < length:
                return b""
            payload = bytes(byte ^ mask[index & 3] for index, byte in enumerate(data))
            if operation == _CLOSE:
                self._frame(_CLOSE, payload[:2])
                return b""
            if operation == _PING:
                self._frame(_PONG, payload)
            elif operation in {_CONTINUATION, _TEXT, _BINARY} and payload:
                return payload

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            piece = await self._raw.read()
            if not piece:
                break
            self._buffer += piece
        out = bytes(self._buffer[:count])
        del self._buffer[:count]
        return out

    def write(self, data: bytes) -> None:
        self._frame(_BINARY, data)

    def _frame(self, operation: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", 128 | operation, size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", 128 | operation, 126, size)
        else:
            head = struct.pack(">BBQ", 128 | operation, 127, size)
        self._raw.write(head + data)

    async def drain(self) -> None:
        await self._raw.drain()

    def write_eof(self) -> None:
        self._frame(_CLOSE, struct.pack(">H", 1000))
        self._raw.write_eof()
