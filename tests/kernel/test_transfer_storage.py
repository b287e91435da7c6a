"""One suite for every ImageStore of the transfer room: the fake, and the storage room behind its adapter."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from dockyard.errors import DockyardError, InvalidParameter, Unavailable
from dockyard.oci import Digest, parse_reference, sha256_of
from dockyard.storage import Store
from dockyard.testing.registries import debian_registry
from dockyard.transfer import ImageStore, PulledImage, Settings, Transfer
from dockyard.transfer.adapter import StorageImages
from dockyard.transfer.fake import FakeStore
from dockyard.transfer.model import RawManifest

pytestmark = pytest.mark.root
NAME = parse_reference("registry.example/team/app:1")


def tar_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(6, wbits=31)
    return packer.compress(data) + packer.flush()


PLAIN = tar_of(hello=b"hello world" * 1000, other=os.urandom(5000))
PACKED = gzip(PLAIN)
DIFF_ID, BLOB = sha256_of(PLAIN), sha256_of(PACKED)


@pytest.fixture(params=["fake", "erofs", "extract"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ImageStore]:
    if request.param == "fake":
        yield FakeStore(tmp_path)
        return
    real = await Store.open(tmp_path / "store", snapshotter=request.param)
    yield StorageImages(real)
    assert not list((tmp_path / "store" / "ingest").iterdir()), "an ingest was left behind"
    await real.close(unmount=True)


async def call(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)


def pulled(*diff_ids: Digest) -> PulledImage:
    rootfs = {"type": "layers", "diff_ids": list(diff_ids)}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    return PulledImage(config, RawManifest("m/t", sha256_of(b"{}"), b"{}"), [(BLOB, diff_id) for diff_id in diff_ids])


async def test_a_layer_comes_in_and_goes_out_byte_for_byte(store: ImageStore) -> None:
    assert not await call(store.has_layer, DIFF_ID)

    def work() -> None:
        with store.lease():
            store.ingest_layer(io.BytesIO(PACKED), BLOB, len(PACKED), DIFF_ID)
            assert store.has_layer(DIFF_ID)
            store.add_image(pulled(DIFF_ID), [NAME, parse_reference(f"{NAME.name}@{BLOB}")])
        assert store.layer_size(DIFF_ID) == len(PLAIN)
        assert b"".join(store.read_layer(DIFF_ID, 1000)) == PLAIN
        image = store.image(NAME)
        assert image is not None
        assert store.image_id(NAME) == store.image_id(parse_reference(f"{NAME.name}@{BLOB}")) == sha256_of(image.config)
        assert list(image.layers) == [DIFF_ID]
        assert image.manifest is not None
        assert image.manifest.raw == b"{}"
        assert store.tags(NAME.name) == [NAME]
        assert store.image(parse_reference("registry.example/team/app:2")) is None
        assert store.tags("registry.example/other") == []

    await call(work)


@pytest.mark.parametrize(
    ("data", "digest", "size", "diff_id"),
    [
        (PACKED, sha256_of(b"x"), len(PACKED), DIFF_ID),
        (PACKED, BLOB, len(PACKED) - 1, DIFF_ID),
        (PACKED, BLOB, len(PACKED) + 1, DIFF_ID),
        (PACKED, BLOB, len(PACKED), sha256_of(b"x")),
        (PACKED[:-100], BLOB, len(PACKED), DIFF_ID),
        (PACKED[:-1] + b"?", BLOB, len(PACKED), DIFF_ID),
        (b"", BLOB, 0, DIFF_ID),
    ],
    ids=["digest", "too long", "too short", "diff id", "truncated", "corrupt", "empty"],
)
async def test_wrong_bytes_are_refused_and_leave_nothing(
    store: ImageStore, data: bytes, digest: Digest, size: int, diff_id: Digest
) -> None:
    with pytest.raises(DockyardError) as caught:
        await call(store.ingest_layer, io.BytesIO(data), digest, size, diff_id)
    assert caught.value.kind in ("data loss", InvalidParameter.kind)
    assert not await call(store.has_layer, DIFF_ID)


async def test_an_error_of_the_source_passes_through(store: ImageStore) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 0:
                raise Unavailable("the registry went away")
            return super().read(100)

    with pytest.raises(Unavailable, match="the registry went away"):
        await call(store.ingest_layer, Broken(PACKED), BLOB, len(PACKED), DIFF_ID)
    assert not await call(store.has_layer, DIFF_ID)


async def test_the_same_layer_twice_at_once(store: ImageStore) -> None:
    def take() -> None:
        store.ingest_layer(io.BytesIO(PACKED), BLOB, len(PACKED), DIFF_ID)

    await asyncio.gather(call(take), call(take))
    assert await call(store.has_layer, DIFF_ID)


async def test_a_registry_round_trip(store: ImageStore, tmp_path: Path) -> None:
    def make(ref: Any) -> None:
        with store.lease():
            store.ingest_layer(io.BytesIO(PLAIN), DIFF_ID, len(PLAIN), DIFF_ID)
            store.add_image(PulledImage(pulled(DIFF_ID).config, RawManifest("m/t", BLOB, b"{}"), [(BLOB, DIFF_ID)]), [ref])

    with debian_registry(tmp_path / "registry") as host:
        ref, twin = parse_reference(f"{host}/team/app:1"), FakeStore(tmp_path / "twin")
        await call(make, ref)
        here, there = Transfer(Settings(), store), Transfer(Settings(), twin)
        items = [item async for item in await here.push(ref)]
        assert items[-1]["aux"]["Tag"] == "1"
        async for _ in await there.pull(ref):
            pass
        assert twin.image_id(ref) == await call(store.image_id, ref)
        again = [item["status"] async for item in await here.pull(ref)]
        assert again[-1] == f"Status: Image is up to date for {ref}"
        here.close()
        there.close()
