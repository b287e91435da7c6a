"""``dockyard build`` with what only BuildKit's protocol carries: secrets, agents, outputs, named contexts, caches, platforms."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.testing import kit
from dockyard.testing.engines import PrivateEngine, private_engine
from dockyard.testing.registries import debian_registry, free_port

from .conftest import BuildClient, context, until_listening

pytestmark = pytest.mark.root


def dockyard(builder: BuildClient, *words: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dockyard.cli", "-H", builder.engine.host, "build", *words]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=100, env={**os.environ, **env})


def write(folder: Path, **files: str) -> str:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return str(folder)


def test_secrets_from_a_file_and_from_the_environment(builder: BuildClient, tmp_path: Path) -> None:
    place = write(tmp_path / "c", Dockerfile=(
        "FROM busybox\nRUN --mount=type=secret,id=a cat /run/secrets/a\nRUN --mount=type=secret,id=b,env=B echo env-$B\n"
    ))  # fmt: skip
    (tmp_path / "token").write_text("from-file\n")
    done = dockyard(
        builder, "--no-cache", "--progress", "plain", "--secret", f"id=a,src={tmp_path}/token", "--secret", "id=b,env=TOKEN",
        "-t", "sec:1", "--iidfile", str(tmp_path / "id"), "--metadata-file", str(tmp_path / "meta"), place, TOKEN="hush",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"from-file" in done.stdout
    assert b"env-hush" in done.stdout
    assert b"[2/3] RUN --mount=type=secret,id=a" in done.stdout
    image = builder.inspect("sec:1")["Id"]
    assert (tmp_path / "id").read_text() == image
    metadata = json.loads((tmp_path / "meta").read_text())
    assert metadata["containerimage.config.digest"] == image
    assert metadata["containerimage.descriptor"]["digest"] == image
    assert "sec:1" in metadata["image.name"]
    missing = dockyard(builder, "--secret", "id=a,src=/nowhere", place)
    assert missing.returncode != 0
    assert b"secret a: cannot read /nowhere" in missing.stderr


def test_dockerd_serves_us_too(tmp_path: Path) -> None:
    place = write(tmp_path / "c", Dockerfile="FROM busybox\nCOPY f /f\nRUN --mount=type=secret,id=a cat /run/secrets/a > /s\n", f="file")
    root = Path(tempfile.mkdtemp(prefix="peer-", dir="/tmp"))  # containerd's sockets need short paths
    with private_engine("dockerd", root) as engine:
        engine.docker("load", "-i", str(kit.archive(tmp_path / "kit.tar")))
        peer = BuildClient(engine)
        done = dockyard(peer, "--secret", "id=a,env=TOKEN", "-t", "peer:1", place, TOKEN="hush")
        assert done.returncode == 0, done.stderr
        assert peer.inspect("peer:1")["Id"]
        out = dockyard(peer, "--secret", "id=a,env=TOKEN", "-o", str(tmp_path / "out"), place, TOKEN="hush")
        assert out.returncode == 0, out.stderr
        assert (tmp_path / "out/f").read_text() + (tmp_path / "out/s").read_text() == "filehush"
        peer.client.close()


def test_an_agent_is_there_for_the_step_that_asks(builder: BuildClient, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        place = write(tmp_path / "c", Dockerfile="FROM busybox\nRUN --mount=type=ssh,required=true test -S $SSH_AUTH_SOCK\n")
        done = dockyard(builder, "--no-cache", "--ssh", "default", place, SSH_AUTH_SOCK=str(tmp_path / "agent"))
        assert done.returncode == 0, done.stderr
    refused = dockyard(builder, "--ssh", "default", place, SSH_AUTH_SOCK="")
    assert b"SSH_AUTH_SOCK is not set" in refused.stderr


def test_outputs_to_a_directory_a_tar_and_an_archive(builder: BuildClient, tmp_path: Path) -> None:
    place = write(tmp_path / "c", Dockerfile="FROM scratch\nCOPY a b /d/\n", a="one", b="two")
    (tmp_path / "c" / ".dockerignore").write_text("b*\n!b\n")
    done = dockyard(builder, "-o", str(tmp_path / "out"), "-o", f"type=tar,dest={tmp_path}/t.tar", "-o", f"type=oci,dest={tmp_path}/o.tar", "-t", "x:1", place)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/d/a").read_text() + (tmp_path / "out/d/b").read_text() == "onetwo"
    with tarfile.open(tmp_path / "t.tar") as archive:
        assert "d/a" in archive.getnames()
    with tarfile.open(tmp_path / "o.tar") as archive:
        assert "index.json" in archive.getnames()
    out = dockyard(builder, "-o", "-", place)
    assert out.returncode == 0
    assert b"ustar" in out.stdout[:512]
    assert b"[1/1] COPY a b /d/" in out.stderr or b"COPY a b /d/" in out.stderr
    no = dockyard(builder, "-o", "type=oci,dest=/nowhere/x.tar", place)
    assert no.returncode != 0
    assert b"cannot write /nowhere/x.tar" in no.stderr
    two = dockyard(builder, "--platform", "linux/amd64,linux/arm64", "-o", str(tmp_path / "both"), place)
    assert two.returncode == 0, two.stderr
    assert sorted(os.listdir(tmp_path / "both")) == ["linux_amd64", "linux_arm64"]


def test_named_contexts_stdin_and_filters(builder: BuildClient, tmp_path: Path) -> None:
    place = write(tmp_path / "c", Dockerfile="FROM base AS one\nCOPY --from=more f /f\nRUN cat /f; date +%s%N > /t\n")
    write(tmp_path / "more", f="from-more\n")
    words = ("--build-context", f"more={tmp_path}/more", "--build-context", "base=docker-image://busybox", "--progress", "plain")
    done = dockyard(builder, *words, "-t", "named:1", place)
    assert b"from-more" in done.stdout, done.stderr
    assert b"CACHED" in dockyard(builder, *words, place).stdout
    again = dockyard(builder, *words, "--no-cache-filter", "one", "-t", "named:2", place)
    assert builder.inspect("named:1")["Id"] != builder.inspect("named:2")["Id"], again.stderr
    typed = dockyard(builder, *words, "-f", "-", place, stdin=b"FROM busybox\nCOPY Dockerfile /seen\n")
    assert typed.returncode == 0, typed.stderr
    body = context({"Dockerfile": "FROM scratch\nCOPY x /x\n", "x": "1"})
    piped = dockyard(builder, "-o", str(tmp_path / "piped"), "-", stdin=body)
    assert piped.returncode == 0, piped.stderr
    assert (tmp_path / "piped" / "x").read_text() == "1"


def test_a_cache_in_a_directory(builder: BuildClient, tmp_path: Path) -> None:
    place = write(tmp_path / "c", Dockerfile="FROM busybox AS a\nRUN date +%s%N > /t\nFROM scratch\nCOPY --from=a /t /t\n")
    first = dockyard(builder, "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max", "-q", place)
    assert first.returncode == 0, first.stderr
    assert json.loads((tmp_path / "cache/index.json").read_text())["manifests"][0]["annotations"]
    builder.client.request("DELETE", f"/images/{first.stdout.decode().strip()}", {"force": "1"})
    builder.client.request("POST", "/build/prune", {"all": "1"})
    second = dockyard(builder, "--cache-from", f"type=local,src={tmp_path}/cache", "-q", place)
    assert second.stdout == first.stdout
    shutil.rmtree(tmp_path / "cache")
    third = dockyard(builder, "--cache-from", f"type=local,src={tmp_path}/cache", "--progress", "plain", place)
    assert third.returncode == 0, third.stderr
    assert b"cannot be used" in third.stdout


def test_progress_and_failures(builder: BuildClient, tmp_path: Path) -> None:
    place = write(tmp_path / "c", Dockerfile="FROM busybox\nRUN echo so far; exit 9\n")
    failed = dockyard(builder, "-o", str(tmp_path / "never"), place)
    assert failed.returncode == 1
    assert b"so far" in failed.stdout
    assert b"exit code: 9" in failed.stderr
    raw = dockyard(builder, "--progress", "rawjson", place)
    rows = [json.loads(line) for line in raw.stderr.splitlines() if line.startswith(b"{")]
    assert any("so far" in str(row) or "c28gZmFy" in str(row) for row in rows)
    assert raw.returncode == 1
    (tmp_path / "c" / "odd").symlink_to("nowhere")
    gone = dockyard(builder, "-f", "-", "-o", str(tmp_path / "never"), place, stdin=b"FROM scratch\nCOPY missing /m\n")
    assert gone.returncode == 1
    assert b"not found" in gone.stderr
    assert b"Traceback" not in gone.stderr
    wrong = dockyard(builder, "--squash", "--secret", "id=x,env=HOME", place)
    assert b"--squash does not go together" in wrong.stderr
    for words in (("-o", "type=carrier-pigeon"), ("--secret", "nothing"), ("--build-context", "x=/nowhere"), ("--push",)):
        refused = dockyard(builder, *words, place)
        assert refused.returncode != 0
        assert b"Traceback" not in refused.stderr


@pytest.fixture
def registry(engine: PrivateEngine, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    (tmp_path / "registry").mkdir()
    with debian_registry(tmp_path / "registry", port=port, inside=engine.inside) as host:
        until_listening(engine, port)
        yield host


def test_a_plain_reference_is_a_cache_here_or_in_its_registry(builder: BuildClient, tmp_path: Path, registry: str) -> None:
    place = write(tmp_path / "c", Dockerfile="FROM busybox\nRUN date +%s%N > /t\n")
    name = f"{registry}/plain:1"
    words = ("--cache-to", "type=inline", "--progress", "plain", place)
    first = dockyard(builder, "-t", name, "--push", "--iidfile", str(tmp_path / "id"), *words)
    assert first.returncode == 0, first.stderr
    here = dockyard(builder, "--cache-from", name, "--iidfile", str(tmp_path / "id1"), *words)
    assert (tmp_path / "id1").read_text() == (tmp_path / "id").read_text(), here.stderr
    builder.client.request("DELETE", f"/images/{name}", {"force": "1"})
    builder.client.request("POST", "/build/prune", {"all": "1"})
    there = dockyard(builder, "--cache-from", name, "--iidfile", str(tmp_path / "id2"), *words)
    assert (tmp_path / "id2").read_text() == (tmp_path / "id").read_text(), there.stdout
    assert b"importing cache manifest from" in there.stdout


def test_a_push_of_two_platforms_with_attestations(builder: BuildClient, tmp_path: Path, registry: str) -> None:
    place = write(tmp_path / "c", Dockerfile="FROM scratch\nCOPY Dockerfile /\n")
    done = dockyard(
        builder, "--platform", "linux/amd64,linux/arm64", "--sbom", "true", "--provenance", "mode=max", "--push",
        "-t", f"{registry}/cli:1", "--metadata-file", str(tmp_path / "meta"), place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metadata = json.loads((tmp_path / "meta").read_text())
    assert metadata["containerimage.descriptor"]["mediaType"] == "application/vnd.oci.image.index.v1+json"
    shown = subprocess.run(
        builder.engine.inside("curl", "-s", "-H", "Accept: application/vnd.oci.image.index.v1+json", f"http://{registry}/v2/cli/manifests/1"),
        capture_output=True, timeout=30,
    )  # fmt: skip
    assert len(json.loads(shown.stdout)["manifests"]) == 4
