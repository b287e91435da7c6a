"""kill -9 of the daemon in the middle of a build: nothing leaks, the cache holds what was done, the next build goes on."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from dockyard.client import Client
from dockyard.errors import DockyardError
from dockyard.testing import kit
from dockyard.testing.host import Host, until

from .conftest import Built, context

pytestmark = pytest.mark.root

LIMIT = 20.0
DOCKERFILE = """FROM busybox
RUN --mount=type=cache,id=crash,target=/c echo done >> /c/n; echo one > /one
RUN --mount=type=tmpfs,target=/t --mount=type=bind,target=/src cat /one /src/Dockerfile > /two; {}
COPY Dockerfile /three
"""


def _build(client: Client, text: str) -> Built:
    headers = {"Content-Type": "application/x-tar"}
    return Built(list(client.objects("POST", "/build", {"t": "crash"}, context({"Dockerfile": text}), headers=headers)))


def _load(client: Client, tmp_path: Path) -> None:
    archive = kit.archive(tmp_path / "images.tar")
    list(client.objects("POST", "/images/load", body=archive.read_bytes(), headers={"Content-Type": "application/x-tar"}))


def _left(host: Host) -> dict[str, list[str]]:
    data = host.root / "data"
    own = {
        "runs": [p.name for p in (data / "build/run").glob("*")],
        "snapshots": [p.name for p in (data / "storage/snapshots").glob("*")],
        "states": [p.name for p in (host.root / "run/build").glob("*")],
    }
    return own | host.leftovers()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", ["build.prepared", "build.ran", "build.committed", "build.recorded"])
def test_the_daemon_dies_at(host: Host, tmp_path: Path, point: str) -> None:
    client = host.start()
    _load(client, tmp_path)
    assert host.daemon is not None
    host.daemon.kill()
    host.daemon.wait(10)
    client = host.start(point)
    with contextlib.suppress(DockyardError, ConnectionError):
        _build(client, DOCKERFILE.format("true"))
    until(host.ended, LIMIT)

    client = host.start()
    until(lambda: not any(_left(host).values()), LIMIT)
    built = _build(client, DOCKERFILE.format("true"))
    assert built.image
    assert built.cached == (1 if point == "build.recorded" else 0)
    until(lambda: not any(_left(host).values()), LIMIT)


@pytest.mark.timeout(120)
def test_a_step_that_outlives_the_daemon_is_ended(host: Host, tmp_path: Path) -> None:
    client = host.start()
    _load(client, tmp_path)
    text = DOCKERFILE.format("echo waiting; sleep 103")
    body = context({"Dockerfile": text})
    with contextlib.suppress(DockyardError, ConnectionError):
        for message in client.objects("POST", "/build", {}, body, headers={"Content-Type": "application/x-tar"}):
            if "waiting" in json.dumps(message) and "Step" not in json.dumps(message):
                assert host.daemon is not None
                host.daemon.kill()
    host.daemon.wait(10)  # type: ignore[union-attr]

    client = host.start()
    until(lambda: not any(_left(host).values()), LIMIT)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/dy-crash-{host.holder.pid}/*/cgroup.procs"))
    built = _build(client, DOCKERFILE.format("true"))
    assert built.cached == 1, "the step that was done before the kill is still known"
