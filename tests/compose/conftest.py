"""One dry-run engine for the module's tests: the whole API on simulated containers, no root."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockyard.cli.compose.main import main
from dockyard.client import Client

START_LIMIT = 30.0


@pytest.fixture(scope="session")
def dry_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("dry") / "engine.sock"
    log = path.with_suffix(".log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "dockyard.cli", "dryrun", "-H", f"unix://{path}"], stdout=log, stderr=log
    )
    end = time.monotonic() + START_LIMIT
    while True:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(path))
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the dry run did not start: {path.with_suffix('.log').read_text()}") from None
                time.sleep(0.02)  # a process is starting; bounded by START_LIMIT
    yield f"unix://{path}"
    process.send_signal(signal.SIGTERM)
    process.wait(START_LIMIT)
    log.close()


@pytest.fixture
def client(dry_host: str) -> Iterator[Client]:
    with Client(dry_host) as made:
        yield made


@pytest.fixture
def compose(
    dry_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """Runs a compose command in a directory of its own; gives stdout and stderr together, checks the exit code."""
    directory = tmp_path / "shop"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("DOCKER_HOST", dry_host)
    for name in [name for name in os.environ if name.startswith("COMPOSE_")]:
        monkeypatch.delenv(name)

    def call(*words: str, status: int = 0, file: str | None = None) -> str:
        if file is not None:
            (directory / "compose.yaml").write_text(file)
        capfd.readouterr()
        code = main(list(words))
        told = capfd.readouterr()
        assert code == status, told.out + told.err
        return told.out + told.err

    yield call
    if (directory / "compose.yaml").exists():
        main(["--progress", "quiet", "down", "-v", "--remove-orphans", "-t", "0"])
