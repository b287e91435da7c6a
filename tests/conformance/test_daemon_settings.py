"""Keys of daemon.json that change what containers get, seen from inside a container."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.testing.engines import PrivateEngine, private_engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
PROFILE = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}


@pytest.fixture(scope="module")
def strict(kit_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    folder = tmp_path_factory.mktemp("strict")
    profile = folder / "seccomp.json"
    profile.write_text(json.dumps(PROFILE))
    settings = {
        "no-new-privileges": True, "seccomp-profile": str(profile), "min-api-version": "1.40", "default-shm-size": "8M",
        "runtimes": {"mine": {"path": shutil.which("runc")}}, "default-runtime": "mine", "labels": ["site=here"],
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 512, "Hard": 600}}, "log-opts": {"max-size": "1m", "max-file": "2"},
    }  # fmt: skip
    with private_engine("dockyard", folder / "e", settings=settings) as made:
        assert made.docker("load", "-q", "-i", str(kit_archive)).returncode == 0
        yield made


def test_what_containers_get(strict: PrivateEngine) -> None:
    script = "grep NoNewPrivs /proc/self/status; ulimit -n; df -m /dev/shm | tail -1; mkdir /x 2>&1; true"
    done = strict.docker("run", "--rm", "busybox", "sh", "-c", script)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["NoNewPrivs:", "1"], done.stderr
    assert lines[1] == "512"
    assert lines[2].split()[1] == "8"
    assert "Operation not permitted" in lines[3]


def test_what_a_container_asks_for_itself_wins(strict: PrivateEngine) -> None:
    options = ("--security-opt", "no-new-privileges=false", "--security-opt", "seccomp=unconfined")
    done = strict.docker("run", "--rm", *options, "busybox", "sh", "-c", "mkdir /x && grep NoNewPrivs /proc/self/status")
    assert done.stdout.split() == ["NoNewPrivs:", "0"], done.stderr


def test_an_exec_has_no_more_than_its_container(strict: PrivateEngine) -> None:
    assert strict.docker("run", "-d", "--name", "held", "busybox", "sleep", "1000").returncode == 0
    done = strict.docker("exec", "held", "sh", "-c", "grep NoNewPrivs /proc/self/status; ulimit -n; ulimit -Hn")
    assert done.stdout.split() == ["NoNewPrivs:", "1", "512", "600"], done.stderr
    strict.docker("rm", "-f", "held")


def test_runtimes_that_are_not_there_are_refused(strict: PrivateEngine) -> None:
    done = strict.docker("run", "--rm", "--runtime", "nosuch", "busybox", "true")
    assert done.returncode == 125
    assert "unknown or invalid runtime name: nosuch" in done.stderr


def test_versions_and_labels_are_told(strict: PrivateEngine, ask) -> None:
    assert strict.docker("version", "-f", "{{.Server.MinAPIVersion}}").stdout.strip() == "1.40"
    assert strict.docker("info", "-f", "{{.Labels}}").stdout.strip() == "[site=here]"
    answer = ask(strict.socket, b"GET /v1.30/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", limit=20, most=4096, body_limit=5)
    assert b"client version 1.30 is too old. Minimum supported API version is 1.40" in answer
