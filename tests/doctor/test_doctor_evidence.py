"""The independent checker confirms what is so and refutes what is not: a checker that agrees to all would prove nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.faults.__main__ import FAMILIES, load
from bench.faults.case import Case, diagnose
from bench.faults.evidence import Reading, confirm
from dockyard.doctor.finding import Evidence, Finding, Report

if TYPE_CHECKING:
    from bench.faults.lab import Lab

    LabOf = Callable[[str], Lab]

CASES = {case.label: case for case in load(FAMILIES)}
LABELS = ("NET-01", "NET-03/rule", "NET-10/bridge-down", "CTR-04", "CTR-05", "CTR-02/mode", "SEC-01", "RES-04", "PUB-05", "STO-14")
OTHER = {"0": "1", "down": "up", "ENOENT": "mode 0755", "empty": "uid 1 gid 1 mode 0700"}


def altered(cited: Evidence) -> Evidence:
    """The same citation with something else seen: other numbers, or other letters where there is no number."""
    seen = cited.observed
    if seen.startswith("drop"):
        return replace(cited, observed=seen.replace("drop", "reject"))
    other = "".join(str((int(letter) + 1) % 10) if letter.isdigit() else letter for letter in seen)
    return replace(cited, observed=OTHER.get(seen, other if other != seen else seen[::-1]))


@pytest.mark.root
@pytest.mark.timeout(90)
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("engine", ["dockyard"])
def test_true_citations_are_confirmed_and_false_ones_refuted(lab_of: LabOf, engine: str, label: str) -> None:
    lab, case, injected = lab_of(engine), CASES[label], False
    try:
        case.setup(lab)
        assert case.probe(lab)
        case.inject(lab)
        injected = True
        case.probe(lab)  # the symptom: what fails is what leaves traces in logs and counters
        report = _report(lab, case)
        assert [str(item) for item in confirm(lab, report) if item.confirmed is not True] == []
        false = replace(report.findings[0], evidence=[altered(item) for item in report.findings[0].evidence], folded=[])
        assert [str(item) for item in confirm(lab, Report([false], [])) if item.confirmed is not False] == []
    finally:
        if injected:
            case.undo(lab)
        lab.reset()


def _report(lab: Lab, case: Case) -> Report:
    found = (case.diagnose or diagnose)(lab)
    named: list[Finding] = [item for item in found.findings if item.id == case.id]
    assert named, found
    return Report(named, [])


def test_a_citation_that_nobody_can_read_is_not_confirmed() -> None:
    unknown = Reading("X", Evidence("oracle", "the stars", "aligned"), None)
    assert "no reader" in str(unknown)
