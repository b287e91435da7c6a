"""A build's progress as clients follow it: events of the solver become StatusResponses, kept for late readers.

Output is clipped per vertex as BuildKit does, so what is kept is bounded by the number of steps.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from ...progress import Event, Output, Progress, Sink, VertexDone, VertexQueued, VertexStarted, Warned
from ...proto import control_pb2, llb_pb2
from .failure import in_buildkits_words

__all__ = ["StatusLog", "labelled", "stamp", "vertex_digest"]

MAX_VERTEX_LOG = 2 << 20
"""Bytes of output kept per vertex: BuildKit's default."""
MAX_LOG = 16 << 20
"""Of all vertexes of a build together."""
MAX_BATCH = 512 << 10
"""Bytes of one StatusResponse, about."""
CLIPPED = b"\n[output clipped, log limit 2MiB reached]\n"
PROGRESS_PAUSE = 0.1
"""Seconds between two reports of one transfer: a screen shows no more."""


CONFIG_ONLY = frozenset(
    ["ARG", "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "SHELL", "STOPSIGNAL", "USER", "VOLUME"]
)


def _only_config(text: str) -> bool:
    return text.removeprefix("ONBUILD ").partition(" ")[0].upper() in CONFIG_ONLY


def _platform(stage: str) -> str:
    return stage.rpartition(" ")[0]


def _label(stage: str, *, alone: bool) -> str:
    """``stage``: its name or number, after the platform where there are several."""
    platform, _, name = stage.rpartition(" ")
    shown = "" if alone and name.isdigit() else f"stage-{name} " if name.isdigit() else f"{name} "
    return (f"{platform} " if platform else "") + shown


def stamp(seconds: float) -> Timestamp:
    whole = int(seconds)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))


def vertex_digest(*parts: str) -> str:
    return "sha256:" + hashlib.sha256("\0".join(parts).encode()).hexdigest()


def labelled(sink: Sink, platform: str) -> Sink:
    """Steps of one of several builds are shown under its platform."""

    def told(event: Event) -> None:
        if isinstance(event, VertexQueued) and event.number:
            event = replace(event, stage=f"{platform} {event.stage}")
        sink(event)

    return told


class StatusLog:
    """``sink`` takes events and never waits; ``follow`` replays and goes on until ``close``."""

    def __init__(self) -> None:
        self.vertexes: dict[str, control_pb2.Vertex] = {}
        self.warnings = 0
        self.failed = ""
        """Name of the first vertex that failed."""
        self.closed = False
        self.source: Callable[[], llb_pb2.SourceInfo | None] = lambda: None
        """The Dockerfile, for the places that warnings point at."""
        self._entries: list[control_pb2.StatusResponse] = []
        self._logged: dict[str, int] = {}
        self._queued: list[VertexQueued] = []
        self._hidden: set[str] = set()
        self._log_size = 0
        self._reported: dict[tuple[str, str], tuple[float, float]] = {}
        self._arrived = asyncio.Event()

    @property
    def steps(self) -> tuple[int, int, int]:
        """(all, completed, cached)"""
        rows = self.vertexes.values()
        return len(rows), sum(row.HasField("completed") for row in rows), sum(row.cached for row in rows)

    def sink(self, event: Event) -> None:
        if isinstance(event, VertexQueued) and event.number:
            self._queued.append(event)
            return
        self._show_steps()
        entry = self._entry(event)
        if entry is not None:
            self._entries.append(entry)
            self._arrived.set()

    def close(self, error: str = "") -> None:
        """The end. Vertexes still running are told as ended, or clients show them as running for ever."""
        now = stamp(time.time())
        for vertex in self.vertexes.values():
            if vertex.HasField("started") and not vertex.HasField("completed"):
                vertex.completed.CopyFrom(now)
                vertex.error = vertex.error or error
                self._entries.append(control_pb2.StatusResponse(vertexes=[vertex]))
        self.closed = True
        self._arrived.set()

    def _show_steps(self) -> None:
        """The steps of the graph, announced together, under BuildKit's names; what only changes the config is no vertex
        there."""
        queued, self._queued = self._queued, []
        shown = [event for event in queued if not _only_config(event.name)]
        hidden = {event.digest: event.inputs for event in queued if _only_config(event.name)}
        self._hidden |= hidden.keys()
        places: Counter[str] = Counter()
        counts = Counter(event.stage for event in shown)
        for event in shown:
            places[event.stage] += 1
            inputs: list[str] = []
            for digest in event.inputs:
                while hidden.get(digest):
                    digest = hidden[digest][0]
                inputs.append(digest)
            stage = _label(event.stage, alone=sum(_platform(each) == _platform(event.stage) for each in counts) == 1)
            name = f"[{stage}{places[event.stage]}/{counts[event.stage]}] {event.name}"
            vertex = self._vertex(VertexQueued(event.digest, name, tuple(inputs)))
            self._entries.append(control_pb2.StatusResponse(vertexes=[vertex]))

    async def follow(self, send: Callable[[control_pb2.StatusResponse], Awaitable[None]]) -> None:
        position = 0
        while True:
            if position < len(self._entries):
                position, batch = self._batch(position)
                await send(batch)
            elif self.closed:
                return
            else:
                arrived = self._arrived
                if arrived.is_set():
                    self._arrived = arrived = asyncio.Event()
                await arrived.wait()

    def _batch(self, position: int) -> tuple[int, control_pb2.StatusResponse]:
        batch, size = control_pb2.StatusResponse(), 0
        while position < len(self._entries) and size < MAX_BATCH:
            entry = self._entries[position]
            batch.MergeFrom(entry)
            size += entry.ByteSize()
            position += 1
        return position, batch

    def _entry(self, event: Event) -> control_pb2.StatusResponse | None:
        if not isinstance(event, Warned) and event.digest in self._hidden:
            return None
        if isinstance(event, VertexQueued | VertexStarted | VertexDone):
            vertex = self._vertex(event)
            return control_pb2.StatusResponse(vertexes=[vertex])
        if isinstance(event, Output):
            return self._output(event)
        if isinstance(event, Progress):
            return self._progress(event)
        return self._warning(event) if isinstance(event, Warned) else None

    def _vertex(self, event: VertexQueued | VertexStarted | VertexDone) -> control_pb2.Vertex:
        vertex = self.vertexes.setdefault(event.digest, control_pb2.Vertex(digest=event.digest))
        if isinstance(event, VertexQueued):
            vertex.name = event.name
            del vertex.inputs[:]
            vertex.inputs.extend(event.inputs)
        elif isinstance(event, VertexStarted):
            vertex.started.CopyFrom(stamp(event.at))
        else:
            if not vertex.HasField("started"):
                vertex.started.CopyFrom(stamp(event.at))
            vertex.completed.CopyFrom(stamp(event.at))
            vertex.cached, vertex.error = event.cached, in_buildkits_words(event.error)
            if vertex.error == "CancelledError":
                vertex.error = "context canceled"
            self.failed = self.failed or (vertex.name if event.error else "")
        copy = control_pb2.Vertex()
        copy.CopyFrom(vertex)
        return copy

    def _output(self, event: Output) -> control_pb2.StatusResponse | None:
        already = self._logged.get(event.digest, 0)
        if already >= MAX_VERTEX_LOG or self._log_size >= MAX_LOG:
            return None
        data = event.data
        self._logged[event.digest] = already + len(data)
        self._log_size += len(data)
        if already + len(data) >= MAX_VERTEX_LOG:
            data = data[: MAX_VERTEX_LOG - already] + CLIPPED
        row = control_pb2.VertexLog(vertex=event.digest, timestamp=stamp(event.at), stream=event.fd, msg=data)
        return control_pb2.StatusResponse(logs=[row])

    def _progress(self, event: Progress) -> control_pb2.StatusResponse | None:
        key = (event.digest, event.id)
        started, last = self._reported.get(key, (event.at, 0.0))
        if not event.done and event.at - last < PROGRESS_PAUSE:
            return None
        self._reported[key] = (started, event.at)
        row = control_pb2.VertexStatus(
            id=event.id, vertex=event.digest, name=event.id, current=event.current, total=event.total,
            timestamp=stamp(event.at), started=stamp(started), completed=stamp(event.at) if event.done else None,
        )  # fmt: skip
        return control_pb2.StatusResponse(statuses=[row])

    def _warning(self, event: Warned) -> control_pb2.StatusResponse:
        self.warnings += 1
        short = f"{event.rule}: {event.message}" if event.rule else event.message
        row = control_pb2.VertexWarning(level=1, short=short.encode(), url=event.url)
        row.vertex = next(iter(self.vertexes), vertex_digest("warnings"))
        if event.detail:
            row.detail.append(event.detail.encode())
        source = self.source()
        if event.line and source is not None:
            row.info.CopyFrom(source)
            row.ranges.append(_line(event.line))
        return control_pb2.StatusResponse(warnings=[row])


def _line(number: int) -> llb_pb2.Range:
    return llb_pb2.Range(start=llb_pb2.Position(line=number), end=llb_pb2.Position(line=number))
