"""kill -9 of the engine at every fault point of create, start, end and removal: nothing is lost and nothing leaks.

The "host" is a net and mount namespace of its own that outlives the daemon; each point is named by
``DOCKYARD_FAULT`` (lib.faultpoint), where the daemon ends itself with SIGKILL. A new daemon must then agree with the
kernel: every container it lists can be inspected and removed, and afterwards no mount, link, namespace, directory or
process of the data root is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from dockyard.client import Client
from dockyard.errors import DockyardError
from dockyard.testing import kit
from dockyard.testing.host import Host, until

pytestmark = pytest.mark.root

SETTLE_LIMIT = 10.0
POINTS = (
    "create.recorded", "create.rootfs", "create.volumes", "create.network", "start.mounted", "start.volumes",
    "start.network", "start.created", "start.recorded", "start.started", "settle.recorded", "settle.released",
    "remove.marked", "remove.network", "remove.rootfs", "remove.volumes", "remove.forgotten",
)  # fmt: skip


def _load(client: Client, tmp_path: Path) -> None:
    archive = kit.archive(tmp_path / "images.tar")
    list(client.objects("POST", "/images/load", body=archive.read_bytes(), headers={"Content-Type": "application/x-tar"}))


def _life(client: Client) -> None:
    """Create with a volume and a port, start, end, remove: passes every point unless the daemon dies on the way."""
    wish = {
        "Image": "busybox:latest", "Cmd": ["sh", "-c", "exit 3"], "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8099"}]}},
    }  # fmt: skip
    made = client.request("POST", "/containers/create", {"name": "victim"}, wish)["Id"]
    client.request("POST", f"/containers/{made}/start")
    assert client.request("POST", f"/containers/{made}/wait")["StatusCode"] == 3
    client.request("DELETE", f"/containers/{made}", {"v": True})


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", POINTS)
def test_nothing_is_lost_and_nothing_leaks(host: Host, tmp_path: Path, point: str) -> None:
    client = host.start()
    _load(client, tmp_path)
    client.request("POST", "/containers/create", {"name": "bystander"}, {"Image": "busybox:latest", "Cmd": ["sleep", "300"]})
    client.request("POST", "/containers/bystander/start")
    before = client.request("GET", "/containers/bystander/json")
    assert host.daemon is not None
    host.daemon.kill()
    host.daemon.wait(10)

    client = host.start(point)
    with contextlib.suppress(DockyardError):
        _life(client)
    until(host.ended, SETTLE_LIMIT)
    assert host.daemon.returncode != 0, f"the point {point} was not passed"

    client = host.start()
    after = client.request("GET", "/containers/bystander/json")
    assert after["State"]["Running"]
    assert after["State"]["Pid"] == before["State"]["Pid"], "the bystander was restarted"
    assert after["NetworkSettings"]["IPAddress"] == before["NetworkSettings"]["IPAddress"]
    assert host.inside("busybox", "ping", "-c1", "-W2", after["NetworkSettings"]["IPAddress"])
    for row in client.request("GET", "/containers/json", {"all": True}):
        document = client.request("GET", f"/containers/{row['Id']}/json")
        assert document["State"]["Status"] in {"created", "running", "exited"}
        if row["Names"] == ["/victim"] and document["State"]["Status"] == "exited":
            assert document["State"]["ExitCode"] == 3, "the exit code was lost"
        client.request("DELETE", f"/containers/{row['Id']}", {"force": True, "v": True})
    until(lambda: not any(host.leftovers().values()), SETTLE_LIMIT)
    assert client.request("GET", "/volumes")["Volumes"] == []


@pytest.mark.timeout(120)
def test_policies_are_honoured_while_no_daemon_runs(host: Host, tmp_path: Path) -> None:
    """--rm and a restart policy: conmon's exit command settles them, and the next daemon finds it so."""
    client = host.start()
    _load(client, tmp_path)
    image, wait = {"Image": "busybox:latest"}, {"Cmd": ["sh", "-c", "while [ ! -e /go/now ]; do sleep 0.1; done"]}
    gate = tmp_path / "gate"
    gate.mkdir()
    binds = {"Binds": [f"{gate}:/go"]}
    gone = image | wait | {"HostConfig": binds | {"AutoRemove": True}}
    again = image | {"Cmd": ["sh", "-c", "echo up >> /go/count; while [ ! -e /go/now ]; do sleep 0.1; done; sleep 300"]}
    again = again | {"HostConfig": binds | {"RestartPolicy": {"Name": "always"}}}
    for name, wish in (("gone", gone), ("again", again)):
        client.request("POST", "/containers/create", {"name": name}, wish)
        client.request("POST", f"/containers/{name}/start")
    victim = client.request("GET", "/containers/again/json")["State"]["Pid"]
    identity = client.request("GET", "/containers/gone/json")["Id"]
    assert host.daemon is not None
    host.daemon.kill()
    host.daemon.wait(10)

    os.kill(victim, signal.SIGKILL)
    until(lambda: (gate / "count").read_text().count("up") == 2, SETTLE_LIMIT)
    (gate / "now").touch()
    until(lambda: not (tmp_path / f"data/containers/{identity}").exists(), SETTLE_LIMIT)

    client = host.start()
    names = {row["Names"][0]: row for row in client.request("GET", "/containers/json", {"all": True})}
    assert set(names) == {"/again"}
    document = client.request("GET", "/containers/again/json")
    assert document["State"]["Running"]
    assert document["RestartCount"] == 1
    assert document["State"]["Pid"] != victim
    client.request("DELETE", "/containers/again", {"force": True})
    until(lambda: not any(host.leftovers().values()), SETTLE_LIMIT)
