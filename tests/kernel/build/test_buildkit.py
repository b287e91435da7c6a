"""BuildKit's door of a real engine: what buildx does on the wire, by a client in Python, with real steps."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from dockyard.build.doors.buildkit.rpc import Channel, RpcError
from dockyard.build.proto import content_pb2, control_pb2
from dockyard.client import Client
from dockyard.testing import buildkit, kit
from dockyard.testing.buildkit import CONTROL
from dockyard.testing.engines import PrivateEngine, private_engine

from .conftest import BuildClient

pytestmark = pytest.mark.root
LIMIT = 60.0


class HasEngine(Protocol):
    @property
    def engine(self) -> PrivateEngine: ...


@dataclass(frozen=True)
class Peer:
    engine: PrivateEngine


@asynccontextmanager
async def client(builder: HasEngine, folder: Path, **fields: object) -> AsyncIterator[buildkit.BuildClient]:
    async with asyncio.timeout(LIMIT), buildkit.connected(str(builder.engine.socket), folder, **fields) as made:
        yield made


async def test_a_whole_build_with_a_secret_two_stages_and_a_name(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS build\nARG WHO\nCOPY src /src\nRUN --mount=type=secret,id=token cat /run/secrets/token > /out\n"
        "RUN echo $WHO; cat /src/a >> /out\nFROM busybox\nCOPY --from=build /out /out\nCMD cat /out\n"
    )
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_text("from the context\n")
    (tmp_path / "not-copied").write_bytes(os.urandom(100_000))
    async with client(builder, tmp_path, secrets={"token": b"s3cret\n"}) as made:
        answer = await made.build({"build-arg:WHO": "somebody"}, [("moby", {"name": "whole:1"}), ("tar", {})])
        assert sorted(made.requested) == ["Dockerfile", "src/a"]
        assert "somebody" in answer.log
        assert "JSONArgsRecommended" in str([row.short for part in answer.status for row in part.warnings])
        names = set(answer.vertexes())
        assert "[build 2/4] COPY src /src" in names
        with tarfile.open(fileobj=io.BytesIO(made.outputs[1])) as root:
            out = root.extractfile("out")
            assert out is not None
            assert out.read() == b"s3cret\nfrom the context\n"
        again = await made.build({"build-arg:WHO": "somebody"}, [("moby", {"name": "whole:2"})])
        assert again.response["containerimage.digest"] == answer.response["containerimage.digest"]
        assert all(vertex.cached for name, vertex in again.vertexes().items() if "/4]" in name or "/2]" in name)
    image = builder.inspect("whole:1")
    assert image["Id"] == answer.response["containerimage.digest"]
    assert sorted(image["RepoTags"]) == ["whole:1", "whole:2"]


async def test_the_client_of_these_tests_is_one_that_dockerd_serves(tmp_path: Path) -> None:
    """Else both ends of the protocol would only be what we think it is."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        "FROM busybox\nCOPY a /a\nRUN --mount=type=secret,id=token cat /run/secrets/token /a\n"
    )
    (folder / "a").write_text("from the context\n")
    root = Path(tempfile.mkdtemp(prefix="peer-", dir="/tmp"))  # containerd's sockets need short paths
    with private_engine("dockerd", root) as engine:
        engine.docker("load", "-i", str(kit.archive(tmp_path / "kit.tar")))
        async with client(Peer(engine), folder, secrets={"token": b"s3cret\n"}) as made:
            answer = await made.build({}, [("moby", {"name": "peer:1"})])
            assert sorted(made.requested) == ["Dockerfile", "a"]
        assert "s3cret\nfrom the context" in answer.log
        assert "[2/3] COPY a /a" in answer.vertexes()
        shown = engine.docker("image", "inspect", "--format", "{{.Id}}", "peer:1").stdout.strip()
        assert answer.response["containerimage.digest"] == shown


async def test_an_archive_can_be_loaded_under_its_name(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo archived > /archived\n")
    async with client(builder, tmp_path) as made:
        answer = await made.build({}, [("docker", {"name": "archived:1"})])
    with pytest.raises(Exception, match="No such image"):
        builder.inspect("archived:1")
    with Client(builder.engine.host) as api:
        loaded = list(api.objects("POST", "/images/load", None, made.outputs[0]))
    assert "archived:1" in str(loaded)
    assert builder.inspect("archived:1")["Id"] == answer.response["containerimage.digest"]


async def test_a_failing_step_names_its_line(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\n\nRUN echo about to fail && \\\n  exit 7\n")
    async with client(builder, tmp_path) as made:
        with pytest.raises(RpcError, match="did not complete successfully: exit code: 7"):
            await made.build({}, ref="failing")
        rows = await made.follow("failing")
    assert b"about to fail" in b"".join(row.msg for answer in rows for row in answer.logs)


async def test_a_linked_target_is_the_base_of_another(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo linked > /base\n")
    async with client(builder, tmp_path) as made:
        base = await made.build({})
        (tmp_path / "Dockerfile").write_text("FROM parent\nRUN cat /base > /child\nENV X=1\n")
        linked = {"parent": base.result.ref.definition}
        await made.build({"context:parent": "input:parent"}, [("moby", {"name": "child:1"})], inputs=linked)
        made.trees[0] = {}
        await made.build({"context:parent": "input:parent"}, [("local", {})], inputs=linked)
        assert made.trees[0]["child"] == b"linked\n"
    assert builder.inspect("child:1")["Config"]["Env"][-1] == "X=1"


async def test_a_client_that_leaves_ends_its_step(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo began; exec sleep 300.0625\n")
    async with client(builder, tmp_path) as made:
        building = asyncio.ensure_future(made.build({}, ref="leaving"))
        async with made.channel.open(f"{CONTROL}Status") as exchange:
            await exchange.send(control_pb2.StatusRequest(ref="leaving"))
            exchange.end()
            seen = b""
            while b"began" not in seen:
                data = await exchange.recv()
                assert data is not None
                seen += b"".join(row.msg for row in control_pb2.StatusResponse.FromString(data).logs)
        await _until(lambda: _running(b"sleep\x00300.0625"))
    building.cancel()
    await asyncio.gather(building, return_exceptions=True)
    await _until(lambda: not _running(b"sleep\x00300.0625"))


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.05)


def _running(words: bytes) -> bool:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(words):
                return True
    return False


async def test_provenance_names_the_base_and_hides_arguments(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nARG PASS\nRUN true\n")
    async with client(builder, tmp_path) as made:
        await made.build({"build-arg:PASS": "hush", "target": ""}, ref="proven")
        question = control_pb2.BuildHistoryRequest(ref="proven", early_exit=True)
        async with made.channel.open(f"{CONTROL}ListenBuildHistory") as exchange:
            await exchange.send(question)
            exchange.end()
            data = await exchange.recv()
        assert data is not None
        record = control_pb2.BuildHistoryEvent.FromString(data).record
        found = record.result.attestations[0]
        async with made.channel.open("/containerd.services.content.v1.Content/Read") as exchange:
            await exchange.send(content_pb2.ReadContentRequest(digest=found.digest))
            exchange.end()
            blob = await exchange.recv()
    assert blob is not None
    text = content_pb2.ReadContentResponse.FromString(blob).data
    assert len(text) == found.size
    assert "sha256:" + hashlib.sha256(text).hexdigest() == found.digest
    document = json.loads(text)
    assert [row["uri"].partition("?")[0] for row in document["materials"]] == ["pkg:docker/busybox@latest"]
    assert document["metadata"]["buildInvocationID"] == "proven"
    assert b"hush" not in text


async def test_an_oci_archive_carries_the_sbom_that_was_asked_for(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY status /var/lib/dpkg/status\n")
    (tmp_path / "status").write_text("Package: listed\nStatus: install ok installed\nVersion: 4.2\n")
    opts = {"attest:sbom": "generator=docker/buildkit-syft-scanner:stable-1"}
    async with client(builder, tmp_path) as made:
        await made.build(opts, [("oci", {"name": "listed:1"})])
    with tarfile.open(fileobj=io.BytesIO(made.outputs[0])) as archive:
        blobs = [archive.extractfile(member) for member in archive if member.isreg()]
        texts = [blob.read() for blob in blobs if blob is not None]
    statement = next(json.loads(text) for text in texts if text.startswith(b'{"_type"'))
    assert statement["predicateType"] == "https://spdx.dev/Document"
    assert [row["name"] for row in statement["predicate"]["packages"]] == ["listed"]


async def test_http2_without_an_upgrade_and_a_session_inside_a_call(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY f /f\n")
    (tmp_path / "f").write_text("native")
    reader, writer = await asyncio.open_unix_connection(str(builder.engine.socket))
    channel = Channel(buildkit.StreamPairWire(reader, writer))
    made = buildkit.BuildClient(channel, {"context": tmp_path, "dockerfile": tmp_path})
    running = asyncio.ensure_future(channel.run())
    metadata = [(name.lower(), value) for name, value in made.headers()]
    async with asyncio.timeout(LIMIT), channel.open(f"{CONTROL}Session", metadata) as exchange:
        serving = asyncio.ensure_future(made.serve(buildkit.ExchangeWire(exchange)))
        asked = control_pb2.SolveRequest(ref="native", session=made.id, frontend="dockerfile.v0")
        asked.exporters.add(type="image", attrs={"name": "native:1"})
        answer = await channel.ask(f"{CONTROL}Solve", asked, control_pb2.SolveResponse)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    channel.close()
    await running
    assert builder.inspect("native:1")["Id"] == answer.exporter_response["containerimage.digest"]


async def test_files_are_not_sent_twice_and_the_cache_is_told(builder: BuildClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY data /data\n")
    (tmp_path / "data").mkdir()
    for number in range(300):
        (tmp_path / "data" / f"f{number}").write_text(f"content {number}")
    async with client(builder, tmp_path) as made:
        await made.build({})
        made.requested.clear()
        (tmp_path / "data" / "f9").write_text("changed")
        await made.build({})
        assert [name for name in made.requested if name != "Dockerfile"] == ["data/f9"]
        usage = await made.channel.ask(
            f"{CONTROL}DiskUsage", control_pb2.DiskUsageRequest(), control_pb2.DiskUsageResponse
        )
        kinds = {row.record_type for row in usage.record}
        assert {"regular", "source.local"} <= kinds
