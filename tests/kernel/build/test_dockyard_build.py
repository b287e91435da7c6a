"""``dockyard build`` against a real engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import BuildClient

pytestmark = pytest.mark.root


def dockyard(builder: BuildClient, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dockyard.cli", "-H", builder.engine.host, "build", *words]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=100)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_build_says_why_a_step_ran_again(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY a /a\nRUN cat /a\n")
    (tmp_path / "a").write_text("one\n")
    first = dockyard(builder, "-t", "why:1", str(tmp_path))
    assert first.returncode == 0, first.stderr
    assert "Successfully tagged why:1" in first.stdout
    (tmp_path / "a").write_text("two\n")
    again = dockyard(builder, "-t", "why:1", "--explain", "--iidfile", str(tmp_path / "id"), str(tmp_path))
    assert "file a changed" in again.stdout
    assert (tmp_path / "id").read_text() == builder.inspect("why:1")["Id"]


def test_a_dockerfile_from_standard_input_and_a_failure(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("from the directory")
    done = dockyard(builder, "-q", "-f", "-", str(tmp_path), stdin=b"FROM busybox\nCOPY f /f\n")
    assert done.returncode == 0, done.stderr
    assert builder.inspect(done.stdout.strip())["Id"] == done.stdout.strip()
    failed = dockyard(builder, "-f", "-", str(tmp_path), stdin=b"FROM busybox\nRUN echo so far; exit 9\n")
    assert failed.returncode == 1
    assert "so far" in failed.stdout
    assert "returned a non-zero code: 9" in failed.stderr
