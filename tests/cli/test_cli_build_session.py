"""``dockyard build`` as BuildKit's client, without an engine: flags to wishes, directories, stores, agents, progress."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from dockyard.build.doors.buildkit import filesync
from dockyard.build.doors.buildkit.filesend import send_file
from dockyard.build.doors.buildkit.rpc import Channel, serve
from dockyard.build.doors.buildkit.session import Agents, ClientSession
from dockyard.build.doors.buildkit.spool import Shelf
from dockyard.build.doors.buildkit.status import stamp
from dockyard.build.proto import control_pb2
from dockyard.build.tree import ROOT
from dockyard.cli import flags
from dockyard.cli.buildkit.files import followed, listed
from dockyard.cli.buildkit.rows import Rows, raw
from dockyard.cli.buildkit.session import Session
from dockyard.cli.buildkit.store import LayoutStore
from dockyard.cli.buildkit.wish import Output, Wish, wish_of
from dockyard.cli.buildview import BuildView
from dockyard.cli.commands import build
from dockyard.cli.flags import UsageError
from dockyard.errors import DockyardError
from dockyard.testing.buildkit import wire_pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "c"
    (place / "d" / "deep").mkdir(parents=True)
    for name in ("Dockerfile", "a.txt", "b.txt", "d/f", "d/deep/g", ".dockerignore"):
        (place / name).write_text(name)
    (place / "link").symlink_to("d/deep")
    (place / "out").symlink_to("../../../etc")
    return place


def wish(place: Path | str, *words: str) -> Wish:
    options = flags.parse(flags.declared(build.FLAGS["build"]), [*words, str(place)])
    with ExitStack() as stack:
        return wish_of(options, str(place), build.build_args(options.all("build-arg")), stack)


def test_flags_become_the_options_of_the_frontend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hush")
    found = wish(
        folder, "--build-arg", "A=1", "--label", "l=v", "--platform", "linux/amd64,linux/arm64", "--no-cache-filter", "x,y",
        "--add-host", "h:1.2.3.4", "-m", "1g", "--target", "t", "--secret", "id=TOKEN", "--network", "host", "--sbom", "true",
        "--provenance", "mode=max", "--build-context", f"more={folder}/d", "--build-context", "i=docker-image://busybox",
        "--cache-from", "r/x:1", "--cache-to", "type=registry,ref=r/x:2,mode=max", "--pull", "-t", "r/x:3", "--push",
    )  # fmt: skip
    assert found.opts == {
        "build-arg:A": "1", "label:l": "v", "platform": "linux/amd64,linux/arm64", "no-cache": "x,y", "add-hosts": "h=1.2.3.4",
        "memory": str(1 << 30), "target": "t", "force-network-mode": "host", "attest:sbom": "", "attest:provenance": "mode=max",
        "context:more": "local:more", "context:i": "docker-image://busybox", "image-resolve-mode": "pull", "filename": "Dockerfile",
    }  # fmt: skip
    assert found.secrets == {"TOKEN": b"hush"}
    assert found.entitlements == ["network.host"]
    assert found.cache_from == [("registry", {"ref": "r/x:1"})]
    assert found.cache_to == [("registry", {"ref": "r/x:2", "mode": "max"})]
    assert [(each.kind, each.attrs, each.dest) for each in found.outputs] == [("moby", {"name": "r/x:3", "push": "true"}, "")]
    assert wish(folder, "--no-cache").opts["no-cache"] == ""
    noted = wish(folder, "--annotation", "a:b=c", "--annotation", "index:k=v", "--annotation", "manifest[linux/arm64]:k=v")
    assert noted.outputs[0].attrs == {"annotation.a:b": "c", "annotation-index.k": "v", "annotation-manifest[linux/arm64].k": "v"}
    assert [each.unpack for each in wish(folder, "-o", "out").outputs] == [True]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--secret", "src=x"], "id=NAME"), (["--secret", "id=x,src=/nowhere"], "cannot read /nowhere"),
        (["--secret", "id=x,env=NOT_SET_ANYWHERE"], "has no NOT_SET_ANYWHERE"), (["--ssh", "k=/etc/passwd"], "no agent's socket"),
        (["--output", "type=local"], "dest=DIRECTORY"), (["--output", "type=pigeon"], "known"), (["--push"], "needs a name"),
        (["-o", "-", "-o", "type=oci"], "only one output"), (["--build-context", "x=/nowhere"], "no directory"),
        (["--explain"], "does not go together"), (["--attest", "mode=max"], "type=sbom"), (["--cache-to", "type=local"], "dest="),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said(folder: Path, words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        wish(folder, *words)


def test_only_what_is_followed_and_not_ignored_is_listed(folder: Path) -> None:
    assert [path for path, _ in listed(folder, [], ["*.txt", "!b.txt", "d"])] == [".dockerignore", "Dockerfile", "b.txt", "link", "out"]
    assert [path for path, _ in listed(folder, ["d/deep"], [])] == ["d", "d/deep", "d/deep/g"]
    assert [path for path, _ in listed(folder, ["*.txt"], ["a*"])] == ["b.txt"]
    assert [path for path, _ in listed(folder, ["link/g"], [])] == ["d", "d/deep", "d/deep/g", "link"]
    assert [path for path, _ in listed(folder, [], ["d", "!d/deep/g"])][3:6] == ["b.txt", "d", "d/deep"]
    assert followed(folder, ["../../x", "/a.txt"]) == {"x", "a.txt"}
    assert followed(folder, ["out/passwd"]) == {"out", "etc/passwd"}, "a link leads nowhere outside"
    (folder / "loop").symlink_to("loop")
    assert followed(folder, ["loop/x"]) == {"loop"}


def test_a_layout_keeps_blobs_and_tags(tmp_path: Path) -> None:
    store = LayoutStore(tmp_path / "cache")
    assert store.tagged("latest") == ""
    ingest = store.begin()
    ingest.write(b"blob")
    digest = ingest.digest
    ingest.commit()
    ingest.abort()
    left = store.begin()
    left.write(b"cut")
    left.abort()
    assert os.listdir(tmp_path / "cache/ingest") == []
    assert b"".join(store.read(digest)) == b"blob"
    store.tag({"mediaType": "m", "digest": digest, "size": 4}, "latest")
    store.tag({"mediaType": "m", "digest": "sha256:other", "size": 4}, "v2")
    assert (store.tagged("latest"), store.tagged("v2"), store.tagged("v3")) == (digest, "sha256:other", "")
    for bad in ("sha256:../../../etc/passwd", "../x", "sha256:" + "0" * 64):
        with pytest.raises(FileNotFoundError):
            next(store.read(bad))
    (tmp_path / "cache/index.json").write_text("no json")
    assert store.tagged("latest") == ""


async def test_an_agent_is_reached_through_the_session(tmp_path: Path) -> None:
    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"agent has " + await reader.read(100))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(agent, str(tmp_path / "agent"))
    with ThreadPoolExecutor(2) as threads:
        session = Session(Wish(agents={"default": str(tmp_path / "agent")}), threads)
        ours, theirs = await wire_pair()
        channel = Channel(theirs)
        tasks = [asyncio.ensure_future(serve(ours, session.routes())), asyncio.ensure_future(channel.run())]
        agents = Agents(ClientSession("s", channel), tmp_path)
        try:
            async with asyncio.timeout(20):
                assert await agents.socket("other") is None
                path = await agents.socket("default")
                assert path is not None
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(b"hello")
                assert await reader.read() == b"agent has hello"
                writer.close()
        finally:
            await agents.aclose()
            server.close()
            for wire in (ours, theirs):
                wire.close()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("size", [1, 64 << 20])
async def test_an_output_that_cannot_be_written_says_why_to_the_engine(tmp_path: Path, size: int) -> None:
    """Also in the middle of a transfer, when the sender waits for room."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(max(1, size >> 20)):
            yield b"x" * min(size, 1 << 20)

    with ThreadPoolExecutor(2) as threads:
        session = Session(Wish(outputs=[Output("tar", {}, "/nowhere/x.tar")]), threads)
        ours, theirs = await wire_pair()
        channel = Channel(theirs)
        tasks = [asyncio.ensure_future(serve(ours, session.routes())), asyncio.ensure_future(channel.run())]
        try:
            async with asyncio.timeout(20):
                with pytest.raises(DockyardError, match=r"cannot write /nowhere/x\.tar: No such file"):
                    await send_file(ClientSession("s", channel), 0, pieces(), {}, lambda _size: None)
        finally:
            for wire in (ours, theirs):
                wire.close()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_every_file_of_a_large_directory_is_sent(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for number in range(700):
        (tmp_path / "c" / f"f{number}").write_text(str(number))
    with ThreadPoolExecutor(2) as threads:
        session = Session(Wish(directories={"context": tmp_path / "c"}), threads)
        ours, theirs = await wire_pair()
        channel = Channel(theirs)
        tasks = [asyncio.ensure_future(serve(ours, session.routes())), asyncio.ensure_future(channel.run())]
        shelf = Shelf(tmp_path)
        try:
            async with asyncio.timeout(30):
                context = await filesync.receive(channel, filesync.Wanted("context"), shelf, "", threads)
            tree = context.tree
            found = {entry.path: b"".join(tree.read(entry)) for entry in tree.walk(tree.lookup("") or ROOT) if entry.path}
            assert found == {f"f{number}": str(number).encode() for number in range(700)}
            context.close()
        finally:
            shelf.close()
            for wire in (ours, theirs):
                wire.close()
            await asyncio.gather(*tasks, return_exceptions=True)


def answer(**fields: object) -> control_pb2.StatusResponse:
    return control_pb2.StatusResponse(**fields)  # type: ignore[arg-type]


def test_progress_is_told_in_order() -> None:
    begun = control_pb2.Vertex(digest="sha256:1", name="[1/2] RUN make", started=stamp(1.0))
    ended = control_pb2.Vertex(digest="sha256:1", name="[1/2] RUN make", started=stamp(1.0), completed=stamp(2.5))
    log = control_pb2.VertexLog(vertex="sha256:1", msg=b"cc\nld\n", stream=1, timestamp=stamp(2.0))
    whole = answer(vertexes=[begun, ended], logs=[log])
    out = io.StringIO()
    BuildView(plain=True, quiet=False, out=out).show(Rows(plain=True).feed(whole))
    assert out.getvalue() == "\n#1 [1/2] RUN make\n#1 cc\n#1 ld\n#1 DONE 1.5s\n"
    out = io.StringIO()
    BuildView(plain=False, quiet=False, out=out).show(Rows(plain=False).feed(whole))
    assert out.getvalue().split() == ["[1/2]", "RUN", "make", "1.5s"]
    document = json.loads(raw(whole))
    assert document["vertexes"][1]["completed"] == "1970-01-01T00:00:02.5Z"
    assert document["logs"][0]["data"] == "Y2MKbGQK"
