"""Every fault, injected for real: the doctor must name it first, name nothing else, and its cure must work."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.faults.case import Case, run_case

if TYPE_CHECKING:
    from bench.faults.lab import Lab

FAMILIES = ("net",)
CASES = [case for family in FAMILIES for case in importlib.import_module(f"bench.faults.cases_{family}").CASES]


@pytest.mark.root
@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_fault(lab: Lab, case: Case) -> None:
    verdict = run_case(lab, case)
    assert verdict.valid, verdict.reason
    assert verdict.rank == 1, verdict.report
    assert verdict.false == []
    assert verdict.cured is not False
    assert verdict.undone is not False
