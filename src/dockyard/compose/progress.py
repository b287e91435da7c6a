"""What is told while operations run: one event a step, in Docker Compose's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Status = Literal["working", "done", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Event:
    """``subject``: ``Container shop-web-1``; ``text``: ``Creating``; ``details``: what else, e.g. bytes of a layer."""

    subject: str
    text: str
    status: Status = "working"
    details: str = ""
    parent: str = ""


class Progress(Protocol):
    """Told from several threads at once."""

    def on(self, event: Event) -> None: ...

    def warn(self, text: str) -> None: ...


class Silent:
    """Nobody listens."""

    def on(self, event: Event) -> None:
        pass

    def warn(self, text: str) -> None:
        pass
