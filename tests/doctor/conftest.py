"""Throw-away hosts for injection tests, one with dockerd and one with Dockyard's engine, each made once in a run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

if TYPE_CHECKING:
    from bench.faults.lab import Lab


@pytest.fixture(scope="session")
def lab_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Lab]]:
    from bench.faults.lab import Lab

    if os.geteuid() or not shutil.which("dockerd"):
        pytest.skip("needs root and dockerd")
    hosts: dict[str, Lab] = {}

    def get(kind: str) -> Lab:
        if kind not in hosts:
            hosts[kind] = Lab(tmp_path_factory.mktemp(f"lab-{kind}"), kind=kind)
            hosts[kind].start()
        return hosts[kind]

    try:
        yield get
    finally:
        for host in hosts.values():
            host.stop()
