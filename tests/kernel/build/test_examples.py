"""The example applications, as their README says: built by docker build, run on a Dockyard network, asked over HTTP.

Here the NGINX > three Node.js > Redis one; ``make examples`` tries all. It installs Debian packages, for which the private
engine has a port that leads to the mirror; the docker CLI hands it to builds as their proxy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.testing.engines import PrivateEngine, private_engine
from dockyard.testing.uplink import uplink

pytestmark = pytest.mark.root
EXAMPLES = Path(__file__).parents[3] / "examples"
LIMIT = 500


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PrivateEngine]:
    with private_engine("dockyard", tmp_path / "engine") as made:
        yield made


@pytest.mark.timeout(LIMIT + 60)
def test_node_and_redis(engine: PrivateEngine, tmp_path: Path) -> None:
    assert shutil.which("docker"), "scripts/setup test installs the docker CLI"
    environ = os.environ | {"DOCKER_HOST": engine.host, "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": str(tmp_path)}
    base = [sys.executable, "-m", "dockyard.cli", "image", "bootstrap", "debian:bookworm-slim"]
    subprocess.run(base, env=environ, check=True, capture_output=True, timeout=LIMIT)
    network = json.loads(engine.docker("network", "inspect", "bridge").stdout)[0]
    with uplink(engine, "deb.debian.org") as port:
        proxy = f"http://{network['IPAM']['Config'][0]['Gateway']}:{port}"
        (tmp_path / "config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": proxy}}}))
        command = engine.inside(str(EXAMPLES / "try"), "node-redis")
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "all well" in done.stdout
