"""Images in and out of a real store: save, load, commit, import, export, diff, removal, with both snapshotters."""

import asyncio
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dockyard.errors import Conflict, DataLoss, InvalidParameter, NotFound
from dockyard.kernel.mount import read_mounts
from dockyard.storage import ChangeKind, Image, Store
from dockyard.storage.bootstrap import bootstrap

pytestmark = pytest.mark.root
CACHE = Path("/var/tmp/dockyard-test-cache")


@pytest.fixture(params=["erofs", "extract"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "root", snapshotter=request.param)
    yield opened
    await opened.close(unmount=True)
    assert read_mounts(under=str(tmp_path)) == []


async def gather(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


async def chunks(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def shell(store: Store, key: str, script: str) -> None:
    root = store.mount(key)
    await asyncio.to_thread(subprocess.run, ["chroot", str(root), "/bin/sh", "-ec", script], check=True)


async def two_layers(store: Store) -> Image:
    base = await bootstrap(store, "busybox", cache=CACHE)
    store.prepare("work", base.id)
    script = "echo hi > /hello; rm -r /var/spool; mkdir /new; ln /hello /new/hard; rm -r /etc; mkdir /etc"
    await shell(store, "work", script)
    image = await store.commit("work", {"Cmd": ["cat", "/hello"]}, base=base.id, ref="app:v1", comment="test")
    store.remove("work")
    return image


async def test_commit_makes_a_layer_of_the_upper_directory(store: Store) -> None:
    image = await two_layers(store)
    assert len(image.diff_ids) == 2
    assert image.parent == store.get_image("busybox").id
    store.prepare("run", "app:v1")
    root = store.mount("run")
    assert (root / "hello").read_text() == "hi\n"
    assert not (root / "var/spool").exists()
    assert (root / "new/hard").stat().st_ino == (root / "hello").stat().st_ino
    # the directory that replaced another one shows nothing of it, but the places every container needs
    assert sorted(os.listdir(root / "etc")) in ([], ["hostname", "hosts", "mtab", "resolv.conf"])
    rows = store.history("app:v1")
    assert [row.id for row in rows] == [image.id, image.parent]
    assert rows[0].comment == "test"
    assert rows[0].size == 3


async def test_diff_names_what_changed(store: Store) -> None:
    await bootstrap(store, "busybox", cache=CACHE)
    store.prepare("work", "busybox")
    script = "echo x > /etc/passwd; touch /tmp/a; rm -r /home; rm /bin/vi; touch /bin/vi2; rm /bin/vi2"
    await shell(store, "work", script)
    assert await store.changes("work") == [
        (ChangeKind.MODIFIED, "/bin"),
        (ChangeKind.DELETED, "/bin/vi"),
        (ChangeKind.MODIFIED, "/etc"),
        (ChangeKind.MODIFIED, "/etc/passwd"),
        (ChangeKind.DELETED, "/home"),
        (ChangeKind.MODIFIED, "/tmp"),
        (ChangeKind.ADDED, "/tmp/a"),
    ]
    assert (await store.usage("work"))[0] == 2
    with tarfile.open(fileobj=io.BytesIO(await gather(store.diff("work")))) as layer:
        assert set(layer.getnames()) == {
            "bin", "bin/.wh.vi", "etc", "etc/passwd", ".wh.home", "tmp", "tmp/a",
        }  # fmt: skip


async def test_save_is_stable_and_loads_back(store: Store, tmp_path: Path) -> None:
    image = await two_layers(store)
    first, second = [await gather(store.save(["app:v1", "busybox"])) for _ in range(2)]
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert [item["RepoTags"] for item in manifest] == [["app:v1"], ["busybox:latest"]]
        for name in archive.getnames():
            if name.startswith("blobs/sha256/"):
                data = archive.extractfile(name).read()  # type: ignore[union-attr]
                assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]
    other = await Store.open(tmp_path / "other", snapshotter=store.snapshotter)
    try:
        loaded = await other.load(chunks(first))
        assert [line for row in loaded for line in row.messages] == [
            "Loaded image: app:v1", "Loaded image: busybox:latest",
        ]  # fmt: skip
        assert other.get_image("app:v1").id == image.id
        assert await gather(other.save(["app:v1", "busybox"])) == first
        other.prepare("x", "app:v1")
        assert (other.mount("x") / "hello").read_text() == "hi\n"
        await other.load(chunks(first))  # again: all there already
        assert len(other.layers.all()) == 2
        assert os.listdir(other.root / "ingest") == []
    finally:
        await other.close(unmount=True)


async def test_export_import_keeps_files_save_load_keeps_history(store: Store, tmp_path: Path) -> None:
    await two_layers(store)
    store.prepare("live", "app:v1")
    await shell(store, "live", "echo changed > /hello")
    flat = await gather(store.export("live"))
    changes = ["CMD cat /hello", "ENV A=1 B=2"]
    imported = await store.import_(chunks(flat), "flat:1", changes=changes, message="from test")
    assert len(imported.diff_ids) == 1
    assert imported.config.document.config == {"Cmd": ["/bin/sh", "-c", "cat /hello"], "Env": ["A=1", "B=2"]}
    assert [row.comment for row in store.history("flat:1")] == ["from test"]
    store.prepare("flat", "flat:1")
    assert (store.mount("flat") / "hello").read_text() == "changed\n"
    other = await Store.open(tmp_path / "other", snapshotter=store.snapshotter)
    try:
        await other.load(chunks(await gather(store.save(["app:v1"]))))
        assert len(other.history("app:v1")) == 2
        other.prepare("x", "app:v1")
        assert (other.mount("x") / "hello").read_text() == "hi\n"  # the container's change is not in the image
    finally:
        await other.close(unmount=True)


async def test_removal_frees_what_nobody_else_holds(store: Store) -> None:
    image = await two_layers(store)
    store.tag("app:v1", "app:v2")
    base = store.get_image("busybox")
    with pytest.raises(Conflict, match=r"must be forced.*referenced in multiple repositories"):
        store.remove_image(image.id)
    with pytest.raises(Conflict, match=r"unable to delete .* \(cannot be forced\) - image has dependent child images"):
        store.remove_image(base.id, force=True)
    assert [row.untagged for row in store.remove_image("app:v2")] == ["app:v2"]
    with pytest.raises(Conflict, match=r'repository reference "app:v1" \(must force\) - container 0123'):
        store.remove_image("app:v1", in_use={image.id: [("0123456789abcdef", False)]})
    store.prepare("holds", image.id)
    rows = store.remove_image("app:v1", in_use={})
    assert [(row.untagged, row.deleted) for row in rows] == [("app:v1", ""), ("", image.id)]  # layers: still held
    assert len(store.layers.all()) == 2
    store.remove("holds")
    store.collect()
    assert [layer.diff_id for layer in store.layers.all()] == list(base.diff_ids)
    rows = store.remove_image("busybox")
    assert rows[-1].deleted == base.chain_ids[0]
    assert store.layers.all() == []
    with pytest.raises(NotFound, match="No such image: busybox:latest"):
        store.get_image("busybox")


async def test_damaged_archives_are_refused_and_leave_nothing(store: Store) -> None:
    await two_layers(store)
    good = await gather(store.save(["app:v1"]))
    store.remove_image("app:v1")
    store.remove_image("busybox")
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    cut, renamed = good[: len(good) // 2], good.replace(b'"Layers"', b'"Lxyers"')
    for bad in (cut, bytes(flipped), b"no tar at all" * 100, b"", renamed):
        with pytest.raises((InvalidParameter, DataLoss)):
            await store.load(chunks(bad))
    store.collect()
    assert store.layers.all() == []
    assert os.listdir(store.root / "ingest") == []
