"""Rules: one fault each, a pure function from a View to findings, with the text that `explain` prints.

A rule declares the sections of the facts that it needs; when one is missing the rule ends as "could not check".
``causes`` lists the faults that this one brings about: such findings about the same objects are folded below it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dockyard.doctor.finding import Confidence, Evidence, Finding, Fix, Object, RuledOut, Severity
from dockyard.doctor.view import View

Detect = Callable[[View], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """``id`` and ``title`` are stable; ``messages`` are patterns of error texts this fault can hide behind."""

    id: str
    title: str
    explain: str
    detect: Detect | None = None
    needs: tuple[str, ...] = ()
    severity: Severity = Severity.FAULT
    causes: tuple[str, ...] = ()
    lookalikes: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    decides: str = ""

    def matches(self, text: str) -> bool:
        return any(re.search(pattern, text, re.IGNORECASE) for pattern in self.messages)


def finding(
    rule_id: str,
    title: str,
    obj: Object,
    symptom: str,
    evidence: list[Evidence],
    *,
    severity: Severity = Severity.FAULT,
    confidence: Confidence = Confidence.PROVED,
    cause: list[str] | None = None,
    ruled_out: dict[str, str] | None = None,
    affects: list[str] | None = None,
    fix: Fix | None = None,
    verify: str = "",
) -> Finding:
    """A finding with the long lists left out where there is nothing to say."""
    return Finding(
        id=rule_id,
        title=title,
        severity=severity,
        confidence=confidence,
        object=obj,
        symptom=symptom,
        evidence=evidence,
        cause=cause or [],
        ruled_out=[RuledOut(key, by) for key, by in (ruled_out or {}).items()],
        affects=affects or [],
        fix=fix,
        verify=verify,
    )
