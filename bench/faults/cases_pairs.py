"""Two faults behind one symptom: when one is cured the other still hurts, so both must be named."""

from __future__ import annotations

from itertools import combinations

from bench.faults import cases_net, cases_ports
from bench.faults.case import Case
from bench.faults.lab import Lab

OUTWARD = ("NET-01", "NET-03/rule", "NET-03/replies", "NET-05", "NET-10/veth-down", "NET-10/bridge-down", "NET-03/nft-policy")


def pair(one: Case, two: Case) -> Case:
    """Both injected, both undone; the probe is the one that they share."""

    def inject(lab: Lab) -> None:
        one.inject(lab)
        two.inject(lab)

    def undo(lab: Lab) -> None:
        two.undo(lab)
        one.undo(lab)

    return Case(one.id, one.object, one.setup, one.probe, inject, undo, name=f"{one.label} + {two.label}",
                also=one.also, second=(two.id, two.object), engines=tuple(set(one.engines) & set(two.engines)))  # fmt: skip


def _pairs(cases: list[Case], labels: tuple[str, ...]) -> list[Case]:
    chosen = [case for case in cases if case.label in labels]
    return [pair(one, two) for one, two in combinations(chosen, 2) if one.id != two.id]


CASES = _pairs(cases_net.CASES, OUTWARD) + [
    pair(one, two)
    for one in cases_ports.CASES
    for two in cases_ports.CASES
    if one.label in ("PUB-04", "PUB-05") and two.label == "PUB-12/forward"
]
