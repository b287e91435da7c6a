"""Several platforms in one build, and attestations beside the images: in archives, in trees, in a registry."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dockyard.build.doors.buildkit.rpc import RpcError
from dockyard.kernel import binfmt
from dockyard.testing.engines import PrivateEngine
from dockyard.testing.registries import debian_registry, free_port

from .conftest import BuildClient, until_listening
from .test_buildkit import client

pytestmark = pytest.mark.root

CROSS = (
    "FROM --platform=$BUILDPLATFORM busybox AS build\nARG TARGETPLATFORM BUILDPLATFORM TARGETARCH\n"
    'RUN echo "for $TARGETPLATFORM on $BUILDPLATFORM" > /out\n'
    "FROM scratch\nARG TARGETARCH\nENV ARCH=$TARGETARCH\nCOPY --from=build /out /out\n"
)
BOTH = {"platform": "linux/amd64,linux/arm64/v8"}
FOREIGN_ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00\x01\x00\x00\x00" + bytes(100)
"""The head of a program for an arm64 machine."""


@pytest.fixture
def registry(engine: PrivateEngine, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    (tmp_path / "registry").mkdir()
    with debian_registry(tmp_path / "registry", port=port, inside=engine.inside) as host:
        until_listening(engine, port)
        yield host


class Reader:
    """The documents of a registry, asked from inside of its namespace."""

    def __init__(self, engine: PrivateEngine, host: str) -> None:
        self.engine, self.host = engine, host

    def get(self, path: str) -> Any:
        accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        command = [*self.engine.inside(), "curl", "-sfL", "-H", f"Accept: {accept}", f"http://{self.host}/v2/{path}"]
        return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)


async def test_an_index_of_two_platforms_goes_to_a_registry(builder: BuildClient, tmp_path: Path, registry: str) -> None:
    (tmp_path / "Dockerfile").write_text(CROSS)
    name = f"{registry}/both:1"
    async with client(builder, tmp_path) as made:
        answer = await made.build(BOTH, [("moby", {"name": name, "push": "true"})])
        assert "[linux/arm64 build 2/2] RUN echo \"for $TARGETPLATFORM on $BUILDPLATFORM\" > /out" in answer.vertexes()
        platforms = json.loads(answer.metadata["refs.platforms"])["Platforms"]
        assert [row["ID"] for row in platforms] == ["linux/amd64", "linux/arm64"]
        assert set(answer.result.refs.refs) == {"linux/amd64", "linux/arm64"}
    reader = Reader(builder.engine, registry)
    index = reader.get("both/manifests/1")
    assert [row["platform"]["architecture"] for row in index["manifests"]] == ["amd64", "arm64"]
    for row in index["manifests"]:
        manifest = reader.get(f"both/manifests/{row['digest']}")
        config = reader.get(f"both/blobs/{manifest['config']['digest']}")
        assert config["architecture"] == row["platform"]["architecture"]
        assert f"ARCH={config['architecture']}" in config["config"]["Env"]
    assert builder.inspect(name)["Architecture"] == "amd64", "the name leads to what runs here"
    assert answer.response["containerimage.digest"] != builder.inspect(name)["Id"]
    # And as a base: each platform takes its own, and the name stays with this machine's.
    builder.client.request("DELETE", f"/images/{name}", {"force": "1"})
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nENV NEXT=1\n")
    async with client(builder, tmp_path) as made:
        made.trees[0] = {}
        await made.build(BOTH, [("local", {})])
        assert made.trees[0]["linux_amd64/out"] == b"for linux/amd64 on linux/amd64\n"
        assert made.trees[0]["linux_arm64/out"] == b"for linux/arm64 on linux/amd64\n"
        await made.build(BOTH, [("tar", {})])
        made.trees.clear()
        await made.build(BOTH, [("tar", {})])
    with tarfile.open(fileobj=io.BytesIO(made.outputs[0])) as archive:
        assert {"linux_amd64/out", "linux_arm64/out"} <= set(archive.getnames())
    assert builder.inspect(name)["Architecture"] == "amd64"


async def test_attestations_go_along_with_a_push(builder: BuildClient, tmp_path: Path, registry: str) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG SECRET\nCOPY status /var/lib/dpkg/status\n")
    (tmp_path / "status").write_text("Package: listed\nStatus: install ok installed\nVersion: 4.2\n")
    opts = {**BOTH, "attest:sbom": "", "attest:provenance": "mode=max", "build-arg:SECRET": "hush"}
    async with client(builder, tmp_path) as made:
        answer = await made.build(opts, [("moby", {"name": f"{registry}/told:1", "push": "true"})])
        await made.build(opts, [("oci", {"name": "told:1"})])
    reader = Reader(builder.engine, registry)
    index = reader.get("told/manifests/1")
    images = [row for row in index["manifests"] if "annotations" not in row]
    about = [row for row in index["manifests"] if "annotations" in row]
    assert [row["annotations"]["vnd.docker.reference.digest"] for row in about] == [row["digest"] for row in images]
    for row in about:
        assert row["platform"] == {"architecture": "unknown", "os": "unknown"}
        layers = reader.get(f"told/manifests/{row['digest']}")["layers"]
        statements = {layer["annotations"]["in-toto.io/predicate-type"]: reader.get(f"told/blobs/{layer['digest']}") for layer in layers}
        assert set(statements) == {"https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"}
        assert [p["name"] for p in statements["https://spdx.dev/Document"]["predicate"]["packages"]] == ["listed"]
        for statement in statements.values():
            subject = statement["subject"][0]["digest"]["sha256"]
            assert "sha256:" + subject == row["annotations"]["vnd.docker.reference.digest"]
            assert "hush" not in json.dumps(statement)
    assert answer.response["containerimage.digest"].startswith("sha256:")
    with tarfile.open(fileobj=io.BytesIO(made.outputs[0])) as archive:
        top = json.load(archive.extractfile("index.json") or io.BytesIO())
        digest = top["manifests"][0]["digest"]
        inner = json.load(archive.extractfile(f"blobs/sha256/{digest[7:]}") or io.BytesIO())
        assert len(inner["manifests"]) == 4
    loaded = list(builder.client.objects("POST", "/images/load", None, made.outputs[0]))
    assert "told:1" in str(loaded)


async def test_one_platform_with_attestations_is_pushed_as_an_index(builder: BuildClient, tmp_path: Path, registry: str) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    async with client(builder, tmp_path) as made:
        await made.build({"attest:provenance": ""}, [("moby", {"name": f"{registry}/alone:1", "push": "true"})])
    builder.client.request("DELETE", f"/images/{registry}/alone:1", {"force": "1"})
    pulled = list(builder.client.objects("POST", "/images/create", {"fromImage": f"{registry}/alone", "tag": "1"}))
    assert not any("error" in message for message in pulled), pulled[-1]


async def test_annotations_are_where_they_were_asked_for(builder: BuildClient, tmp_path: Path, registry: str) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    attrs = {
        "name": f"{registry}/noted:1", "push": "true", "annotation.a": "all", "annotation-manifest[linux/arm64].b": "arm",
        "annotation-index.c": "top", "annotation-manifest-descriptor[linux/amd64].d": "row",
    }  # fmt: skip
    async with client(builder, tmp_path) as made:
        await made.build(BOTH, [("moby", attrs)])
        await made.build({}, [("moby", {"name": f"{registry}/noted:2", "push": "true", "annotation.a": "one"})])
        with pytest.raises(RpcError, match="not implemented"):
            await made.build({}, [("moby", {"annotation-planet.a": "x"})])
    reader = Reader(builder.engine, registry)
    index = reader.get("noted/manifests/1")
    assert index["annotations"] == {"c": "top"}
    assert [row.get("annotations") for row in index["manifests"]] == [{"d": "row"}, None]
    manifests = [reader.get(f"noted/manifests/{row['digest']}") for row in index["manifests"]]
    assert [each["annotations"] for each in manifests] == [{"a": "all"}, {"a": "all", "b": "arm"}]
    assert reader.get("noted/manifests/2")["annotations"] == {"a": "one"}, "one image needs no index"


async def test_a_foreign_program_says_what_is_missing(builder: BuildClient, tmp_path: Path) -> None:
    if "linux/arm64" in binfmt.emulated():
        pytest.skip("this host runs programs of arm64")
    (tmp_path / "sh").write_bytes(FOREIGN_ELF)
    (tmp_path / "sh").chmod(0o755)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY sh /bin/sh\nCOPY Dockerfile /etc/passwd\nRUN echo never\n")
    async with client(builder, tmp_path) as made:
        with pytest.raises(RpcError, match=r"exec format error: its programs are for linux/arm64, and this linux/amd64 machine"):
            await made.build({"platform": "linux/arm64"}, [("moby", {})])
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY sh /bin/sh\n")
        with pytest.raises(RpcError, match="currently support exporting manifest lists"):
            await made.build(BOTH, [("docker", {})])


async def test_a_base_that_is_not_for_the_platform_is_named(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    async with client(builder, tmp_path) as made:
        with pytest.raises(RpcError, match=r"busybox: it is here for linux/amd64 only, and for linux/arm64"):
            await made.build({"platform": "linux/arm64"}, [("moby", {})])


def test_emulators_are_found_where_they_are_enabled(tmp_path: Path) -> None:
    (tmp_path / "qemu-aarch64").write_text("enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: F\n")
    (tmp_path / "qemu-riscv64").write_text("disabled\n")
    assert binfmt.emulated(tmp_path) == ("linux/arm64",)
    assert binfmt.emulated(tmp_path / "none") == ()
