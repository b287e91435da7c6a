"""Docker's answers to requests about networks, asked of a private engine of ours and, where installed, of dockerd."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from dockyard.client import Client
from dockyard.errors import DockyardError
from dockyard.testing import kit, netcases
from dockyard.testing.engines import PrivateEngine, private_engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture(scope="module", params=["dockyard", "dockerd"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PrivateEngine, Client]]:
    """With the networks and the container that the cases speak of."""
    if request.param == "dockerd" and shutil.which("dockerd") is None:
        pytest.skip("dockerd is not installed")
    root = tmp_path_factory.mktemp("cases")
    images = kit.archive(root / "kit.tar")
    with private_engine(request.param, root / request.param) as made, Client(made.host, timeout=60) as client:
        list(
            client.objects(
                "POST",
                "/images/load",
                {"quiet": True},
                images.read_bytes(),
                headers={"Content-Type": "application/x-tar"},
            )
        )
        options = {"com.docker.network.bridge.name": "casebase0"}
        base = {"Name": "base", "IPAM": {"Config": [{"Subnet": "10.20.30.0/24"}]}, "Options": options}
        client.request("POST", "/networks/create", body=base)
        client.request("POST", "/networks/create", body={"Name": "auto"})
        box = {"Image": "busybox", "Cmd": ["sleep", "600"]}
        client.request("POST", "/containers/create", {"name": "box"}, box)
        client.request("POST", "/containers/box/start")
        yield made, client


def ask(client: Client, case: netcases.Case) -> tuple[int, str]:
    """(status, message); 0 for what was accepted, which is taken back."""
    method, _, path = case.path.rpartition(" ")
    try:
        client.request(method or "POST", path, body=case.body if method != "GET" else None)
    except DockyardError as error:
        return int(error.evidence.get("status", 0)), error.message
    if path == "/networks/create":
        client.request("DELETE", "/networks/case")
    if path.endswith("/connect"):
        client.request("POST", path.replace("/connect", "/disconnect"), body={"Container": "box", "Force": True})
    return 0, "accepted"


def test_answers_are_dockers(engine: tuple[PrivateEngine, Client]) -> None:
    made, client = engine
    wrong = []
    for case in netcases.CASES:
        status, told = ask(client, case)
        if made.kind == "dockerd":
            expected, pattern = (case.old, "") if case.because else (case.status, case.told)
        else:
            expected, pattern = case.status, case.told
        if status != expected or not re.search(re.escape(pattern), told):
            wrong.append(f"{case.what}: {status} {told!r}, expected {expected} {pattern!r}")
    assert not wrong, "\n".join(wrong)
