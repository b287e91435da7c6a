"""BuildKit's door over a builder that only copies: the protocol from both sides, on socket pairs."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dockyard.build.context import Context
from dockyard.build.doors.buildkit.door import BuildKitDoor
from dockyard.build.doors.buildkit.expected import expected
from dockyard.build.doors.buildkit.frontend import for_platform, platforms_of, request_of
from dockyard.build.doors.buildkit.ports import HostFacts
from dockyard.build.doors.buildkit.rpc import Channel, RpcError
from dockyard.build.errors import RUN_FAILED
from dockyard.build.model import Request
from dockyard.build.progress import Output, Sink, VertexDone, VertexQueued, VertexStarted
from dockyard.build.proto import control_pb2, gateway_pb2, rpc_pb2, session_pb2
from dockyard.build.service import CacheRecord, Pruned, Result
from dockyard.errors import InvalidParameter
from dockyard.testing.buildkit import BRIDGE, CONTROL, BuildClient, wire_pair

LIMIT = 30.0
FACTS = HostFacts("worker", "host", "linux/amd64", lambda: "172.17.0.1")


class CopyBuilder:
    """"Builds" by reading what the context has; ``gate`` holds builds of a Dockerfile that says WAIT."""

    def __init__(self, root: Path) -> None:
        self.root_directory = root
        self.requests: list[Request] = []
        self.files: dict[str, bytes] = {}
        self.cancelled = asyncio.Event()
        self.waiting = asyncio.Event()
        self.secret: bytes | None = None

    async def build(self, request: Request, source: Any, session: Any, sink: Sink, *, register: bool = True) -> Result:
        assert not register
        text = (await source.dockerfile(request.dockerfile)).decode()
        self.requests.append(request)
        sink(VertexQueued("sha256:1", "[1/1] " + text.splitlines()[-1]))
        sink(VertexStarted("sha256:1", 1.0))
        if "WAIT" in text:
            self.waiting.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        if "FAIL" in text:
            sink(VertexDone("sha256:1", 2.0, error="exit code 3"))
            raise RUN_FAILED(command="FAIL", exit_code=3)
        context: Context = await source.context("", ["."])
        self.files = {
            entry.path: b"".join(context.tree.read(entry))
            for entry in context.tree.walk(context.tree.lookup("")) if not entry.is_dir
        }  # fmt: skip
        self.secret = await session.secret("token")
        sink(Output("sha256:1", 1, b"hello from the step\n", 1.5))
        sink(VertexDone("sha256:1", 2.0))
        config = json.dumps({"config": {"Labels": dict(request.labels)}, "files": sorted(self.files)}).encode()
        return Result("sha256:" + hashlib.sha256(config).hexdigest(), config, ())

    @contextmanager
    def held(self, result: Result) -> Iterator[None]:
        yield

    @asynccontextmanager
    async def root(self, result: Result) -> AsyncIterator[int]:
        fd = os.open(self.root_directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    def usage(self) -> list[CacheRecord]:
        return [CacheRecord("abc", "regular", "RUN x", 10, 1, 2, 3), CacheRecord("def", "exec.cachemount", "m", 5, 1, 2, 1)]

    async def prune(self, **wish: Any) -> Pruned:
        self.pruned = wish
        return Pruned(("abc",), 10)


class MemoryImages:
    def __init__(self) -> None:
        self.images: dict[str, set[str]] = {}
        self.lent: list[str] = []

    async def register(self, result: Result, tags: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        names = tuple(f"docker.io/library/{tag}" for tag in tags)
        self.images.setdefault(result.image, set()).update(names)
        return result.image, names

    def lend(self, result: Result) -> str:
        self.lent.append(result.image)
        return "lent"

    def take_back(self, reference: str) -> None:
        self.lent.pop()

    async def save(self, packages: Sequence[Any], names: Sequence[str]) -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 50_000
        yield ",".join(names).encode()

    async def push(self, name: str, auth: Mapping[str, str], progress: Any) -> str:
        self.pushed = (name, dict(auth))
        return "sha256:0"

    async def config(self, ref: str, platform: str, auth: Mapping[str, str]) -> tuple[str, bytes]:
        return "sha256:2", ref.encode()


class Rig:
    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "root"
        self.folder = tmp_path / "context"
        for folder in (self.root, self.folder, tmp_path / "spool"):
            folder.mkdir()
        self.builder, self.images = CopyBuilder(self.root), MemoryImages()
        self.door = BuildKitDoor(
            self.builder, self.images, FACTS,  # type: ignore[arg-type]
            spool_directory=tmp_path / "spool", socket_directory=tmp_path / "sockets",
        )  # fmt: skip
        self.tasks: list[asyncio.Task[None]] = []
        self.wires: list[Any] = []

    async def client(self, shared_key: str = "key", **fields: Any) -> BuildClient:
        ours, theirs = await wire_pair()
        channel = Channel(ours)
        self._spawn(channel.run(), ours, theirs)
        self._spawn(self.door.serve_grpc(theirs))
        directories = fields.pop("directories", {"context": self.folder, "dockerfile": self.folder})
        client: BuildClient = fields.pop("kind", BuildClient)(channel, directories, **fields)
        ours, theirs = await wire_pair()
        self._spawn(client.serve(ours), ours, theirs)
        methods = list(client.routes())
        self._spawn(self.door.serve_session(theirs, client.id, shared_key=shared_key, methods=methods))
        return client

    def _spawn(self, work: Any, *wires: Any) -> None:
        self.tasks.append(asyncio.ensure_future(work))
        self.wires += wires

    async def close(self) -> None:
        self.door.close()
        for wire in self.wires:
            wire.close()
        await asyncio.wait_for(asyncio.gather(*self.tasks, return_exceptions=True), LIMIT)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    (rig.folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    yield rig
    await rig.close()


async def test_a_build_takes_files_secret_and_labels_and_names_the_image(rig: Rig) -> None:
    (rig.folder / "sub").mkdir()
    (rig.folder / "sub" / "big").write_bytes(os.urandom(3 << 20))
    (rig.folder / "empty").touch()
    (rig.folder / "link").symlink_to("sub/big")
    client = await rig.client(secrets={"token": b"s3cret"})
    answer = await client.build({"label:a": "1", "build-arg:X": "y"}, [("moby", {"name": "web:1,web:2"})])

    assert rig.builder.files["sub/big"] == (rig.folder / "sub" / "big").read_bytes()
    assert set(rig.builder.files) == {"Dockerfile", "empty", "link", "sub/big"}
    assert rig.builder.secret == b"s3cret"
    assert rig.builder.requests[0].labels == {"a": "1"}
    assert rig.builder.requests[0].build_args == {"X": "y"}
    image = answer.response["containerimage.digest"]
    assert rig.images.images[image] == {"docker.io/library/web:1", "docker.io/library/web:2"}
    assert answer.response["image.name"] == "docker.io/library/web:1,docker.io/library/web:2"
    assert answer.metadata["containerimage.config"].startswith(b'{"config"')
    assert "hello from the step" in answer.log
    names = answer.vertexes()
    assert names["[internal] load build context"].HasField("completed")
    assert names["exporting to image"].HasField("completed")


async def test_a_second_build_asks_only_for_what_changed(rig: Rig) -> None:
    for number in range(50):
        (rig.folder / f"f{number}").write_text(f"content {number}")
    client = await rig.client()
    await client.build({})
    client.requested.clear()
    (rig.folder / "f7").write_text("another")
    await client.build({})
    assert [name for name in client.requested if name != "Dockerfile"] == ["f7"]
    assert rig.builder.files["f7"] == b"another"
    assert rig.builder.files["f8"] == b"content 8"
    client.requested.clear()
    other = await rig.client(shared_key="another context")
    await other.build({})
    assert len(set(other.requested)) == 51  # nothing is shared between contexts


async def test_the_ignore_file_stays_at_the_client(rig: Rig) -> None:
    (rig.folder / ".dockerignore").write_text("secret\n")
    (rig.folder / "secret").write_text("x")
    client = await rig.client()
    await client.build({})
    assert "secret" not in rig.builder.files
    assert "secret" not in client.requested


async def test_a_failed_step_is_told_to_both_calls_and_to_the_history(rig: Rig) -> None:
    (rig.folder / "Dockerfile").write_text("FROM scratch\nRUN FAIL\n")
    client = await rig.client()
    with pytest.raises(RpcError, match="did not complete successfully: exit code: 3"):
        await client.build({}, ref="failed")
    rows = await client.follow("failed")
    done = [vertex for answer in rows for vertex in answer.vertexes if vertex.error]
    assert done[0].error == "exit code 3"
    record = (await _history(client))[-1].record
    assert record.ref == "failed"
    assert "exit code: 3" in record.error.message


async def test_a_client_that_leaves_cancels_its_build(rig: Rig) -> None:
    (rig.folder / "Dockerfile").write_text("FROM scratch\nRUN WAIT\n")
    client = await rig.client()
    building = asyncio.ensure_future(client.build({}))
    await asyncio.wait_for(rig.builder.waiting.wait(), LIMIT)
    client.channel.close()
    await asyncio.wait_for(rig.builder.cancelled.wait(), LIMIT)
    await asyncio.gather(building, return_exceptions=True)


async def test_a_status_reader_that_does_not_read_holds_nobody_up(rig: Rig) -> None:
    client = await rig.client()
    await client.build({}, ref="quiet")
    async with client.channel.open(f"{CONTROL}Status") as exchange:
        await exchange.send(control_pb2.StatusRequest(ref="quiet"))
        exchange.end()
        await client.build({})


async def test_archives_and_trees_go_to_the_client(rig: Rig) -> None:
    (rig.root / "etc").mkdir()
    (rig.root / "etc" / "motd").write_bytes(b"m" * 700_000)
    client = await rig.client()
    await client.build({}, [("docker", {"name": "x:1"})])
    assert client.outputs[0].endswith(b"x:1")
    assert len(client.outputs[0]) == 40 * 50_000 + 3
    assert not rig.images.images  # an archive records nothing
    await client.build({}, [("tar", {})])
    with tarfile.open(fileobj=io.BytesIO(client.outputs[0])) as archive:
        assert archive.getmember("etc/motd").size == 700_000
    client.trees[0] = {}
    await client.build({}, [("local", {})])
    assert client.trees[0] == {"etc": b"", "etc/motd": b"m" * 700_000}


async def test_a_push_uses_the_clients_credentials(rig: Rig) -> None:
    client = await rig.client(credentials={"registry-1.docker.io": ("ann", "pw")})
    await client.build({}, [("moby", {"name": "web:1", "push": "true"})])
    assert rig.images.pushed == ("docker.io/library/web:1", {"username": "ann", "password": "pw"})


async def test_a_context_from_standard_input(rig: Rig) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in (("Dockerfile", b"FROM scratch\nCOPY a /\n"), ("a", b"from stdin")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    client = await rig.client(uploads={"xyz": buffer.getvalue()}, directories={})
    await client.build({"context": "http://buildkit-session/xyz"})
    assert rig.builder.files["a"] == b"from stdin"


async def test_linked_targets_pass_results_as_inputs(rig: Rig) -> None:
    client = await rig.client()
    base = await client.build({"label:n": "base"})
    await client.build({"context:base": "input:base"}, inputs={"base": base.result.ref.definition})
    assert rig.builder.requests[1].contexts["base"] == "docker-image://lent"
    assert not rig.images.lent  # the build is over
    assert not rig.images.images  # nobody named it


async def test_foreign_llb_and_frontends_are_refused_clearly(rig: Rig) -> None:
    client = await rig.client()
    plain = control_pb2.SolveRequest(ref="llb", session=client.id)
    plain.definition.operations.append(b"\x1a\x00")
    with pytest.raises(RpcError, match="LLB"):
        await client.channel.ask(f"{CONTROL}Solve", plain, control_pb2.SolveResponse)
    other = control_pb2.SolveRequest(ref="fe", session=client.id, frontend="gateway.v0", frontend_attrs={"source": "x/y"})
    with pytest.raises(RpcError, match="x/y is not implemented"):
        await client.channel.ask(f"{CONTROL}Solve", other, control_pb2.SolveResponse)
    with pytest.raises(RpcError, match="NewContainer is not implemented"):
        await client.channel.ask(f"{BRIDGE}NewContainer", rpc_pb2.Empty(), rpc_pb2.Empty)


async def test_workers_cache_and_history(rig: Rig) -> None:
    client = await rig.client()
    workers = await client.channel.ask(f"{CONTROL}ListWorkers", rpc_pb2.Empty(), control_pb2.ListWorkersResponse)
    assert workers.record[0].labels["org.mobyproject.buildkit.worker.moby.host-gateway-ip"] == "172.17.0.1"
    await client.build({}, ref="one")
    question = control_pb2.DiskUsageRequest(filter=["type==exec.cachemount"])
    usage = await client.channel.ask(f"{CONTROL}DiskUsage", question, control_pb2.DiskUsageResponse)
    assert [row.id for row in usage.record] == ["def"]
    async with client.channel.open(f"{CONTROL}Prune") as exchange:
        await exchange.send(control_pb2.PruneRequest(all=True))
        exchange.end()
        pruned = [control_pb2.UsageRecord.FromString(data) async for data in _messages(exchange)]
    assert [(row.id, row.size) for row in pruned[:1]] == [("abc", 10)]
    assert pruned[1].record_type == "source.local"
    assert [event.record.ref for event in await _history(client)] == ["one"]
    await client.channel.ask(
        f"{CONTROL}UpdateBuildHistory", control_pb2.UpdateBuildHistoryRequest(ref="one", delete=True), rpc_pb2.Empty
    )
    assert not await _history(client)


async def test_files_of_a_result_can_be_read(rig: Rig) -> None:
    (rig.root / "a").mkdir()
    (rig.root / "a" / "b").write_bytes(b"0123456789")
    (rig.root / "a" / "l").symlink_to("b")
    client = await rig.client()
    asked = control_pb2.SolveRequest(ref="r", session=client.id)
    solving = asyncio.ensure_future(client.channel.ask(f"{CONTROL}Solve", asked, control_pb2.SolveResponse))
    build = [("buildkit-controlapi-buildid", "r")]

    async def ask(name: str, question: Any, answer: Any) -> Any:
        return await client.channel.ask(f"{BRIDGE}{name}", question, answer, build)

    ref = (await ask("Solve", gateway_pb2.SolveRequest(frontend="dockerfile.v0"), gateway_pb2.SolveResponse)).ref
    part = gateway_pb2.ReadFileRequest(ref=ref, file_path="/a/l", range=gateway_pb2.FileRange(offset=2, length=3))
    assert (await ask("ReadFile", part, gateway_pb2.ReadFileResponse)).data == b"234"
    rows = (await ask("ReadDir", gateway_pb2.ReadDirRequest(ref=ref, dir_path="a"), gateway_pb2.ReadDirResponse)).entries
    assert [(row.path, row.linkname) for row in rows] == [("b", ""), ("l", "b")]
    with pytest.raises(RpcError, match="no such file"):
        await ask("StatFile", gateway_pb2.StatFileRequest(ref=ref, path="nope"), gateway_pb2.StatFileResponse)
    await ask("Return", gateway_pb2.ReturnRequest(), rpc_pb2.Empty)
    assert not dict((await solving).exporter_response)


class HostileClient(BuildClient):
    path = ""

    async def _diff_copy(self, call: Any) -> None:
        stat = session_pb2.Stat(path=self.path, mode=0o644)
        await call.send(session_pb2.Packet(type=session_pb2.Packet.STAT, stat=stat))
        await call.recv()


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a\0b", "."])
async def test_a_hostile_list_of_files_is_refused(rig: Rig, path: str) -> None:
    client = await rig.client(kind=HostileClient)
    client.path = path  # type: ignore[attr-defined]
    with pytest.raises(RpcError, match="bad file name"):
        await client.build({})


def test_options_that_cannot_be_read_are_refused() -> None:
    for bad in ({"platform": "arm64"}, {"platform": "linux//v7"}, {"shm-size": "many"}, {"add-hosts": "novalue"}, {"cache-imports": "[1]"}):
        with pytest.raises(InvalidParameter):
            request_of(bad)
    request = request_of(
        {
            "no-cache": "a,b", "add-hosts": "x=1.2.3.4,y=::1", "ulimit": "nofile=1:2,nproc=3", "force-network-mode": "none",
            "cache-imports": '[{"Type": "registry", "Attrs": {"ref": "r/x"}}]', "image-resolve-mode": "pull",
        }
    )  # fmt: skip
    assert request.no_cache_stages == ("a", "b")
    assert not request.no_cache
    assert request.extra_hosts == ("x:1.2.3.4", "y:::1")
    assert request.ulimits == ("nofile=1:2", "nproc=3")
    assert request.cache_from == ("type=registry,ref=r/x",)
    assert request.pull


COPYING = b"""
FROM a AS dev
COPY huge /
FROM a AS build
COPY src/./x *.py ./
RUN --mount=type=bind,source=tools,target=/t x
ADD https://example/x /
COPY $WHAT /
FROM a
COPY --from=build /o /
COPY --from=extra e /e
COPY <<EOF /f
x
EOF
"""


def test_what_a_dockerfile_will_copy_is_known_before() -> None:
    contexts = {"extra": "local:extra"}
    assert expected(COPYING, "", contexts) == {"": {"src/x", "*.py", "tools"}, "extra": {"e"}}
    assert expected(COPYING, "dev", contexts) == {"": {"huge"}}
    assert expected(b"FROM a\nCOPY . /\nCOPY b /", "", {}) == {"": {"", "b"}}
    assert expected(b"NONSENSE", "", {}) == {}


async def _history(client: BuildClient) -> list[control_pb2.BuildHistoryEvent]:
    async with client.channel.open(f"{CONTROL}ListenBuildHistory") as exchange:
        await exchange.send(control_pb2.BuildHistoryRequest(early_exit=True))
        exchange.end()
        return [control_pb2.BuildHistoryEvent.FromString(data) async for data in _messages(exchange)]


async def _messages(exchange: Any) -> AsyncIterator[bytes]:
    while (data := await exchange.recv()) is not None:
        yield data


def test_each_platform_gets_its_own_request() -> None:
    opts = {
        "platform": "linux/arm64/v8,linux/ARM,linux/amd64,linux/arm64", "context:base": "docker-image://all",
        "context:base::linux/arm64": "docker-image://arms",
    }  # fmt: skip
    assert platforms_of(opts) == ["linux/arm64", "linux/arm/v7", "linux/amd64"]
    whole = request_of(opts, id="job")
    made = {each: for_platform(whole, each) for each in platforms_of(opts)}
    assert {name: request.contexts for name, request in made.items()} == {
        "linux/arm64": {"base": "docker-image://arms"}, "linux/arm/v7": {"base": "docker-image://all"},
        "linux/amd64": {"base": "docker-image://all"},
    }  # fmt: skip
    assert len({request.id for request in made.values()}) == 3
    with pytest.raises(InvalidParameter, match="more than"):
        platforms_of({"platform": ",".join(f"linux/x{number}" for number in range(40))})
