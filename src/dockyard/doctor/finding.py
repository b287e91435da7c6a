"""Findings: what a rule proved, in the form that people, JSON and SARIF share.

The main line states the fault; only the fix proposes change (rustc's rule). Evidence names a locator that anyone can
read again, with what was seen and what was expected; an independent checker re-reads it (bench/faults).
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field


class Severity(StrEnum):
    FAULT = "fault"  # something does not work
    RISK = "risk"  # it works, and will hurt
    ADVICE = "advice"


class Confidence(StrEnum):
    PROVED = "proved"  # the evidence leaves no other cause
    LIKELY = "likely"
    POSSIBLE = "possible"


class State(StrEnum):
    """How a check ended. Unknown is never counted as ok."""

    OK = "ok"
    FINDING = "finding"
    UNKNOWN = "could not check"


class Object(Struct, frozen=True):
    """What a finding is about: kind is host, engine, container, network, volume, image, registry, build, port."""

    kind: str
    name: str = ""
    id: str = ""

    def __str__(self) -> str:
        return f'{self.kind} "{self.name}"' if self.name else self.kind


class Evidence(Struct, frozen=True):
    """kind: api, file, sysctl, netlink, nft, log, probe, process."""

    kind: str
    locator: str
    observed: str
    expected: str = ""


class RuledOut(Struct, frozen=True):
    id: str
    by: str


class Fix(Struct, frozen=True):
    """``machine``: the commands can be run as they stand and undone by `undo`; otherwise a person must decide."""

    text: str
    commands: list[str] = field(default_factory=list)
    undo: list[str] = field(default_factory=list)
    risk: str = ""
    machine: bool = False


class Finding(Struct, frozen=True):
    id: str
    title: str
    severity: Severity
    confidence: Confidence
    object: Object
    symptom: str
    evidence: list[Evidence]
    cause: list[str] = field(default_factory=list)
    ruled_out: list[RuledOut] = field(default_factory=list)
    affects: list[str] = field(default_factory=list)  # ids of containers and networks that suffer; empty: all
    fix: Fix | None = None
    verify: str = ""
    folded: list[Finding] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Names this finding in `--silence` and when it is looked for again."""
        return f"{self.id}:{self.object.kind}:{self.object.name}"


class Check(Struct, frozen=True):
    """One rule's end."""

    id: str
    state: State
    reason: str = ""
    ms: float = 0.0


class Report(Struct, frozen=True):
    findings: list[Finding]
    checks: list[Check]
    subject: str = ""
    collect_ms: float = 0.0
    rules_ms: float = 0.0
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 healthy, 1 risks only, 2 faults, 3 no fault seen but some checks could not run."""
        severities = {finding.severity for finding in self.findings}
        if Severity.FAULT in severities:
            return 2
        if any(check.state is State.UNKNOWN for check in self.checks):
            return 3
        return 1 if severities else 0
