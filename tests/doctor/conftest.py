"""A private engine for all injection tests of a run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    from bench.faults.lab import Lab

    if os.geteuid() or not shutil.which("dockerd"):
        pytest.skip("needs root and dockerd")
    host = Lab(tmp_path_factory.mktemp("lab"))
    try:
        host.start()
        yield host
    finally:
        host.stop()
