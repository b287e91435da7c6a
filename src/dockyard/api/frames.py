"""Docker's multiplexed stream: 8 bytes (type, 0, 0, 0, length big-endian), then the data. TTY streams are raw."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator

from dockyard.model.exchange import Frame

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"

_head = struct.Struct(">BxxxI")


def content_type(version: tuple[int, int], *, tty: bool, upgraded: bool) -> str:
    """The multiplexed type exists since API 1.42, for streams that are, on connections that were upgraded."""
    return MULTIPLEXED if version >= (1, 42) and not tty and upgraded else RAW


def encode(frame: Frame, *, tty: bool) -> bytes:
    return frame.data if tty else _head.pack(frame.stream, len(frame.data)) + frame.data


async def encoded(frames: AsyncIterator[Frame], *, tty: bool) -> AsyncIterator[bytes]:
    async for frame in frames:
        yield encode(frame, tty=tty)
