"""A lost connection: the probe is followed by the kernel's trace, which names the hop and the very rule."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.faults.__main__ import snapshot
from bench.faults.cases_net import web
from bench.faults.lab import OUTSIDE
from dockyard.doctor.collect import collect
from dockyard.doctor.trace import parse_flow
from dockyard.doctor.trace.follow import caller_of, last, rule_of
from dockyard.doctor.verbs.trace import render, trace

if TYPE_CHECKING:
    from bench.faults.lab import Lab

    LabOf = Callable[[str], Lab]

FILTER = ("nft 'add table inet site; add chain inet site guard; add rule inet site guard tcp dport 8000 counter drop; "
          "add chain inet site walk { type filter hook forward priority 5; }; add rule inet site walk jump guard'")  # fmt: skip


@pytest.mark.root
@pytest.mark.timeout(60)
def test_the_dropping_rule_is_named_and_nothing_stays(lab_of: LabOf) -> None:
    lab = lab_of("dockyard")
    try:
        web(lab)
        lab.sh(FILTER)
        before = snapshot(lab)
        facts = collect(lab.client, {}, seconds=10)
        start = time.monotonic()
        path = trace(facts, parse_flow("client", f"{OUTSIDE}:8000"), static=False)
        spent = time.monotonic() - start
        stop = last(path.followed)
        assert stop is not None, path
        assert (stop.family, stop.table, stop.chain, stop.hook) == ("inet", "site", "guard", "forward")
        assert stop.rule == "tcp dport 8000 drop"
        assert path.verdict == "lost"
        assert "ended by inet site guard (hook forward): tcp dport 8000 drop" in render(path)
        assert snapshot(lab) == before
        assert spent < 3  # one second on a quiet machine (bench/faults/speed.py measures it)
    finally:
        lab.sh("nft delete table inet site", check=False)
        lab.reset()


@pytest.mark.root
@pytest.mark.timeout(60)
def test_what_arrives_is_not_followed(lab_of: LabOf) -> None:
    lab = lab_of("dockyard")
    try:
        web(lab)
        path = trace(collect(lab.client, {}, seconds=10), parse_flow("client", f"{OUTSIDE}:8000"), static=False)
        assert path.verdict == "arrives"
        assert path.followed == []
    finally:
        lab.reset()


LISTING = """table inet site {
\tchain guard { # handle 1
\t\ttcp dport 8000 counter packets 3 bytes 180 drop # handle 4
\t}

\tchain walk { # handle 2
\t\ttype filter hook forward priority 5; policy accept;
\t\tjump guard # handle 6
\t}
}
"""


def test_a_rule_is_found_by_its_handle_and_a_chain_by_who_jumps_to_it() -> None:
    assert rule_of(LISTING, 4) == "tcp dport 8000 drop"
    assert rule_of(LISTING, 0) == "policy accept"
    assert rule_of(LISTING, 9) == "handle 9"
    assert caller_of(LISTING, "guard") == "walk"
    assert caller_of(LISTING, "walk") == ""
