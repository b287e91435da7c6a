"""Sparse members of tar: GNU's old 'S' headers and its three PAX forms. The specification advises against them in
layers; ``docker export`` of a sparse file through other tools still makes them."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import BAD_TAR
from .tar import BLOCK, MAX_SIZE, MAX_SPARSE_SEGMENTS, REG, Buffer, TarHeader, _number, _padded

Pairs = list[tuple[int, int]]


def read_sparse(
    data: Buffer, header: TarHeader, body: int, pax: Mapping[str, bytes], stored: int
) -> tuple[TarHeader, int]:
    """The member with its segments and true size, and the position of the next one. Raises InvalidParameter for a map
    that overlaps, runs past its file or is longer than MAX_SPARSE_SEGMENTS (CVE-2025-58183)."""
    following = body + _padded(stored)
    name = pax.get("GNU.sparse.name", header.name)
    if header.type == "S":
        pairs, size, start = _old_map(data, body)
        following = start + _padded(stored)
    elif "GNU.sparse.major" in pax and pax["GNU.sparse.major"] == b"1":
        size = _integer(pax.get("GNU.sparse.realsize", b""))
        pairs, start = _inline_map(data, body, following)
    else:
        size = _integer(pax.get("GNU.sparse.size", pax.get("GNU.sparse.realsize", b"")))
        numbers = [_integer(item) for item in pax.get("GNU.sparse.map", b"").split(b",") if item]
        pairs, start = list(zip(numbers[::2], numbers[1::2], strict=False)), body
    segments = _check(pairs, size, start, following)
    return header._replace(name=name, type=REG, size=size, offset=start, segments=segments), following


def _integer(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 16:
        raise BAD_TAR(cause="invalid sparse map")
    return int(raw)


def _old_map(data: Buffer, body: int) -> tuple[Pairs, int, int]:
    block = data[body - BLOCK : body]
    size, pairs, more = _number(block[483:495]), _take(block[386:482]), block[482]
    while more:
        block = data[body : body + BLOCK]
        if len(block) < BLOCK or len(pairs) > MAX_SPARSE_SEGMENTS:
            raise BAD_TAR(cause="invalid sparse map")
        pairs += _take(block[:504])
        more, body = block[504], body + BLOCK
    return pairs, size, body


def _take(raw: bytes) -> Pairs:
    fields = [raw[n : n + 24] for n in range(0, len(raw), 24)]
    return [(_number(item[:12]), _number(item[12:])) for item in fields if item[0]]


def _inline_map(data: Buffer, body: int, end: int) -> tuple[Pairs, int]:
    """PAX form 1.0: decimal lines before the data, padded to a block."""
    window = data[body : min(end, body + MAX_SPARSE_SEGMENTS * 2 * 18)]
    first, _, _ = window[:20].partition(b"\n")
    count = _integer(first)
    if count > MAX_SPARSE_SEGMENTS:
        raise BAD_TAR(cause="invalid sparse map")
    lines = window.split(b"\n", 2 * count + 1)
    if len(lines) < 2 * count + 2:
        raise BAD_TAR(cause="invalid sparse map")
    numbers = [_integer(line) for line in lines[1 : 2 * count + 1]]
    used = sum(len(line) + 1 for line in lines[: 2 * count + 1])
    return list(zip(numbers[::2], numbers[1::2], strict=True)), body + _padded(used)


def _check(pairs: Pairs, size: int, start: int, end: int) -> tuple[tuple[int, int, int], ...]:
    if len(pairs) > MAX_SPARSE_SEGMENTS or not 0 <= size <= MAX_SIZE:
        raise BAD_TAR(cause="invalid sparse map")
    segments, reached, position = [], 0, start
    for offset, length in pairs:
        if offset < reached or length < 0 or offset + length > size or position + length > end:
            raise BAD_TAR(cause="invalid sparse map")
        if length:
            segments.append((offset, position, length))
        reached, position = offset + length, position + length
    return tuple(segments)
