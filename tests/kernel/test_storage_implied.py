"""Directories that an upper layer only implies keep the lower layer's owner, mode and attributes, with both snapshotters."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dockyard.kernel.mount import read_mounts
from dockyard.oci.documents import encode
from dockyard.storage import ChangeKind, LayerSource, Store

pytestmark = pytest.mark.root
Entry = tuple[str, dict[str, Any]]


@pytest.fixture(params=["erofs", "extract"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "root", snapshotter=request.param)
    yield opened
    await opened.close(unmount=True)
    assert read_mounts(under=str(tmp_path)) == []


def directory(name: str, mode: int, **more: Any) -> Entry:
    return name, {"type": tarfile.DIRTYPE, "mode": mode, **more}


def file(name: str) -> Entry:
    return name, {"size": 2}


def layer(*entries: Entry) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, more in entries:
            info = tarfile.TarInfo(name)
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(b"hi"))
    return out.getvalue()


async def root_of(store: Store, *layers: bytes) -> Path:
    """The merged root of an image with these layers, lowest first."""

    async def once(data: bytes) -> AsyncIterator[bytes]:
        yield data

    with store.lease() as lease:
        diff_ids = [(await store.ingest_layer(once(data), lease))[0].diff_id for data in layers]
        config = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        image = store.register_image(encode(config), layers=[LayerSource(each) for each in diff_ids])
    store.prepare("look", image.id)
    return store.mount("look")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


BASE = layer(
    directory(".", 0o700, uid=3), directory("tmp", 0o1777, uid=5, gid=6, mtime=1_000_000),
    directory("a", 0o750), directory("a/b", 0o711, pax_headers={"SCHILY.xattr.user.mark": "yes"}), file("a/b/old"),
)  # fmt: skip


async def test_the_layer_that_describes_it_says_how_it_looks(store: Store) -> None:
    root = await root_of(store, BASE, layer(file("tmp/new"), file("a/b/new"), file("only/here")))
    info = (root / "tmp").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == (0o1777, 5, 6, 1_000_000)
    assert [mode(root / name) for name in ("a", "a/b", "only", ".")] == [0o750, 0o711, 0o755, 0o700]
    assert root.stat().st_uid == 3
    assert os.getxattr(root / "a/b", "user.mark") == b"yes"
    assert sorted(os.listdir(root / "a/b")) == ["new", "old"]
    assert await store.changes("look") == [], "what was corrected is no change of the container"


async def test_the_topmost_description_wins(store: Store) -> None:
    root = await root_of(store, BASE, layer(directory("tmp", 0o700)), layer(file("tmp/new")))
    assert mode(root / "tmp") == 0o700
    (root / "tmp/mine").write_text("x")
    assert (ChangeKind.ADDED, "/tmp/mine") in await store.changes("look")


async def test_what_was_removed_in_between_says_nothing(store: Store) -> None:
    root = await root_of(
        store, BASE, layer(file(".wh.tmp"), file("a/.wh..wh..opq")), layer(file("tmp/new"), file("a/b/new"))
    )
    assert mode(root / "tmp") == 0o755
    assert (root / "tmp").stat().st_uid == 0
    assert mode(root / "a/b") == 0o755
    assert os.listdir(root / "a/b") == ["new"]


async def test_a_link_below_is_not_followed(store: Store) -> None:
    link = ("l", {"type": tarfile.SYMTYPE, "linkname": "/etc"})
    root = await root_of(store, layer(link), layer(file("l/shadow")))
    assert mode(root / "l") == 0o755
    assert os.listdir(root / "l") == ["shadow"]
