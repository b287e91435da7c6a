"""The thin thread: bootstrap -> layer -> snapshot -> mounted root file system, with both snapshotters, on the real
kernel."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dockyard.errors import Conflict, NotFound, Unavailable
from dockyard.kernel.mount import read_mounts
from dockyard.storage import Store
from dockyard.storage.bootstrap import bootstrap

pytestmark = pytest.mark.root


@pytest.fixture(params=["erofs", "extract"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "root", snapshotter=request.param)
    yield opened
    await opened.close(unmount=True)
    assert read_mounts(under=str(tmp_path)) == []


async def test_busybox_runs_in_its_root(store: Store, tmp_path: Path) -> None:
    image = await bootstrap(store, "busybox:latest", cache=tmp_path / "cache")
    assert image.repo_tags == ("busybox:latest",)
    assert 1_000_000 < image.size < 4_000_000
    store.prepare("one", "busybox")
    root = store.mount("one")
    assert store.mount("one") == root
    script = "id -un; ls -ld /tmp | cut -c1-10; echo changed > /etc/motd"
    command = ["chroot", str(root), "/bin/sh", "-c", script]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["root", "drwxrwxrwt"]
    assert (store.snapshots.upper("one") / "etc/motd").read_text() == "changed\n"
    await store.unmount("one")
    await store.unmount("one")
    store.remove("one")
    with pytest.raises(NotFound):
        store.path("one")


async def test_layers_are_mounted_once_and_shared(store: Store, tmp_path: Path) -> None:
    await bootstrap(store, "alpine:3.10", cache=tmp_path / "cache")
    for key in ("a", "b"):
        store.prepare(key, "alpine:3.10")
        store.mount(key)
    mounts = read_mounts(under=str(tmp_path))
    assert [row.fstype for row in mounts].count("erofs") == (store.snapshotter == "erofs")
    assert [row.fstype for row in mounts].count("overlay") == 2
    with pytest.raises(Conflict):
        store.prepare("a", "alpine:3.10")


async def test_open_heals_what_a_crash_left(store: Store, tmp_path: Path) -> None:
    """A second open of the same root, as after kill -9: nothing was closed, mounts are up, rubbish lies about."""
    await bootstrap(store, "busybox", cache=tmp_path / "cache")
    store.prepare("kept", "busybox")
    store.prepare("gone", "busybox")
    store.mount("kept")
    store.mount("gone")
    store._db.execute("DELETE FROM snapshots WHERE key='gone'")
    for place in ("ingest/half/layer.tar", "layers/999/layer.tar", "snapshots/stray/upper/x"):
        (store.root / place).parent.mkdir(parents=True)
        (store.root / place).write_text("rubbish")
    with pytest.raises(Unavailable):
        await Store.open(store.root)
    os.close(store._lock_fd)
    again = await Store.open(store.root, snapshotter=store.snapshotter)
    try:
        assert again.snapshots.is_mounted("kept")
        assert (again.mount("kept") / "bin/sh").exists()
        overlays = [row.target for row in read_mounts(under=str(tmp_path)) if row.fstype == "overlay"]
        assert overlays == [str(again.path("kept"))]
        assert [again.images.get("busybox").id] == again.images.ids()
    finally:
        await again.close(unmount=True)
    for folder, left in (("ingest", 0), ("layers", 1), ("snapshots", 1), ("trash", 0)):
        assert len(os.listdir(store.root / folder)) == left, folder
    store._lock_fd = os.open("/dev/null", os.O_RDONLY)


async def test_snapshotter_may_change_under_a_data_root(store: Store, tmp_path: Path) -> None:
    image = await bootstrap(store, "busybox", cache=tmp_path / "cache")
    other = "extract" if store.snapshotter == "erofs" else "erofs"
    store.layers.snapshotter = other
    store.prepare("x", image.id)
    assert (store.mount("x") / "bin/busybox").stat().st_size > 1_000_000


async def test_cancelled_ingest_leaves_nothing(store: Store) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * (2 << 20)
        started.set()
        await asyncio.Event().wait()

    with store.lease() as lease:
        task = asyncio.ensure_future(store.ingest_layer(endless(), lease))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.to_thread(store.threads.submit(lambda: None).result)
    assert os.listdir(store.root / "ingest") == []
