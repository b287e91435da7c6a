"""Faults injected for real: the doctor must name each first and nothing else, and its cure and undo must work.

Here some of every area, on both engines; all of them with scores by ``make bench-faults``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.faults import healthy
from bench.faults.__main__ import FAMILIES, load, snapshot
from bench.faults.case import Case, diagnose, run_case
from dockyard.doctor.finding import Severity

if TYPE_CHECKING:
    from bench.faults.lab import Lab

    LabOf = Callable[[str], Lab]

CASES = {case.label: case for case in [*load(FAMILIES), *load(["pairs"])]}
ON_DOCKERD = (
    "NET-01", "NET-03/rule", "NET-03/nft-policy", "NET-04", "NET-05", "NET-10/bridge-down", "NET-12", "NET-19", "DNS-03",
    "CTR-04", "CTR-20", "CTR-16", "SEC-01", "RES-04", "PUB-04", "PUB-12/user", "INS-02", "INS-05/comma", "REG-01",
)  # fmt: skip
ON_DOCKYARD = (
    "NET-01/bridge", "NET-03/replies", "NET-10/nomaster", "NET-23/policy", "CTR-02/mode", "CTR-06", "CTR-08",
    "CTR-10", "CTR-11", "CTR-20", "SEC-04/ping", "STO-15", "PUB-02", "PUB-05", "DNS-05", "INS-01/dead-socket", "REG-01",
    "REG-05/directory", "REG-09", "IMG-02", "TIM-02", "NET-03/rule + NET-10/bridge-down",
)  # fmt: skip
SEEDS = range(4)


@pytest.mark.root
@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("engine", "case"),
    [pytest.param(engine, CASES[label], id=f"{engine} {label}")
     for engine, labels in (("dockerd", ON_DOCKERD), ("dockyard", ON_DOCKYARD)) for label in labels],
)  # fmt: skip
def test_fault(lab_of: LabOf, engine: str, case: Case) -> None:
    verdict = run_case(lab_of(engine), case, cure=not case.second[0])
    assert verdict.valid, verdict.reason
    assert verdict.rank in (1, 2) if case.second[0] else verdict.rank == 1, verdict.report
    assert not case.second[0] or verdict.rank_second
    assert verdict.false == []
    assert verdict.cured is not False
    assert verdict.undone is not False


@pytest.mark.root
@pytest.mark.timeout(60)
@pytest.mark.parametrize("engine", ["dockerd", "dockyard"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_host_raises_no_alarm_and_is_left_alone(lab_of: LabOf, engine: str, seed: int) -> None:
    lab = lab_of(engine)
    try:
        oddities = healthy.populate(lab, seed)
        before = snapshot(lab)
        report = diagnose(lab)
        assert [str(item) for item in report.findings if item.severity is Severity.FAULT] == [], oddities
        assert snapshot(lab) == before
    finally:
        healthy.clean(lab)
