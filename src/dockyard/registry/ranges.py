"""Range requests (RFC 9110 section 14): one or several, as containers/image asks for parts of zstd:chunked layers."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable

from dockyard.registry.errors import RANGE_INVALID

_RANGES_MAX = 256  # containers/image merges ranges until they are fewer than this many


def parse_ranges(header: str, size: int) -> list[tuple[int, int]] | None:
    """[(first, end exclusive)], None when there is nothing to honour. Raises RANGE_INVALID."""
    unit, equals, text = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    found = []
    specs = text.split(",")
    if len(specs) > _RANGES_MAX:
        raise RANGE_INVALID(range=f"more than {_RANGES_MAX} ranges", size=size)
    for spec in specs:
        first, dash, last = spec.strip().partition("-")
        if not dash or not (first or last) or not all(part == "" or _number(part) for part in (first, last)):
            return None
        if not first:
            begin, end = max(0, size - int(last)), size
        else:
            begin, end = int(first), min(int(last) + 1, size) if last else size
            if last and int(last) < begin:
                raise RANGE_INVALID(range=spec, size=size)
        if begin < end:
            found.append((begin, end))
    if not found:
        raise RANGE_INVALID(range=text[:100], size=size)
    return found


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def multipart(
    ranges: list[tuple[int, int]], size: int, read: Callable[[int, int], AsyncIterator[bytes]]
) -> tuple[dict[str, str], AsyncIterator[bytes]]:
    """Headers and body of a multipart/byteranges answer."""
    boundary = secrets.token_hex(16)

    def head(begin: int, end: int) -> bytes:
        return (
            f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Range: bytes {begin}-{end - 1}/{size}\r\n\r\n"
        ).encode()

    async def body() -> AsyncIterator[bytes]:
        for begin, end in ranges:
            yield head(begin, end)
            async for data in read(begin, end - begin):
                yield data
        yield f"\r\n--{boundary}--\r\n".encode()

    length = sum(len(head(b, e)) + e - b for b, e in ranges) + len(boundary) + 8
    return {"Content-Type": f"multipart/byteranges; boundary={boundary}", "Content-Length": str(length)}, body()
