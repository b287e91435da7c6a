"""What a limit's counters mean once the limit was raised."""

from __future__ import annotations

import pytest

from dockyard.doctor.facts import Cgroup, Engine, Facts
from dockyard.doctor.faults.resources.limits import too_many_processes
from dockyard.doctor.view import View

ID = "ab" * 32
APP = {"Id": ID, "Name": "/app", "State": {"Status": "running", "Pid": 7}, "HostConfig": {"PidsLimit": 6}}


@pytest.mark.parametrize(
    ("cgroup", "ill"),
    [
        (Cgroup(pids_limit=6, pids_current=6, pids_peak=6), True),
        (Cgroup(pids_limit=6, pids_current=2, pids_refused=1, pids_peak=6), True),
        (Cgroup(pids_limit=100, pids_current=2, pids_refused=1, pids_peak=6), False),
        (Cgroup(pids_limit=100, pids_current=2, pids_refused=1), True),
        (Cgroup(pids_limit=6, pids_current=2, pids_peak=6), False),
    ],
    ids=["full", "refused, now fewer", "raised since", "the kernel does not tell its peak", "just reached"],
)
def test_refusals_below_a_raised_limit_are_history(cgroup: Cgroup, ill: bool) -> None:
    view = View(Facts(0.0, engine=Engine(reach="ok"), containers=[APP], cgroups={ID: cgroup}))
    assert [item.id for item in too_many_processes(view)] == ["RES-04"] * ill
