"""Lines of containers' output, from their logs or as it comes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from dockyard.client import STDOUT, Client, Frame, quote
from dockyard.compose.observe import Container

Json = dict[str, Any]
MAX_LINE = 1 << 20
"""Bytes of a line that are held; a longer one is cut in pieces."""


class Line(NamedTuple):
    """``stream``: 1 stdout, 2 stderr. ``time``: RFC 3339, "" when it was not asked for. ``text`` without its newline."""

    container: str
    stream: int
    time: str
    text: str


def split(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Whole lines of frames that are cut anywhere, each stream by itself; the last may lack its newline."""
    rest: dict[int, bytearray] = {}
    for stream, data in frames:
        buffer = rest.setdefault(stream, bytearray())
        buffer += data
        while (end := buffer.find(b"\n")) >= 0 or len(buffer) > MAX_LINE:
            cut = end + 1 if end >= 0 else MAX_LINE
            yield Frame(stream, bytes(buffer[:cut]))
            del buffer[:cut]
    for stream, buffer in rest.items():
        if buffer:
            yield Frame(stream, bytes(buffer))


def lines(name: str, frames: Iterable[Frame], *, timed: bool = False) -> Iterator[Line]:
    """``timed``: each line begins with its time, as the engine writes with ``timestamps``."""
    for stream, data in split(frames):
        text = data.decode("utf-8", "replace").rstrip("\r\n")
        time, _, text = text.partition(" ") if timed else ("", "", text)
        yield Line(name, stream, time, text)


def read(client: Client, container: Container, query: Json, *, tty: bool | None = None) -> Iterator[Line]:
    """Lines of the engine's log, each with its time. ``query``: follow, since, until, tail. Raises the engine's refusals."""
    if tty is None:
        tty = bool(client.request("GET", f"/containers/{quote(container.id)}/json")["Config"].get("Tty"))
    asked = {"stdout": True, "stderr": True, "timestamps": True, **query}
    with client.open("GET", f"/containers/{quote(container.id)}/logs", asked) as answer:
        answer.settimeout(None)
        yield from lines(container.name, answer.frames(tty=tty), timed=True)


def merged(sources: Iterable[Iterator[Line]]) -> Iterator[Line]:
    """Lines of several containers in the order of their times."""
    return heapq.merge(*sources, key=lambda line: line.time)


def attached(client: Client, container: str, name: str, *, tty: bool) -> tuple[Any, Iterator[Line]]:
    """The open stream (close it to end) and the lines of what a container writes from now on."""
    query = {"stream": True, "stdout": True, "stderr": True, "logs": False}
    stream = client.hijack(f"/containers/{quote(container)}/attach", query)
    frames = (Frame(STDOUT, one.data) for one in stream.frames(tty=True)) if tty else stream.frames(tty=False)
    return stream, lines(name, frames)
