"""The classic builder's lines, from progress events. Pure.

Stages run side by side, the transcript is in the order of the file: what a later step says waits until those before it
are done. What waits is bounded; above that a step's output is cut in the middle of nowhere and says so.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..progress import Event, Output, Progress, Running, VertexDone, VertexQueued, VertexStarted, Warned

__all__ = ["Transcript"]

Json = dict[str, Any]
MAX_WAITING = 4 << 20
SHORT = 12
RED, PLAIN = "\x1b[91m", "\x1b[0m"
"""Around what a step writes to stderr: docker's CLI and docker-py show it so, and some look for it."""


@dataclass(slots=True)
class _Vertex:
    queued: VertexQueued
    first: bool
    waiting: list[Json] = field(default_factory=list)
    size: int = 0
    sandbox: str = ""
    done: bool = False
    decoders: dict[int, codecs.IncrementalDecoder] = field(default_factory=dict)


def _pulling(event: Progress) -> Json:
    """As a pull by itself tells it."""
    message: Json = {"status": event.status, "id": event.id}
    if event.total:
        message["progressDetail"] = {"current": event.current, "total": event.total}
    return message


class Transcript:
    def __init__(self, *, remove: bool = True) -> None:
        self._remove = remove
        self._vertices: dict[str, _Vertex] = {}
        self._order: list[_Vertex] = []
        self._shown = 0
        self._warnings: list[str] = []

    def feed(self, event: Event) -> Iterator[Json]:
        """What can be said now."""
        if isinstance(event, VertexQueued):
            if event.number:
                vertex = _Vertex(event, event.position[0] == 1)
                self._vertices[event.digest] = vertex
                self._order.append(vertex)
                if len(self._order) > 1 and self._order[-2].queued.number > event.number:
                    self._order.sort(key=lambda v: v.queued.number)
            return
        if isinstance(event, Warned):
            if not event.rule:
                self._warnings.append(event.message)
            return
        found = self._vertices.get(event.digest)
        if isinstance(event, Progress) and event.status:
            yield _pulling(event)
        if found is None:
            return
        for text in self._lines(found, event):
            yield from self._say(found, text)
        if isinstance(event, VertexDone) and not event.error:
            found.done = True
            yield from self._go_on()

    def warnings(self) -> Iterator[Json]:
        for text in self._warnings:
            yield {"stream": text + "\n"}

    def _lines(self, vertex: _Vertex, event: Event) -> Iterator[str]:
        if isinstance(event, VertexStarted):
            yield f"Step {vertex.queued.number}/{vertex.queued.total} : {vertex.queued.name}\n"
        elif isinstance(event, Running):
            vertex.sandbox = event.sandbox
            yield f" ---> Running in {event.sandbox[:SHORT]}\n"
        elif isinstance(event, Output):
            yield self._text(vertex, event)
        elif isinstance(event, VertexDone) and not event.error:
            if event.cached and not vertex.first:
                yield " ---> Using cache\n"
            if vertex.sandbox and self._remove:
                yield f" ---> Removed intermediate container {vertex.sandbox[:SHORT]}\n"
            yield f" ---> {event.result.removeprefix('sha256:')[:SHORT]}\n"

    def _text(self, vertex: _Vertex, event: Output) -> str:
        decoder = vertex.decoders.setdefault(event.fd, codecs.getincrementaldecoder("utf-8")("replace"))
        text = decoder.decode(event.data)
        return f"{RED}{text}{PLAIN}" if event.fd == 2 and text else text

    def _say(self, vertex: _Vertex, text: str) -> Iterator[Json]:
        if not text:
            return
        if self._order[self._shown : self._shown + 1] == [vertex]:
            yield {"stream": text}
        elif vertex.size < MAX_WAITING:
            vertex.size += len(text)
            vertex.waiting.append({"stream": text})
            if vertex.size >= MAX_WAITING:
                vertex.waiting.append({"stream": f"\n[output clipped, limit {MAX_WAITING >> 20}MiB reached]\n"})

    def _go_on(self) -> Iterator[Json]:
        while self._shown < len(self._order) and self._order[self._shown].done:
            self._shown += 1
            if self._shown < len(self._order):
                yield from self._order[self._shown].waiting
                self._order[self._shown].waiting.clear()

    def rest(self) -> Iterator[Json]:
        """After a failure: what the steps said that had begun, whatever came before them."""
        for vertex in self._order[self._shown :]:
            yield from vertex.waiting
            vertex.waiting.clear()
