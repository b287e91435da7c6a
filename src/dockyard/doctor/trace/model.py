"""Nouns of a trace."""

from __future__ import annotations

from msgspec import Struct, field

from dockyard.doctor.finding import Fix

OK, LOST, UNKNOWN, NOTE = "ok", "lost", "unknown", "note"


class Flow(Struct, frozen=True):
    """``source``: a container name, "host" or "outside". ``address`` is filled in once the name is resolved."""

    source: str
    target: str
    proto: str = "tcp"
    port: int = 0
    address: str = ""


class Step(Struct, frozen=True):
    """One hop. ``code`` is the fault that `explain` knows, where one fits."""

    where: str
    verdict: str
    detail: str
    code: str = ""
    rule: str = ""
    fix: Fix | None = None


class Path(Struct, frozen=True):
    flow: Flow
    steps: list[Step] = field(default_factory=list)
    probe: str = ""  # outcome of the packet that was sent, empty if none was
    probe_ms: float = 0.0
    moved: list[str] = field(default_factory=list)  # dropping rules whose counters rose during the probe

    @property
    def lost(self) -> Step | None:
        return next((step for step in self.steps if step.verdict == LOST), None)

    @property
    def verdict(self) -> str:
        """arrives, lost, unknown: what is known in the end."""
        if self.probe == "answered":
            return "arrives"
        if self.lost is not None:
            return "lost"
        return "unknown" if self.probe in ("timeout", "unreachable", "refused") else "arrives"
