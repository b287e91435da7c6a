"""Create documents equal to those that Docker Compose v5.0.2 sent for the same services (recorded from its requests).

Compared as the engine reads them: what is empty is left out, and lists whose order means nothing are sorted. Of Compose's
own document three things are left aside: its version and image labels, its client's ConsoleSize, and an endpoint's
IPAddress, which engines ignore beside IPAMConfig.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dockyard.compose import labels
from dockyard.compose.loader import Request, load
from dockyard.compose.mounts import injected
from dockyard.compose.project import Project
from dockyard.compose.translate import Situation, Wanted, container, later_networks, network, resolve
from dockyard.errors import DockyardError, InvalidParameter, NotFound

DATA = Path(__file__).parent / "data"
DOCUMENTS = json.loads((DATA / "create-documents.json").read_text())
UNORDERED = {"Env", "Binds", "Mounts", "ExtraHosts", "Ulimits", "Links"}
SITUATION = Situation(containers={"plain": [("p" * 64, "project-plain-1")]})


class Files:
    def read(self, path: str) -> str:
        return {"/project/compose.yaml": (DATA / "hash-cases.yaml").read_text(), "/project/e.env": "X=1\n"}[path]

    def exists(self, path: str) -> bool:
        return path in {"/project/compose.yaml", "/project/e.env"}


class One:
    def __init__(self, text: str) -> None:
        self._text = text

    def read(self, path: str) -> str:
        return self._text

    def exists(self, path: str) -> bool:
        return False


@pytest.fixture(scope="module")
def project() -> Project:
    return load(Request(["/project/compose.yaml"], "/project", {"PATH": "/"}, profiles=["p"]), Files())


def small(text: str, **environment: str) -> Project:
    return load(Request(["/app/compose.yaml"], "/app", environment), One(text))


def comparable(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        if key == "ExposedPorts":
            return sorted(value)
        found = {name: comparable(item, name) for name, item in value.items() if name != "ConsoleSize"}
        if key == "Labels":
            found = {name: item for name, item in found.items() if name not in {labels.VERSION, labels.IMAGE}}
        return {name: item for name, item in found.items() if item not in (None, "", 0, False, [], {})}
    if isinstance(value, list):
        rows = [comparable(item) for item in value]
        return sorted(rows, key=json.dumps) if key in UNORDERED else rows
    return value


def as_compose(document: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = comparable(document)
    for endpoint in made.get("NetworkingConfig", {}).get("EndpointsConfig", {}).values():
        endpoint.pop("IPAddress", None)
    # The docker client writes capabilities with their prefix; engines take both.
    for key in ("CapAdd", "CapDrop"):
        if key in made["HostConfig"]:
            made["HostConfig"][key] = [name.removeprefix("CAP_") for name in made["HostConfig"][key]]
    made["HostConfig"]["Mounts"] = sorted(
        (dict(sorted(mount.items())) for mount in made["HostConfig"].get("Mounts", [])), key=json.dumps
    )
    return made


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_create_document_is_docker_composes(project: Project, name: str) -> None:
    made = container(project, Wanted(name), project.services[name], SITUATION)
    assert as_compose(made) == as_compose(
        DOCUMENTS[name] | {"ExposedPorts": {port: {} for port in DOCUMENTS[name].get("ExposedPorts", [])}}
    )


def test_references_become_containers() -> None:
    service = {"network_mode": "service:a", "pid": "service:a", "volumes_from": ["a:ro", "container:other"]}
    made = resolve(service, {"a": [("1" * 64, "app-a-1")]})
    assert made == {"network_mode": "container:" + "1" * 64, "pid": "container:" + "1" * 64,
                    "volumes_from": ["1" * 64 + ":ro", "other"]}  # fmt: skip
    with pytest.raises(NotFound, match="cannot share network namespace of service a: it has no container"):
        resolve(service, {})


def test_old_engines_get_further_networks_one_by_one(project: Project) -> None:
    old = dataclasses.replace(SITUATION, api=(1, 41))
    made = container(project, Wanted("nets"), project.services["nets"], old)
    assert list(made["NetworkingConfig"]["EndpointsConfig"]) == ["project_back"]
    later = later_networks(project, Wanted("nets"), project.services["nets"], old)
    assert later == {"project_default": {"Aliases": ["project-nets-1", "nets"]}}


def test_old_files_keep_names_links_and_bridge() -> None:
    made = small("web:\n  image: x\n  links: [db:data]\ndb:\n  image: y\n")
    situation = Situation(containers={"db": [("d" * 64, "app_db_1")]})
    document = container(made, Wanted("web"), made.services["web"], situation)
    assert document["HostConfig"]["NetworkMode"] == "bridge"
    assert document["HostConfig"]["Links"] == ["app_db_1:data", "app_db_1:db_1", "app_db_1:app_db_1"]
    assert "NetworkingConfig" not in document


def test_one_offs_have_no_number_and_their_own_labels(project: Project) -> None:
    made = container(
        project, Wanted("plain", number=0, slug="abc", aliases=False), project.services["plain"], SITUATION
    )
    assert made["Labels"][labels.ONEOFF] == "True"
    assert made["Labels"][labels.SLUG] == "abc"
    assert labels.NUMBER not in made["Labels"]
    assert made["NetworkingConfig"]["EndpointsConfig"]["project_default"]["Aliases"] == []


def test_contents_go_into_the_container() -> None:
    text = """
services: {a: {image: x, secrets: [s, {source: s, target: /etc/s, mode: "0400", uid: "5"}], configs: [c]}}
secrets: {s: {environment: TOKEN}}
configs: {c: {content: "hello"}}
"""
    made = small(text, TOKEN="t")
    assert [tuple(item) for item in injected(made, made.services["a"])] == [
        ("/run/secrets/s", b"t", 0o444, 0, 0), ("/etc/s", b"t", 0o400, 5, 0), ("/c", b"hello", 0o444, 0, 0),
    ]  # fmt: skip
    without = small(text)
    with pytest.raises(InvalidParameter, match='variable "TOKEN" is not set'):
        injected(without, without.services["a"])
    with pytest.raises(InvalidParameter, match="read_only"):
        injected(made, {**made.services["a"], "read_only": True})
    outside = small("services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {external: true}}")
    with pytest.raises(DockyardError, match="external secret s need a swarm"):
        container(outside, Wanted("a"), outside.services["a"], Situation())


def test_networks_say_what_the_file_says(project: Project) -> None:
    made = network(project, "back")
    assert made["Name"] == "project_back"
    assert made["IPAM"] == {"Driver": "default", "Config": [{"Subnet": "10.5.0.0/16"}], "Options": {}}
    assert made["Options"] == {"x": "1"}
    assert made["Labels"]["a"] == "b"
    assert made["Labels"][labels.NETWORK] == "back"


def test_security_profiles_are_sent_by_content() -> None:
    made = small(
        "services: {a: {image: x, security_opt: ['seccomp:p.json', 'systempaths=unconfined', 'no-new-privileges:true']}}"
    )
    situation = Situation(read=lambda path: '{"a": 1}')
    host = container(made, Wanted("a"), made.services["a"], situation)["HostConfig"]
    assert host["SecurityOpt"] == ['seccomp={"a":1}', "no-new-privileges:true"]
    assert host["MaskedPaths"] == []
    with pytest.raises(InvalidParameter, match="cannot read seccomp profile p"):
        container(made, Wanted("a"), made.services["a"], dataclasses.replace(situation, read=lambda path: "no"))
