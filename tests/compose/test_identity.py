"""Config hashes equal to those that Docker Compose v5.0.2 and v2.35.0 wrote on containers of the same services.

The data were made by running both against an engine, from /project; each service of the file shows one attribute.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dockyard.compose.identity import accepted_hashes, go_duration, network_hash, service_hash, volume_hash
from dockyard.compose.loader import Request, load
from dockyard.compose.project import Project

DATA = Path(__file__).parent / "data"
HASHES = json.loads((DATA / "hash-cases.json").read_text())


class Files:
    def read(self, path: str) -> str:
        return {"/project/compose.yaml": (DATA / "hash-cases.yaml").read_text(), "/project/e.env": "X=1\n"}[path]

    def exists(self, path: str) -> bool:
        return path in {"/project/compose.yaml", "/project/e.env"}


@pytest.fixture(scope="module")
def project() -> Project:
    return load(Request(["/project/compose.yaml"], "/project", {"PATH": "/"}, profiles=["p"]), Files())


@pytest.mark.parametrize("name", sorted(HASHES))
def test_hash_is_docker_composes(project: Project, name: str) -> None:
    service = project.services[name]
    assert service_hash(service) == HASHES[name]["v5.0.2"]
    assert set(HASHES[name].values()) <= accepted_hashes(service)


def test_what_does_not_count_and_what_does(project: Project) -> None:
    service = project.services["plain"]
    same = {
        **service,
        "scale": 3,
        "pull_policy": "always",
        "build": {"context": "."},
        "profiles": ["x"],
        "depends_on": {"a": {}},
    }
    assert service_hash(same) == service_hash(service)
    assert service_hash({**service, "image": "y"}) != service_hash(service)
    assert service_hash({**service, "deploy": {"replicas": 1}}) == service_hash({**service, "deploy": {"replicas": 2}})


def test_networks_and_volumes(project: Project) -> None:
    assert (
        network_hash(project.networks["default"]) == "b33039f3af3b897fa422327c21e01b881b1340f76fb090dcb2f9417c2166b7eb"
    )
    assert network_hash(project.networks["back"]) == "8d01ed0569a08f490c7d27dae08e8f9b159b8a682b59015657db4023c916270b"
    assert volume_hash(project.volumes["data"]) == "ab271381929904e5bd080e8cd3dfb6f7a0c9f997b3fa2c052fba1da84a07b8bc"
    assert volume_hash({"name": "a"}) == volume_hash({"name": "a", "driver": "local"})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (90, "1m30s"),
        (0.5, "500ms"),
        (1.5, "1.5s"),
        (3605, "1h0m5s"),
        (0.0001, "100µs"),
        (1e-9, "1ns"),
        (60, "1m0s"),
    ],
)
def test_durations_are_gos(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
