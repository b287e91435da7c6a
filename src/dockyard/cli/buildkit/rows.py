"""BuildKit's progress as what ``BuildView`` draws, as buildx's plain log, or as its ``rawjson``. Pure.

::

    rows:   {"id": "dockyard.step", "aux": {...}}, {"stream": what a step said}
    plain:  #3 [2/4] RUN make          rawjson: one client.SolveStatus a line
            #3 0.412 cc -o app ...
            #3 DONE 1.2s
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from dockyard.build.proto import control_pb2
from dockyard.lib.clock import rfc3339

__all__ = ["Rows", "raw"]

Json = dict[str, Any]
MIB = 1 << 20


def _seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9


class Rows:
    """Vertexes get numbers in the order of their names' first coming."""

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain
        self._vertexes: dict[str, int] = {}
        self._state: dict[str, str] = {}

    def feed(self, answer: control_pb2.StatusResponse) -> Iterator[Json]:
        """What a step said comes before its end, where one answer has both."""
        for vertex in answer.vertexes:
            if not vertex.HasField("completed") or vertex.digest not in self._vertexes:
                yield from self._vertex(vertex, ended=False)
        for status in answer.statuses:
            if self._plain and status.HasField("completed") and status.vertex in self._vertexes:
                yield self._line(status.vertex, _transfer(status))
        for log in answer.logs:
            text = log.msg.decode("utf-8", "replace")
            if not self._plain:
                yield {"stream": text}
            elif log.vertex in self._vertexes:
                for line in text.rstrip("\n").split("\n"):
                    yield self._line(log.vertex, line)
        for warning in answer.warnings:
            yield {"stream": f"[Warning] {warning.short.decode('utf-8', 'replace')}\n" if not self._plain else
                   f"\nWARNING: {warning.short.decode('utf-8', 'replace')}\n"}  # fmt: skip
        for vertex in answer.vertexes:
            if vertex.HasField("completed"):
                yield from self._vertex(vertex, ended=True)

    def _vertex(self, vertex: control_pb2.Vertex, *, ended: bool) -> Iterator[Json]:
        number = self._vertexes.setdefault(vertex.digest, len(self._vertexes) + 1)
        state = "queued"
        if vertex.HasField("started"):
            state = "running"
        if ended:
            state = "failed" if vertex.error else "done"
        if self._state.get(vertex.digest) == state:
            return
        self._state[vertex.digest] = state
        seconds = _seconds(vertex.completed) - _seconds(vertex.started) if ended else 0.0
        if not self._plain:
            yield {"id": "dockyard.step", "aux": {
                "number": number, "label": vertex.name, "state": state, "cached": ended and vertex.cached, "seconds": seconds,
            }}  # fmt: skip
        elif state == "running":
            yield {"stream": f"\n#{number} {vertex.name}\n"}
        elif state in ("failed", "done"):
            told = f"ERROR: {vertex.error}" if vertex.error else "CACHED" if vertex.cached else f"DONE {seconds:.1f}s"
            yield self._line(vertex.digest, told)

    def _line(self, digest: str, text: str) -> Json:
        return {"stream": f"#{self._vertexes[digest]} {text}\n"}


def _transfer(status: control_pb2.VertexStatus) -> str:
    size = f" {status.current / MIB:.2f}MB" if status.current >= MIB else f" {status.current}B" if status.current else ""
    return f"{status.name or status.id}{size} done"



def raw(answer: control_pb2.StatusResponse) -> str:
    """``buildx build --progress=rawjson``: Go's client.SolveStatus."""
    document: Json = {}
    if answer.vertexes:
        document["vertexes"] = [_vertex_of(vertex) for vertex in answer.vertexes]
    if answer.statuses:
        document["statuses"] = [
            {"id": row.id, "vertex": row.vertex, "name": row.name, "total": row.total, "current": row.current,
             "timestamp": _time(row.timestamp), **_times(row)} for row in answer.statuses
        ]  # fmt: skip
    if answer.logs:
        document["logs"] = [
            {"vertex": row.vertex, "stream": row.stream, "data": base64.b64encode(row.msg).decode(),
             "timestamp": _time(row.timestamp)} for row in answer.logs
        ]  # fmt: skip
    if answer.warnings:
        document["warnings"] = [
            {"vertex": row.vertex, "level": row.level, "short": base64.b64encode(row.short).decode(), "url": row.url,
             "detail": [base64.b64encode(each).decode() for each in row.detail]} for row in answer.warnings
        ]  # fmt: skip
    return json.dumps(document)


def _vertex_of(vertex: control_pb2.Vertex) -> Json:
    row: Json = {"digest": vertex.digest, "name": vertex.name, **_times(vertex)}
    optional = {"inputs": list(vertex.inputs), "cached": vertex.cached, "error": vertex.error}
    return row | {key: value for key, value in optional.items() if value}


def _times(row: control_pb2.Vertex | control_pb2.VertexStatus) -> Json:
    found = {}
    if row.HasField("started"):
        found["started"] = _time(row.started)
    if row.HasField("completed"):
        found["completed"] = _time(row.completed)
    return found


def _time(stamp: Timestamp) -> str:
    return rfc3339(stamp.seconds * 1_000_000_000 + stamp.nanos)
