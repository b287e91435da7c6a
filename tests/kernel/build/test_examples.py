"""The example applications, as their README says: built by docker build, run on a Dockyard network, asked over HTTP.

Here the NGINX > three Node.js > Redis one; ``make examples`` tries all. It fetches Debian packages, so the engine stands in
this host's own network namespace.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.testing.engines import PrivateEngine, private_engine

pytestmark = pytest.mark.root
EXAMPLES = Path(__file__).parents[3] / "examples"
BUILD_LIMIT = 500


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PrivateEngine]:
    with private_engine("dockyard", tmp_path / "engine", namespaces=False) as made:
        yield made


@pytest.mark.timeout(BUILD_LIMIT + 60)
def test_node_and_redis(engine: PrivateEngine) -> None:
    assert shutil.which("docker"), "scripts/setup test installs the docker CLI"
    environ = os.environ | {"DOCKER_HOST": engine.host, "DOCKER_BUILDKIT": "0", "PORT": str(_free_port())}
    base = [*_dockyard(), "image", "bootstrap", "debian:bookworm-slim"]
    subprocess.run(base, env=environ, check=True, capture_output=True, timeout=BUILD_LIMIT)
    done = subprocess.run(
        [EXAMPLES / "try", "node-redis"], env=environ, capture_output=True, text=True, timeout=BUILD_LIMIT
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "all well" in done.stdout


def _dockyard() -> list[str]:
    import sys

    return [sys.executable, "-m", "dockyard.cli"]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
