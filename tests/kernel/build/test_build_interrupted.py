"""Builds that are broken off, through both doors: the daemon is killed, the disk is full, the client presses Ctrl-C.
Each time nothing is left, what was done is still in the cache, and the next build goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.client import Client
from dockyard.errors import DockyardError
from dockyard.testing import buildkit, kit
from dockyard.testing.engines import PrivateEngine
from dockyard.testing.host import Host, until

from .conftest import BuildClient, Built, context
from .test_build_crash import _left
from .test_build_failures import leftovers

pytestmark = pytest.mark.root

LIMIT = 20.0
FIRST, SECOND = "RUN --mount=type=cache,id=broken,target=/c echo one > /one", "RUN --mount=type=tmpfs,target=/t {}; cat /one > /two"
TEXT = f"FROM busybox\n{FIRST}\n{SECOND}\nCOPY Dockerfile /three\n"


def load(client: Client, folder: Path) -> None:
    archive = kit.archive(folder / "images.tar")
    list(client.objects("POST", "/images/load", body=archive.read_bytes(), headers={"Content-Type": "application/x-tar"}))


def classic(client: Client, text: str, files: dict[str, str | bytes] | None = None) -> Built:
    body = context({"Dockerfile": text, **(files or {})})
    return Built(list(client.objects("POST", "/build", {}, body, headers={"Content-Type": "application/x-tar"})))


async def synced(host: Host, folder: Path) -> buildkit.Answer:
    async with asyncio.timeout(60), buildkit.connected(f"{host.root}/e.sock", folder) as made:
        return await made.build({}, [("moby", {})])


# -- the daemon is killed -------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", ["build.synced", "build.prepared", "build.ran", "build.committed", "build.recorded"])
def test_the_daemon_dies_in_a_build_of_buildkits_door(host: Host, tmp_path: Path, point: str) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(TEXT.format("true"))
    client = host.start()
    load(client, tmp_path)
    assert host.daemon is not None
    host.daemon.kill()
    host.daemon.wait(10)
    host.start(point)
    with pytest.raises(Exception):  # noqa: B017 - whatever a broken connection gives
        asyncio.run(synced(host, folder))
    until(host.ended, LIMIT)

    host.start()
    until(lambda: not any(_left(host).values()), LIMIT)
    vertexes = asyncio.run(synced(host, folder)).vertexes()
    cached = [name for name, row in vertexes.items() if row.cached and "RUN" in name]
    assert len(cached) == (1 if point == "build.recorded" else 0), vertexes
    until(lambda: not any(_left(host).values()), LIMIT)


# -- the disk is full -----------------------------------------------------------------------------------------------

DISK = 64 << 20


@pytest.fixture
def small(host: Host, tmp_path: Path) -> Iterator[Client]:
    """A daemon whose data root has 64 MiB, with the kit's images in it."""
    image, data = tmp_path / "disk", host.root / "data"
    with image.open("wb") as file:
        file.truncate(DISK)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], check=True)
    data.mkdir()
    host.inside("mount", "-o", "loop", str(image), str(data))
    client = host.start()
    load(client, tmp_path)
    yield client
    assert host.daemon is not None
    host.daemon.terminate()
    host.daemon.wait(20)


def used(host: Host) -> int:
    return int(host.inside("df", "--output=used", "-B1", f"{host.root}/data").split()[-1])


TOO_MUCH = [
    ("RUN dd if=/dev/urandom of=/big bs=1M count=80", "", "returned a non-zero code: 1"),
    ("RUN --mount=type=cache,id=broken,target=/c dd if=/dev/urandom of=/c/big bs=1M count=80 || (rm /c/big; false)", "",
     "returned a non-zero code: 1"),
    ("RUN dd if=/dev/urandom of=/big bs=1M count=30", "", "no space left on device"),  # its layer does not fit beside it
    ("COPY big /big", "big", "no space left on device"),
]  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("instruction", "file", "sentence"), TOO_MUCH)
def test_the_disk_is_full_in_the_middle(host: Host, small: Client, instruction: str, file: str, sentence: str) -> None:
    text = f"FROM busybox\nRUN echo one > /one\n{instruction}\n"
    files: dict[str, str | bytes] = {file: os.urandom(35 << 20)} if file else {}
    assert classic(small, "FROM busybox\nRUN echo one > /one\n").image
    until(lambda: not any(_left(host).values()), LIMIT)
    before = used(host)
    for _ in range(3):
        built = classic(small, text, files)
        assert sentence in built.error, built.messages[-1]
        assert built.cached == 1
        until(lambda: not any(_left(host).values()), LIMIT)
        until(lambda: used(host) < before + (2 << 20), LIMIT)
    after = classic(small, "FROM busybox\nRUN echo one > /one\nRUN test $(cat /one) = one; echo two > /two\n")
    assert after.image
    assert after.cached == 1, "what was done before the disk was full is still known"


@pytest.mark.timeout(120)
def test_a_context_that_does_not_fit_is_refused_and_gone(host: Host, small: Client, tmp_path: Path) -> None:
    before = used(host)
    with pytest.raises(DockyardError, match="over the limit"):
        classic(small, "FROM busybox\nCOPY big /big\n", {"big": os.urandom(70 << 20)})
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY big /big\n")
    (folder / "big").write_bytes(os.urandom(70 << 20))
    with pytest.raises(Exception, match=r"over the limit|no space left"):
        asyncio.run(synced(host, folder))
    until(lambda: used(host) < before + (2 << 20), LIMIT)
    (folder / "big").write_bytes(b"small")
    assert asyncio.run(synced(host, folder)).response["containerimage.digest"]


# -- the client presses Ctrl-C --------------------------------------------------------------------------------------


def sleeping(seconds: str) -> bool:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"sleep\0" + seconds.encode()):
                return True
    return False


def clean(engine: PrivateEngine) -> bool:
    return not any(leftovers(engine).values())


@pytest.mark.parametrize("program", [["docker"], [sys.executable, "-m", "dockyard.cli"]], ids=["docker", "dockyard"])
def test_ctrl_c_at_the_command_line_ends_the_build(builder: BuildClient, tmp_path: Path, program: list[str]) -> None:
    seconds = f"310.{len(program)}"
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN echo done > /done\nRUN exec sleep {seconds}\n")
    environ = os.environ | {"DOCKER_BUILDKIT": "0", "DOCKER_HOST": builder.engine.host}
    with subprocess.Popen([*program, "build", str(tmp_path)], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as it:
        until(lambda: sleeping(seconds), LIMIT)
        it.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert it.wait(LIMIT) != 0
        until(lambda: not sleeping(seconds), LIMIT)
        assert time.monotonic() - began < LIMIT / 2
    until(lambda: clean(builder.engine), LIMIT)
    assert builder.build("FROM busybox\nRUN echo done > /done\n").cached == 1


async def test_ctrl_c_of_buildx_ends_the_build(builder: BuildClient, tmp_path: Path) -> None:
    """It resets its calls first and lets go of the connection a little later."""
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo done > /done\nRUN exec sleep 310.5\n")
    async with asyncio.timeout(60), buildkit.connected(str(builder.engine.socket), tmp_path) as made:
        building = asyncio.ensure_future(made.build({}))
        await asyncio.to_thread(until, lambda: sleeping("310.5"), LIMIT)
        building.cancel()
        await asyncio.gather(building, return_exceptions=True)
        await asyncio.to_thread(until, lambda: not sleeping("310.5"), LIMIT)
        await asyncio.to_thread(until, lambda: clean(builder.engine), LIMIT)
        (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo done > /done\n")
        vertexes = (await made.build({})).vertexes()
    assert [row.cached for name, row in vertexes.items() if "RUN" in name] == [True]


def test_a_client_that_leaves_while_it_sends_leaves_nothing(builder: BuildClient) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(builder.engine.socket))
        peer.sendall(b"POST /build HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        body = context({"Dockerfile": "FROM busybox\n", "big": bytes(3 << 20)})
        peer.sendall(b"%x\r\n%b\r\n" % (len(body) // 2, body[: len(body) // 2]))
    until(lambda: clean(builder.engine), LIMIT)
    until(lambda: not _spools(builder.engine), LIMIT)


def _spools(engine: PrivateEngine) -> list[str]:
    """Unnamed files below the spool that the daemon still holds open."""
    found = []
    for link in Path(f"/proc/{engine.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "/build/spool/" in (target := os.readlink(link)):
                found.append(target)
    return found
