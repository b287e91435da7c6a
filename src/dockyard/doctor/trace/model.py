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


class Hop(Struct, frozen=True):
    """A chain that the followed probe met, by the kernel's trace. ``handle`` 0: the chain's policy."""

    family: str
    table: str
    chain: str
    handle: int
    verdict: str
    hook: str = ""
    rule: str = ""

    def __str__(self) -> str:
        where = f"{self.family} {self.table} {self.chain}"
        return f"{where}{f' (hook {self.hook})' if self.hook else ''}: {self.rule or f'handle {self.handle}'} → {self.verdict}"


class Path(Struct, frozen=True):
    flow: Flow
    steps: list[Step] = field(default_factory=list)
    probe: str = ""  # outcome of the packet that was sent, empty if none was
    probe_ms: float = 0.0
    moved: list[str] = field(default_factory=list)  # dropping rules whose counters rose during the probe
    followed: list[Hop] = field(default_factory=list)  # what the kernel told of the probe, in its order

    @property
    def lost(self) -> Step | None:
        return next((step for step in self.steps if step.verdict == LOST), None)

    @property
    def verdict(self) -> str:
        """arrives, lost, unknown: what is known in the end."""
        if self.probe == "answered":
            return "arrives"
        if self.lost is not None or any(hop.verdict in ("drop", "reject") for hop in self.followed):
            return "lost"
        return "unknown" if self.probe in ("timeout", "unreachable", "refused") else "arrives"
