"""A report for people: one root per fault, evidence, cure; short when all is well."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from dockyard.doctor.finding import Finding, Report, Severity, State

_MARK = {Severity.FAULT: "✗", Severity.RISK: "!", Severity.ADVICE: "·"}
_COLOUR = {Severity.FAULT: "\x1b[31m", Severity.RISK: "\x1b[33m", Severity.ADVICE: "\x1b[36m"}
_RESET = "\x1b[0m"
WIDTH = 75  # of 80: the demo and issue trackers indent it
MAX_FOLDED = 8


def render(report: Report, *, colour: bool = False, verbose: bool = False) -> str:
    """The whole report as text, ending in a newline."""
    lines: list[str] = []
    for found in report.findings:
        if found.severity is Severity.ADVICE and not verbose:
            continue
        lines.extend(_finding(found, colour))
        lines.append("")
    lines.extend(_summary(report, verbose))
    return "\n".join(lines) + "\n"


def _finding(found: Finding, colour: bool) -> Iterator[str]:
    start, end = (_COLOUR[found.severity], _RESET) if colour else ("", "")
    name = f"{found.object}: " if found.object.name else ""
    main = f"{_MARK[found.severity]} {found.id} {name}{found.title}"
    yield f"{start}{main}{end}{' ' * max(1, WIDTH - 12 - len(main))}{found.confidence.value}"
    yield from _field("seen", [found.symptom])
    evidence = []
    for item in found.evidence:
        expected = f"   expected: {item.expected}" if item.expected else ""
        evidence.append(f"{item.locator}: {item.observed}{expected}")
    yield from _field("evidence", evidence)
    yield from _field("cause", found.cause)
    if found.ruled_out:
        yield from _field("ruled out", [" · ".join(f"{item.id} {item.by}" for item in found.ruled_out)])
    if found.folded:
        names = [f"{item.id} {item.object}" for item in found.folded[:MAX_FOLDED]]
        rest = len(found.folded) - len(names)
        yield from _field("explains", [", ".join(names) + (f" and {rest} more" if rest else "")])
    if found.fix:
        yield from _field("fix", [found.fix.text, *found.fix.commands])
        if found.fix.risk:
            yield from _field("risk", [found.fix.risk])
        if found.fix.machine:
            yield from _field(
                "apply", [f"dockyard doctor --apply {found.id}   (verified, rolled back if it does not help)"]
            )
    yield from _field("more", [f"dockyard explain {found.id}"])


def _field(name: str, lines: list[str]) -> Iterator[str]:
    for index, line in enumerate(lines):
        label = f"  {name:<10}" if index == 0 else " " * 12
        yield from textwrap.wrap(line, WIDTH, initial_indent=label, subsequent_indent=" " * 12,
                                 break_long_words=False, break_on_hyphens=False) or [label]  # fmt: skip


def _summary(report: Report, verbose: bool) -> Iterator[str]:
    unknown = [check for check in report.checks if check.state is State.UNKNOWN]
    passed = sum(check.state is State.OK for check in report.checks)
    counts = {severity: sum(item.severity is severity for item in report.findings) for severity in Severity}
    if not report.findings and not unknown:
        yield f"✓ {passed} checks, nothing found."
        return
    parts = [f"{counts[Severity.FAULT]} faults", f"{counts[Severity.RISK]} risks"]
    if counts[Severity.ADVICE]:
        parts.append(f"{counts[Severity.ADVICE]} pieces of advice{'' if verbose else ' (--verbose)'}")
    yield f"{', '.join(parts)}; {passed} checks passed, {len(unknown)} could not be made."
    reasons: dict[str, list[str]] = {}
    for check in unknown:
        reasons.setdefault(check.reason, []).append(check.id)
    for reason, ids in reasons.items():
        shown = ", ".join(ids) if verbose or len(ids) < 4 else f"{len(ids)} checks"
        yield f"  ? {shown}: {reason}"
