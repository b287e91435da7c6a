"""Outcomes as people and as CI read them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


def junit(outcomes: Sequence[Outcome], project: str) -> str:
    failed = sum(not outcome.passed for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name={quoteattr(project)} tests="{len(outcomes)}" failures="{failed}" time="{seconds:.3f}">',
    ]
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
    return "\n".join([*lines, "</testsuite>", ""])


def tap(outcomes: Sequence[Outcome]) -> str:
    lines = ["TAP version 13", f"1..{len(outcomes)}"]
    for number, outcome in enumerate(outcomes, 1):
        name = outcome.entry.name.replace("#", "\\#")
        lines.append(f"{'ok' if outcome.passed else 'not ok'} {number} - {name}")
        if not outcome.passed:
            rows = outcome.output.strip().splitlines()[-10:]
            lines += ["  ---", f"  stage: {outcome.stage}", f"  exit: {outcome.code}", "  output: |"]
            lines += [*(f"    {row}" for row in rows), "  ..."]
    return "\n".join([*lines, ""])
