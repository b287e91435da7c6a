"""A simulated engine for the whole session (``dockyard dryrun``, no root) and a way to type commands at it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dockyard.client import Client
from dockyard.errors import DockyardError

START_LIMIT = 60.0
RUN_LIMIT = 60.0


@dataclass
class Ran:
    code: int
    out: str
    err: str


def wait_until(condition: Callable[[], bool], what: str, limit: float = START_LIMIT) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {limit} s"
        time.sleep(0.02)


def answers(host: str) -> bool:
    try:
        with Client(host) as client:
            return client.ping(timeout=5).api_version != ""
    except DockyardError:
        return False


@pytest.fixture(scope="session")
def dry_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dry")
    host = f"unix://{folder}/dry.sock"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dockyard.cli", "dryrun", "-H", host], stdout=log, stderr=log,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        wait_until(lambda: process.poll() is not None or answers(host), "the dry run's answer")
        yield host
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()


@pytest.fixture
def environ(dry_host: str, tmp_path: Path) -> dict[str, str]:
    """For a client of the simulated engine, with a configuration of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
    return kept | {"DOCKER_HOST": dry_host, "DOCKER_CONFIG": str(tmp_path / "config"), "TZ": "UTC", "COLUMNS": "80"}


@pytest.fixture
def cli(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs ``dockyard WORDS`` in this process against the simulated engine."""
    from dockyard.cli.main import run

    for key in [key for key in os.environ if key.startswith("DOCKER_")]:
        monkeypatch.delenv(key)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)

    def type_it(*words: str) -> Ran:
        capfd.readouterr()
        code = run(list(words))
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return type_it


@pytest.fixture
def own(environ: dict[str, str]) -> Callable[..., Ran]:
    """Runs ``dockyard WORDS`` as a process of its own, with what it is to read."""

    def type_it(*words: str, typed: bytes = b"") -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "dockyard.cli", *words], env=environ, input=typed, capture_output=True,
            timeout=RUN_LIMIT,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return type_it


@pytest.fixture
def client(dry_host: str) -> Iterator[Client]:
    with Client(dry_host) as made:
        yield made
