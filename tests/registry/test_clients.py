"""Clients as people have them, unmodified, accounts on: docker through Dockyard's engine and through dockerd, skopeo,
podman. The registry runs as its command does, in the engine's network namespace.

DOCKYARD_DOCKER_CLI names another docker CLI than the installed one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dockyard.testing.engines import PrivateEngine, private_engine
from dockyard.testing.kit import archive
from dockyard.testing.registry_server import PASSWORD

pytestmark = pytest.mark.root
HOST = "127.0.0.1:5000"
CLI = os.environ.get("DOCKYARD_DOCKER_CLI", "docker")
REGISTRY = (sys.executable, "-m", "dockyard.cli", "registry")
_START = 30.0


@dataclass
class Place:
    engine: PrivateEngine
    home: Path
    podman_root: Path
    """podman refuses long paths."""

    def run(self, *words: str, told: str = "", ok: bool = True, limit: float = 100.0) -> str:
        """In the engine's namespaces; stdout and stderr together."""
        done = subprocess.run(
            self.engine.inside(*words), input=told, capture_output=True, text=True, timeout=limit,
            env=os.environ | {"DOCKER_CONFIG": str(self.home / "docker"), "REGISTRY_AUTH_FILE": str(self.home / "auth"),
                              "DOCKER_CLI_EXPERIMENTAL": "enabled"},
        )  # fmt: skip
        text = done.stdout + done.stderr
        assert (done.returncode == 0) == ok, f"{words}: {text}"
        return text

    def docker(self, *words: str, told: str = "", ok: bool = True, limit: float = 100.0) -> str:
        return self.run(CLI, "-H", self.engine.host, *words, told=told, ok=ok, limit=limit)

    def podman(self, *words: str, told: str = "", ok: bool = True) -> str:
        root = self.podman_root
        places = ("--root", f"{root}/data", "--runroot", f"{root}/run", "--tmpdir", f"{root}/tmp", "--storage-driver", "vfs")
        return self.run("podman", *places, *words, told=told, ok=ok)


@pytest.fixture(scope="module", params=["dockyard", "dockerd"])
def place(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("registry")
    with (
        private_engine(request.param, tmp_path_factory.mktemp("engine")) as engine,
        tempfile.TemporaryDirectory(prefix="dypm") as short,
    ):
        it = Place(engine, home, Path(short))
        data = ("--data", str(home / "data"))
        for user in ("alice", "bob"):
            it.run(*REGISTRY, *data, "user", "add", user, "--password-stdin", told=PASSWORD + "\n")
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(engine.inside(*REGISTRY, *data, "serve", "--listen", HOST), stdout=log, stderr=log)
        try:
            await_answer(it, process)
            yield it
        finally:
            process.terminate()
            process.wait(20)


def await_answer(it: Place, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START
    while time.monotonic() < end and process.poll() is None:
        if "ok" in subprocess.run(it.engine.inside("curl", "-s", f"http://{HOST}/health"), capture_output=True, text=True).stdout:
            return
        time.sleep(0.1)  # a real process is starting; bounded by _START
    raise RuntimeError((it.home / "log").read_text())


def login(place: Place) -> None:
    assert "Login Succeeded" in place.docker("login", "-u", "alice", "--password-stdin", HOST, told=PASSWORD)


def test_docker_from_login_to_logout(place: Place) -> None:
    refused = place.docker("login", "-u", "alice", "--password-stdin", HOST, told="wrong password", ok=False)
    assert "incorrect username or password" in refused
    login(place)
    place.docker("load", "-i", str(archive(Path("/tmp/dockyard-kit/images.tar"))))
    place.docker("tag", "busybox:latest", f"{HOST}/alice/busybox:1")
    pushed = place.docker("push", f"{HOST}/alice/busybox:1")
    assert "digest: sha256:" in pushed

    place.docker("rmi", f"{HOST}/alice/busybox:1")
    found = place.docker("search", f"{HOST}/busy")
    assert "alice/busybox" in found
    assert "schemaVersion" in place.docker("manifest", "inspect", "--insecure", f"{HOST}/alice/busybox:1")

    place.docker("tag", "busybox:latest", f"{HOST}/bob/busybox:1")
    denied = place.docker("push", f"{HOST}/bob/busybox:1", ok=False)
    assert "denied" in denied
    assert "alice/" in denied, "it says where this login may push"
    place.docker("rmi", f"{HOST}/bob/busybox:1")

    place.docker("logout", HOST)
    assert "alice/busybox" not in place.docker("search", f"{HOST}/busy"), "private"


def test_docker_pulls_what_it_pushed(place: Place) -> None:
    login(place)
    place.docker("load", "-i", str(archive(Path("/tmp/dockyard-kit/images.tar"))))
    place.docker("tag", "busybox:latest", f"{HOST}/alice/again:1")
    digest = place.docker("push", f"{HOST}/alice/again:1").split("digest: ")[1].split()[0]
    place.docker("rmi", f"{HOST}/alice/again:1")
    assert digest in place.docker("pull", f"{HOST}/alice/again:1")
    assert digest in place.docker("pull", f"{HOST}/alice/again@{digest}")
    place.docker("logout", HOST)


def test_docker_pulls_nothing_private_without_a_login(place: Place) -> None:
    nobody = place.docker("pull", f"{HOST}/alice/again:1", ok=False, limit=20.0)
    assert "denied" in nobody or "unauthorized" in nobody or "authentication required" in nobody


def test_docker_mounts_what_is_there(place: Place) -> None:
    login(place)
    place.docker("load", "-i", str(archive(Path("/tmp/dockyard-kit/images.tar"))))
    for name, told in (("mount-from", "digest: sha256:"), ("mount-to", "Mounted from alice/")):
        place.docker("tag", "busybox:latest", f"{HOST}/alice/{name}:1")
        assert told in place.docker("push", f"{HOST}/alice/{name}:1")
        place.docker("rmi", f"{HOST}/alice/{name}:1")
    place.docker("logout", HOST)


def test_docker_pulls_public_images_without_a_login(place: Place) -> None:
    place.run(*REGISTRY, "--data", str(place.home / "data"), "repo", "add", "alice/open", "--public")
    login(place)
    place.docker("load", "-i", str(archive(Path("/tmp/dockyard-kit/images.tar"))))
    place.docker("tag", "hello-world:latest", f"{HOST}/alice/open:1")
    place.docker("push", f"{HOST}/alice/open:1")
    place.docker("logout", HOST)
    place.docker("rmi", f"{HOST}/alice/open:1")
    place.docker("pull", f"{HOST}/alice/open:1")
    assert "alice/open" in place.docker("search", f"{HOST}/open")


def test_docker_logs_in_with_a_robot_token(place: Place) -> None:
    words = ("user", "token", "alice", "--label", "ci", "--level", "read")
    token = place.run(*REGISTRY, "--data", str(place.home / "data"), *words).strip()
    assert "Login Succeeded" in place.docker("login", "-u", "alice", "--password-stdin", HOST, told=token)
    place.docker("load", "-i", str(archive(Path("/tmp/dockyard-kit/images.tar"))))
    place.docker("tag", "hello-world:latest", f"{HOST}/alice/robot:1")
    refused = place.docker("push", f"{HOST}/alice/robot:1", ok=False)
    assert "denied" in refused or "lacks: push" in refused, "it may only read"
    place.docker("logout", HOST)


def test_skopeo(place: Place) -> None:
    archived = f"docker-archive:{archive(Path('/tmp/dockyard-kit/images.tar'))}:docker.io/library/hello-world:latest"
    creds, plain = f"alice:{PASSWORD}", "--tls-verify=false"
    copy = ("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", "--src-tls-verify=false")
    place.run(*copy, "--dest-creds", creds, archived, f"docker://{HOST}/alice/skopeo:v2")
    place.run(*copy, "--dest-creds", creds, "--format", "oci", archived, f"docker://{HOST}/alice/skopeo:oci")
    between = ("--src-creds", creds, "--dest-creds", creds)
    place.run(*copy, *between, f"docker://{HOST}/alice/skopeo:oci", f"docker://{HOST}/alice/skopeo-copy:oci")
    listed = json.loads(place.run("skopeo", "list-tags", plain, "--creds", creds, f"docker://{HOST}/alice/skopeo"))
    assert listed["Tags"] == ["oci", "v2"]
    seen = json.loads(place.run("skopeo", "inspect", plain, "--creds", creds, f"docker://{HOST}/alice/skopeo:oci"))
    assert seen["Os"] == "linux"
    place.run("skopeo", "delete", plain, "--creds", creds, f"docker://{HOST}/alice/skopeo:oci")
    listed = json.loads(place.run("skopeo", "list-tags", plain, "--creds", creds, f"docker://{HOST}/alice/skopeo"))
    assert listed["Tags"] == ["v2"]
    denied = place.run(*copy, "--dest-creds", creds, archived, f"docker://{HOST}/bob/skopeo:1", ok=False)
    assert "403" in denied or "denied" in denied


def test_podman(place: Place) -> None:
    plain = "--tls-verify=false"
    place.podman("load", "-i", str(archive(Path("/tmp/dockyard-kit/images.tar"))))
    place.podman("login", plain, "-u", "alice", "--password-stdin", HOST, told=PASSWORD)
    place.podman("push", plain, "hello-world:latest", f"{HOST}/alice/podman:1")
    place.podman("pull", plain, f"{HOST}/alice/podman:1")
    place.run(*REGISTRY, "--data", str(place.home / "data"), "repo", "add", "alice/podman-open", "--public")
    assert "podman-open" in place.podman("search", plain, f"{HOST}/podman")
    assert "1" in place.podman("search", plain, "--list-tags", f"{HOST}/alice/podman")
    place.podman("logout", HOST)
    place.podman("pull", plain, f"{HOST}/alice/podman:1", ok=False)
