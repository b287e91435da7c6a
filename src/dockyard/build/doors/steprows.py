"""Steps as rows beside the classic transcript, for a client that asks (``steps=1``): what ``dockyard build`` draws.

::

    {"id": "dockyard.step", "aux": {"number": 3, "total": 7, "stage": "build", "name": "RUN make", "state": "queued"}}
    {"id": "dockyard.step", "aux": {"number": 3, "state": "running"}}
    {"id": "dockyard.step", "aux": {"number": 3, "state": "done", "cached": false, "seconds": 1.25, "why": "..."}}

Rows come as things happen; the transcript's lines come in the file's order.
"""

from __future__ import annotations

from typing import Any

from ..progress import Event, VertexDone, VertexQueued, VertexStarted, Warned

__all__ = ["StepRows"]

Json = dict[str, Any]
MAX_ERROR = 2000


class StepRows:
    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._started: dict[str, float] = {}

    def feed(self, event: Event) -> Json | None:
        if isinstance(event, VertexQueued):
            if not event.number:
                return None
            self._numbers[event.digest] = event.number
            place, count = event.position
            return _row(
                number=event.number, total=event.total, stage=event.stage, name=event.name, place=place, count=count,
                state="queued",
            )  # fmt: skip
        if isinstance(event, Warned) or event.digest not in self._numbers:
            return None
        number = self._numbers[event.digest]
        if isinstance(event, VertexStarted):
            self._started[event.digest] = event.at
            return _row(number=number, state="running")
        if isinstance(event, VertexDone):
            seconds = round(event.at - self._started.get(event.digest, event.at), 3)
            return _row(
                number=number, state="failed" if event.error else "done", cached=event.cached, seconds=seconds,
                why=event.why, error=event.error[:MAX_ERROR],
            )  # fmt: skip
        return None


def _row(**aux: Any) -> Json:
    return {"id": "dockyard.step", "aux": aux}
