"""Restart policy ``unhealthy``: what people run side containers for (moby#28400)."""

from __future__ import annotations

import json
import time

import pytest

from dockyard.testing.engines import PrivateEngine

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
LIMIT = 30.0


def test_an_unhealthy_container_is_started_again_and_a_healthy_one_is_left_alone(engine: PrivateEngine) -> None:
    health = ("--health-interval", "200ms", "--health-retries", "2", "--health-timeout", "5s")
    for name, check in (("sick", "test ! -e /sick"), ("well", "true")):
        done = engine.docker("run", "-d", "--name", name, "--restart", "unhealthy", *health, "--health-cmd", check, "busybox", "sleep", "1000")
        assert done.returncode == 0, done.stderr
    before = {name: json.loads(engine.docker("inspect", name).stdout)[0]["State"]["Pid"] for name in ("sick", "well")}
    assert engine.docker("exec", "sick", "touch", "/sick").returncode == 0
    end = time.monotonic() + LIMIT
    while True:
        document = json.loads(engine.docker("inspect", "sick").stdout)[0]
        if document["RestartCount"] and document["State"]["Running"] and document["State"]["Pid"] != before["sick"]:
            break
        assert time.monotonic() < end, document["State"]
        time.sleep(0.1)
    assert json.loads(engine.docker("inspect", "well").stdout)[0]["State"]["Pid"] == before["well"]
    told = engine.docker("events", "--since", "0", "--until", str(int(time.time()) + 1), "--filter", "container=sick", "--format", "{{.Action}}").stdout
    assert "restart_unhealthy" in told
    engine.docker("rm", "-f", "sick", "well")
