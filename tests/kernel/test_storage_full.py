"""A disk that fills up in the middle of a load, pull, import, commit: a clear error, a clean store, and on it goes."""

from __future__ import annotations

import io
import itertools
import os
import random
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dockyard.errors import Exhausted
from dockyard.kernel import mount as kmount
from dockyard.storage import Store

pytestmark = pytest.mark.root
SIZE = 24 << 20
TOO_MUCH = 20 << 20


@pytest.fixture(params=["erofs", "extract"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 24 MiB: ext4 in a loop device for EROFS, which cannot be mounted from tmpfs; tmpfs for the other."""
    target = tmp_path / request.param
    target.mkdir()
    if request.param == "erofs":
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, target], check=True)
    else:
        kmount.mount("disk", str(target), "tmpfs", data=f"size={SIZE}")
    yield target
    for row in reversed(kmount.read_mounts(under=str(tmp_path))):
        kmount.umount(row.target, kmount.UmountFlag.DETACH)


@pytest.fixture
async def store(disk: Path) -> AsyncIterator[Store]:
    opened = await Store.open(disk / "root", snapshotter=disk.name)
    assert opened.capabilities.erofs or disk.name == "extract", opened.capabilities.erofs_reason
    yield opened
    await opened.close(unmount=True)


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 16):
        yield data[start : start + (1 << 16)]


def layer(size: int, *, files: int = 1, seed: int = 0) -> bytes:
    out, dice = io.BytesIO(), random.Random(seed)
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(files):
            info = tarfile.TarInfo(f"file{number}")
            info.size = size // files
            tar.addfile(info, io.BytesIO(dice.randbytes(info.size)))
    return out.getvalue()


async def settle(store: Store) -> None:
    """Everything that was thrown away is really gone."""
    store.collect()
    store._trash._pool.submit(lambda: None).result(30)
    assert os.listdir(store.root / "ingest") == []
    assert os.listdir(store.root / "trash") == []
    assert len(os.listdir(store.root / "layers")) == len(store.layers.all())


async def test_import_and_load(store: Store) -> None:
    small = await store.import_(chunks(layer(1 << 20)), "small:1")
    archive = b"".join([piece async for piece in store.save(["small:1"])])
    for work in (
        lambda: store.import_(chunks(layer(TOO_MUCH + (8 << 20), seed=1)), "big:1"),
        lambda: store.import_(chunks(layer(TOO_MUCH, files=20_000, seed=2)), "many:1"),
        lambda: store.load(chunks(archive[:-1024] + layer(TOO_MUCH + (8 << 20), seed=3))),
    ):
        with pytest.raises(Exhausted, match="no space left on device"):
            await work()
        await settle(store)
        assert [image.id for image in store.list_images()] == [small.id]
    assert (await store.load(chunks(archive)))[0].id == small.id
    await store.import_(chunks(layer(2 << 20, seed=4)), "next:1")


async def test_commit(store: Store) -> None:
    base = await store.import_(chunks(layer(1 << 20)), "base:1")
    store.prepare("work", base.id)
    root = store.mount("work")
    (root / "half").write_bytes(bytes(TOO_MUCH * 2 // 3))  # what the commit must copy does not fit a second time
    with pytest.raises(Exhausted, match="no space left on device"):
        await store.commit("work", {"Cmd": ["true"]}, ref="new:1")
    await settle(store)
    assert [image.id for image in store.list_images()] == [base.id]
    (root / "half").write_bytes(b"less")
    image = await store.commit("work", {"Cmd": ["true"]}, ref="new:1")
    await store.unmount("work")
    store.remove("work")
    store.prepare("look", image.id)
    assert (store.mount("look") / "half").read_bytes() == b"less"


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(4096))


def tag_on(store: Store, image: str, names: Iterator[int]) -> None:
    for number in itertools.islice(names, 10_000):
        store.tag(image, f"name:{number}")


async def test_no_space_for_a_record(store: Store, disk: Path) -> None:
    image = await store.import_(chunks(layer(1 << 20)), "base:1")
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    names = itertools.count()
    with pytest.raises(Exhausted, match="cannot write record: no space left on device"):
        tag_on(store, image.id, names)
    assert len(store.get_image(image.id).repo_tags) == next(names)
    filler.unlink()
    store.tag(image.id, "name:again")
    assert store.get_image("name:again").id == image.id
