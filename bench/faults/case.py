"""Cases and how one is run: validate, diagnose, cure, undo."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bench.faults.evidence import Reading, confirm
from bench.faults.lab import Lab
from dockyard.doctor.collect import collect
from dockyard.doctor.examine import examine
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Finding, Report, Severity

Step = Callable[[Lab], None]
Probe = Callable[[Lab], bool]


def nothing(_: Lab) -> None:
    """For cases that need no such step."""


@dataclass(frozen=True)
class Case:
    """``probe`` tells whether the user's work goes well. ``object`` is the name that a diagnosis must give."""

    id: str
    object: str
    setup: Step
    probe: Probe
    inject: Step
    undo: Step
    name: str = ""
    also: frozenset[str] = field(default_factory=frozenset)  # further ids that are right to name as root
    engines: tuple[str, ...] = ("dockerd", "dockyard")  # where the fault can exist
    diagnose: Callable[[Lab], Report] | None = None  # where looking at the whole host is not what a user would do
    second: tuple[str, str] = ("", "")  # of a pair: fault and object of the other one
    teardown: Step = nothing  # takes back what the set-up did to the host, whatever came of the case
    folds: frozenset[str] = frozenset()  # of a cascade: ids of consequences that must lie below the root
    cure: bool = True  # False where the cure changes a setting of the whole machine, which is not ours
    tries: int = 3  # of the probe, until it passes after a cure or an undo: restart policies take their time

    @property
    def label(self) -> str:
        return self.name or self.id


@dataclass
class Verdict:
    case: str
    valid: bool
    reason: str = ""
    rank: int = 0  # place of the right finding among roots; 0: not named
    false: list[str] = field(default_factory=list)  # fault-level findings that are not true
    seconds: float = 0.0
    cured: bool | None = None  # None: the fix is not machine-applicable
    undone: bool | None = None
    report: Report | None = None
    rank_second: int = 0
    folded: bool = False  # of a cascade: the root is the only fault named, its consequences lie below it
    readings: list[Reading] = field(default_factory=list)  # every citation of the report, read again independently


def diagnose(lab: Lab, *, deep: bool = False) -> Report:
    facts = collect(lab.client, {}, deep=deep, seconds=10)
    return examine(facts, all_rules())


def run_case(lab: Lab, case: Case, *, cure: bool = True) -> Verdict:
    """The whole protocol for one case, leaving the lab as it was."""
    try:
        case.setup(lab)
        if not _settles(lab, case, True):
            return Verdict(case.label, False, "the probe fails before the injection")
        case.inject(lab)
        if case.probe(lab):
            case.undo(lab)
            return Verdict(case.label, False, "the injection has no effect")
        start = time.monotonic()
        report = (case.diagnose or diagnose)(lab)
        verdict = Verdict(case.label, True, seconds=time.monotonic() - start, report=report)
        verdict.readings = confirm(lab, report)
        verdict.rank = rank_of(report, case.id, case.object, case.also)
        verdict.rank_second = rank_of(report, *case.second) if case.second[0] else 0
        verdict.false = [f"{item.id} {item.object}" for item in report.findings
                         if item.severity is Severity.FAULT and not right(item, case)]  # fmt: skip
        verdict.folded = bool(case.folds) and _one_root(report, verdict, case)
        named = [verdict.rank] + ([verdict.rank_second] if case.second[0] else [])
        if cure and case.cure and all(named):
            _cure(lab, case, [report.findings[place - 1] for place in named], verdict)
        case.undo(lab)
        if not _settles(lab, case, True):
            verdict.valid, verdict.reason = False, "the probe fails after undo"
        return verdict
    finally:
        case.teardown(lab)
        lab.reset()


def right(found: Finding, case: Case) -> bool:
    """Is this finding one of what was injected?"""
    return _names(found, case.id, case.object, case.also) or _names(found, *case.second)


def _one_root(report: Report, verdict: Verdict, case: Case) -> bool:
    if verdict.rank != 1:
        return False
    others = [item for item in report.findings[1:] if item.severity is Severity.FAULT]
    return not others and case.folds <= {item.id for item in report.findings[0].folded}


def _names(found: Finding, rule: str, name: str, also: Iterable[str] = ()) -> bool:
    return found.id in {rule, *also} and (not name or found.object.name == name)


def rank_of(report: Report, rule: str, name: str, also: Iterable[str] = ()) -> int:
    """Place among the roots, 0 if it is not there."""
    return next((place for place, item in enumerate(report.findings, 1) if _names(item, rule, name, also)), 0)


def _cure(lab: Lab, case: Case, found: list[Finding], verdict: Verdict) -> None:
    """Apply the fix on the lab's host (of a pair both), look, then take it back and look again."""
    fixes = [item.fix for item in found if item.fix is not None and item.fix.machine]
    if len(fixes) < len(found):
        return
    verdict.cured = all(_all(lab, fix.commands) for fix in fixes) and _settles(lab, case, True)
    verdict.undone = all(_all(lab, fix.undo) for fix in reversed(fixes)) and _settles(lab, case, False)


def _settles(lab: Lab, case: Case, wanted: bool) -> bool:
    """Links and neighbour entries take up to a second after a change (linkwatch), so the probe has some tries."""
    return any(case.probe(lab) is wanted for _ in range(case.tries))


def _all(lab: Lab, commands: list[str]) -> bool:
    full = ["nsenter", "-t", str(lab.holder), "-m", "-n", "sh", "-ec", "\n".join(commands)]
    environ = {**os.environ, "DOCKER_HOST": f"unix://{lab.socket}"}
    return subprocess.run(full, capture_output=True, timeout=30, check=False, env=environ).returncode == 0
