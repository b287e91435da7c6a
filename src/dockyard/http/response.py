"""What a handler may answer."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from http import HTTPStatus

HeaderItems = Mapping[str, str] | Iterable[tuple[str, str]]

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_BODILESS = frozenset({204, 304})


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode()


def header_block(headers: HeaderItems) -> bytes:
    """Field lines with their CRLF. Raises ValueError for a value that would begin a line of its own."""
    items = headers.items() if isinstance(headers, Mapping) else headers
    lines = []
    for name, value in items:
        if "\n" in value or "\r" in value or "\0" in value:
            raise ValueError(f"header {name} has a line break in its value")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1", "replace")


def _names(block: bytes, name: bytes) -> bool:
    lowered = block.lower()
    return lowered.startswith(name + b":") or b"\n" + name + b":" in lowered


class Response:
    """Bytes at hand. Kept and answered again it is encoded once: the block is made when the object is.

    A Content-Length among the headers wins over the body's (answers to HEAD).
    """

    __slots__ = ("block", "body", "line", "status")

    def __init__(self, status: int = 200, headers: HeaderItems = (), body: bytes = b"") -> None:
        self.status = status
        self.body = body
        self.line = status_line(status)
        block = header_block(headers)
        if status not in _BODILESS and status >= 200 and not _names(block, b"content-length"):
            block += b"Content-Length: %d\r\n" % len(body)
        self.block = block


class StreamResponse:
    """Bytes to come. The head is on the wire before the first item is asked for; every item is flushed as one chunk.

    With a Content-Length among the headers the items are sent plain. The iterator is closed when the client leaves.
    """

    __slots__ = ("block", "chunks", "counted", "line", "status")

    def __init__(self, status: int, headers: HeaderItems, chunks: AsyncIterator[bytes]) -> None:
        self.status = status
        self.chunks = chunks
        self.line = status_line(status)
        self.block = header_block(headers)
        self.counted = _names(self.block, b"content-length")


class FileResponse:
    """Bytes on disk: `count` bytes from `offset` of a path or of an open descriptor (closed afterwards).

    Sent by the kernel (sendfile) when large and plain, read otherwise.
    """

    __slots__ = ("block", "count", "fd", "line", "offset", "status")

    def __init__(
        self, source: str | os.PathLike[str] | int, status: int = 200, headers: HeaderItems = (), *,
        offset: int = 0, count: int | None = None,
    ) -> None:  # fmt: skip
        self.fd = source if isinstance(source, int) else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        self.status = status
        self.offset = offset
        self.count = os.fstat(self.fd).st_size - offset if count is None else count
        self.line = status_line(status)
        self.block = header_block(headers) + b"Content-Length: %d\r\n" % self.count

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


Answer = Response | StreamResponse | FileResponse | None
"""None is allowed only after `Request.hijack`."""
