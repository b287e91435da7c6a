"""Docker's stdout/stderr framing and its streams of JSON objects, as pure incremental decoders.

A frame (``application/vnd.docker.multiplexed-stream``)::

    byte 0        1 2 3    4 5 6 7            8 ...
    stream        zero     length, big end    payload
    0 stdin 1 stdout 2 stderr 3 daemon error
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

STDIN, STDOUT, STDERR, SYSTEMERR = 0, 1, 2, 3
HEADER = 8
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"


class Frame(NamedTuple):
    stream: int
    data: bytes


def encode(stream: int, data: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def decode(pieces: Iterable[bytes]) -> Iterator[Frame]:
    """Frames of a byte stream cut anywhere. A frame cut off by the end of the stream is given as far as it came.

    Payload is passed on as it arrives (a 4 GiB frame is never held whole), so one frame can come in several parts.
    """
    buffer = bytearray()
    stream, left = 0, 0
    for piece in pieces:
        buffer += piece
        while buffer:
            if left == 0:
                if len(buffer) < HEADER:
                    break
                stream, left = buffer[0], int.from_bytes(buffer[4:8], "big")
                del buffer[:HEADER]
                continue
            part = bytes(buffer[:left])
            del buffer[: len(part)]
            left -= len(part)
            yield Frame(stream, part)


def objects(pieces: Iterable[bytes]) -> Iterator[Any]:
    """JSON values of a byte stream, one per line or simply concatenated. Raises ValueError on what is not JSON.

    dockerd ends each with CRLF (progress) or LF (events, stats); other engines put nothing between.
    """
    decoder = json.JSONDecoder()
    buffer = b""
    for piece in pieces:
        buffer += piece
        if b"\n" not in piece and not piece.rstrip().endswith(b"}"):
            continue
        buffer = yield from _drain(decoder, buffer)
    rest = buffer.strip()
    if rest:
        yield json.loads(rest)


def _drain(decoder: json.JSONDecoder, buffer: bytes) -> Generator[Any, None, bytes]:
    """Yield the whole values; return what is left undecoded."""
    try:
        text = buffer.decode()
    except UnicodeDecodeError:
        return buffer  # a character cut in two: wait for the other half
    position = 0
    while True:
        while position < len(text) and text[position] in " \r\n\t":
            position += 1
        if position == len(text):
            return b""
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError:
            if "\n" in text[position:].rstrip():
                raise
            return text[position:].encode()
        yield value
