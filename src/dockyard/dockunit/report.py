"""Outcomes as people and as CI read them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from dockyard.dockunit.matrix import Entry

TAIL = 20_000
"""Characters of output kept in a report."""
_FORBIDDEN = {code: None for code in range(32) if code not in (9, 10, 13)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """``code`` is that of the test command, or of the beforeScript that failed (``stage`` tells which)."""

    entry: Entry
    code: int
    seconds: float
    output: str
    stage: str = "test"

    @property
    def passed(self) -> bool:
        return self.code == 0


def summary(outcomes: Sequence[Outcome]) -> tuple[str, int]:
    """The closing line and the exit code."""
    if not outcomes:
        return "No containers finished", 1
    passed = sum(outcome.passed for outcome in outcomes)
    if passed == len(outcomes):
        return f"{passed} container(s) passed", 0
    return f"{passed} out of {len(outcomes)} container(s) passed", 1


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """``skipped``: why the stage did not run, "" when it did. ``failure``: what failed beside its entries (a stub that was
    not asked, dependencies that did not come)."""

    name: str
    outcomes: tuple[Outcome, ...] = ()
    seconds: float = 0.0
    skipped: str = ""
    failure: str = ""

    @property
    def passed(self) -> bool:
        return not self.skipped and not self.failure and all(one.passed for one in self.outcomes)


def junit(outcomes: Sequence[Outcome], project: str) -> str:
    """One suite."""
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', *_suite(project, outcomes), ""])


def junit_stages(stages: Sequence[StageOutcome], project: str) -> str:
    """A suite for each stage."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites name={quoteattr(project)}>"]
    for stage in stages:
        lines += _suite(stage.name, stage.outcomes, skipped=stage.skipped, failure=stage.failure)
    return "\n".join([*lines, "</testsuites>", ""])


def _suite(name: str, outcomes: Sequence[Outcome], *, skipped: str = "", failure: str = "") -> list[str]:
    failed = sum(not outcome.passed for outcome in outcomes) + bool(failure)
    seconds = sum(outcome.seconds for outcome in outcomes)
    count = len(outcomes) + bool(failure) + bool(skipped)
    mark = f' skipped="{int(bool(skipped))}"' if skipped else ""
    lines = [f'<testsuite name={quoteattr(name)} tests="{count}" failures="{failed}"{mark} time="{seconds:.3f}">']
    if skipped:
        lines.append(f"  <testcase name={quoteattr(name)}><skipped message={quoteattr(skipped)}/></testcase>")
    if failure:
        told = failure.translate(_FORBIDDEN)
        lines.append(f"  <testcase name={quoteattr(name)}><failure message={quoteattr(told[:200])}>{escape(told)}</failure></testcase>")
    for outcome in outcomes:
        name, kind = quoteattr(outcome.entry.name), quoteattr(outcome.entry.image)
        lines.append(f'  <testcase name={name} classname={kind} time="{outcome.seconds:.3f}">')
        output = escape(outcome.output.translate(_FORBIDDEN)[-TAIL:])
        if not outcome.passed:
            lines.append(
                f"    <failure message={quoteattr(f'{outcome.stage} exited with {outcome.code}')}>{output}</failure>"
            )
        else:
            lines.append(f"    <system-out>{output}</system-out>")
        lines.append("  </testcase>")
    return [*lines, "</testsuite>"]


def tap(outcomes: Sequence[Outcome]) -> str:
    lines = ["TAP version 13", f"1..{len(outcomes)}"]
    for number, outcome in enumerate(outcomes, 1):
        lines += _point(number, outcome.entry.name, outcome)
    return "\n".join([*lines, ""])


def tap_stages(stages: Sequence[StageOutcome]) -> str:
    lines: list[str] = []
    number = 0
    for stage in stages:
        if stage.skipped or stage.failure:
            number += 1
            told = f"ok {number} - {stage.name} # SKIP {stage.skipped}" if stage.skipped else f"not ok {number} - {stage.name}"
            lines.append(told)
            if stage.failure:
                lines += ["  ---", "  output: |", *(f"    {row}" for row in stage.failure.splitlines()), "  ..."]
        for outcome in stage.outcomes:
            number += 1
            lines += _point(number, f"{stage.name}: {outcome.entry.name}", outcome)
    return "\n".join(["TAP version 13", f"1..{number}", *lines, ""])


def _point(number: int, name: str, outcome: Outcome) -> list[str]:
    told = name.replace("#", "\\#")
    lines = [f"{'ok' if outcome.passed else 'not ok'} {number} - {told}"]
    if not outcome.passed:
        rows = outcome.output.strip().splitlines()[-10:]
        lines += ["  ---", f"  stage: {outcome.stage}", f"  exit: {outcome.code}", "  output: |"]
        lines += [*(f"    {row}" for row in rows), "  ..."]
    return lines


def document(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """For ``--json``."""
    return [
        {"name": one.entry.name, "image": one.entry.image, "passed": one.passed, "code": one.code, "stage": one.stage,
         "seconds": round(one.seconds, 3), "output": one.output[-TAIL:]}
        for one in outcomes
    ]  # fmt: skip


def document_stages(stages: Sequence[StageOutcome], project: str) -> dict[str, Any]:
    return {
        "name": project, "passed": all(stage.passed for stage in stages),
        "stages": [
            {"name": stage.name, "passed": stage.passed, "skipped": stage.skipped, "failure": stage.failure,
             "seconds": round(stage.seconds, 3), "containers": document(stage.outcomes)}
            for stage in stages
        ],
    }  # fmt: skip
