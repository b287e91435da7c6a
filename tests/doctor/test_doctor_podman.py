"""Podman's socket: the doctor reads it as any engine's, and explains what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from dockyard.client import Client
from dockyard.doctor.collect import collect
from dockyard.doctor.examine import examine
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Severity
from dockyard.doctor.verbs.explain import matching, observed
from dockyard.errors import DockyardError


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service of its own: namespaces, storage and /run apart from the machine's."""
    if os.geteuid() or not shutil.which("podman"):
        pytest.skip("needs root and podman")
    place = tmp_path_factory.mktemp("podman")
    script = (f"mount -t tmpfs none /run; ip link set lo up; exec podman --root {place}/root --runroot {place}/runroot "
              f"--storage-driver vfs --cgroup-manager cgroupfs system service -t 0 unix://{place}/podman.sock")  # fmt: skip
    with (place / "log").open("wb") as log:
        command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script]
        service = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 30
        while not (place / "podman.sock").exists() and time.monotonic() < end and service.poll() is None:
            time.sleep(0.1)
        if not (place / "podman.sock").exists():
            pytest.skip(f"podman does not come up here: {(place / 'log').read_text()[-200:]}")
        yield f"unix://{place}/podman.sock"
    finally:
        service.terminate()
        service.wait(20)
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.root
@pytest.mark.timeout(120)
def test_podman_is_examined_and_raises_no_alarm(podman: str) -> None:
    facts = collect(Client(podman), {}, seconds=15)
    report = examine(facts, all_rules())
    assert facts.engine.reach == "ok", facts.engine.reach_detail
    assert not {"containers", "networks", "volumes", "images"} & facts.missing.keys(), facts.missing
    assert [str(item) for item in report.findings if item.severity is Severity.FAULT] == []
    assert not [check for check in report.checks if "itself failed" in check.reason]


@pytest.mark.root
@pytest.mark.timeout(120)
def test_a_refusal_of_podman_is_explained(podman: str) -> None:
    from bench.faults.lab import rootfs

    client = Client(podman, timeout=30)
    client.request("POST", "/images/create", {"fromSrc": "-", "repo": "lab", "tag": "latest"}, rootfs({}))
    body = {"Image": "lab:latest", "Cmd": ["true"]}
    client.request("POST", "/containers/create", {"name": "web"}, body)
    try:
        with pytest.raises(DockyardError) as refused:
            client.request("POST", "/containers/create", {"name": "web"}, body)
        text = f"docker run --name web\n{refused.value.message}"
        assert [item.id for item in observed(text, matching(text), podman)] == ["CTR-19"], text
    finally:
        client.request("DELETE", "/containers/web", {"force": True})
