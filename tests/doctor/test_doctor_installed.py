"""A person with plain dockerd: one pip-style install of the wheel into a fresh environment, and the doctor works on their
engine. No engine of Dockyard runs or is set up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

if TYPE_CHECKING:
    from bench.faults.lab import Lab

    LabOf = Callable[[str], Lab]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The command of a fresh environment with the wheel and what it depends on; skips where no index is in reach."""
    place = tmp_path_factory.mktemp("installed")
    source = place / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    python = [sys.executable, "-m"]
    uv = Path(sys.executable).with_name("uv")
    steps = [
        [*python, "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), str(source)],
        [*python, "venv", str(place / "venv")] if not uv.exists() else [str(uv), "venv", "--quiet", str(place / "venv")],
    ]
    for step in steps:
        _run(step)
    wheel = str(next(place.glob("*.whl")))
    into = str(place / "venv" / "bin" / "python")
    pip = [str(uv), "pip", "install", "--quiet", "--python", into] if uv.exists() else [into, "-m", "pip", "install", "--quiet"]
    _run([*pip, wheel])
    yield place / "venv" / "bin" / "dockyard"
    shutil.rmtree(place, ignore_errors=True)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode and any(word in done.stderr for word in ("onnect", "dns", "resolve", "index", "download")):
        pytest.skip(f"no package index in reach: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr


def doctor(command: Path, lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    """As a person types it, with nothing of this repository in the way."""
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run([str(command), "-H", f"unix://{lab.socket}", *words], capture_output=True, text=True, timeout=60, check=False,
                          env=environ, cwd="/")  # fmt: skip


@pytest.mark.root
@pytest.mark.timeout(400)
def test_the_doctor_works_on_plain_dockerd_from_a_wheel(installed: Path, lab_of: LabOf) -> None:
    lab = lab_of("dockerd")
    try:
        lab.network("shop", Options={"com.docker.network.bridge.name": "br-shop"})
        lab.serve("web", 80, NetworkMode="shop")
        well = doctor(installed, lab, "doctor")
        assert well.returncode in (0, 1), well.stdout + well.stderr
        lab.sh("sysctl -qw net.ipv4.ip_forward=0")
        ill = doctor(installed, lab, "doctor")
        assert ill.returncode == 2, ill.stdout + ill.stderr
        assert "NET-01" in ill.stdout
        assert "sysctl -w net.ipv4.ip_forward=1" in ill.stdout
        assert "NET-01" in doctor(installed, lab, "trace", "web", "203.0.113.1:8000").stdout
        assert "NET-03" in doctor(installed, lab, "explain", "NET-03").stdout
        cured = doctor(installed, lab, "doctor", "--apply", "NET-01", "--yes")
        assert cured.returncode == 0, cured.stdout + cured.stderr
        assert lab.sh("sysctl -n net.ipv4.ip_forward").strip() == "1"
    finally:
        lab.sh("sysctl -qw net.ipv4.ip_forward=1")
        lab.reset()
