"""A small image store in a directory, verified by the port's contract suite: the transfer room's twin for tests.

::

    <root>/layers/<hex of diff id>.tar      plain tars            images and names are kept in memory
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from dockyard.oci import Digest, ImageRef, sha256_of

from .errors import BLOB_MISMATCH
from .ports import BlobSource, LocalImage, PulledImage

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PIECE = 1 << 18


class FakeStore:
    """Implements ports.ImageStore."""

    def __init__(self, root: Path) -> None:
        self._layers = root / "layers"
        self._layers.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._images: dict[Digest, LocalImage] = {}
        self.names: dict[str, Digest] = {}
        self.indexes: dict[Digest, bytes] = {}
        self.ingests = 0
        """Running now."""
        self.leases = 0

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        self.leases += 1
        try:
            yield
        finally:
            self.leases -= 1

    def has_layer(self, diff_id: Digest) -> bool:
        return self._path(diff_id).exists()

    def ingest_layer(self, source: BlobSource, digest: Digest, size: int, diff_id: Digest) -> None:
        path = self._path(diff_id)
        part = path.with_suffix(f".{threading.get_ident()}.part")
        self.ingests += 1
        try:
            with part.open("wb") as file:
                found, seen, plain = _copy(source, file, digest)
            if (found, seen, plain) != (digest, size, diff_id):
                raise BLOB_MISMATCH(digest=digest, found=found, size=seen)
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
            self.ingests -= 1

    def add_image(self, image: PulledImage, names: Sequence[ImageRef]) -> None:
        for _, diff_id in image.layers:
            assert self.has_layer(diff_id), f"layer {diff_id} is not in the store"
        image_id = sha256_of(image.config)
        diff_ids = [diff_id for _, diff_id in image.layers]
        with self._lock:
            self._images[image_id] = LocalImage(image.config, diff_ids, image.manifest)
            if image.index:
                self.indexes[image_id] = image.index.raw
            self.names |= {str(name): image_id for name in names}

    def image_id(self, ref: ImageRef) -> Digest | None:
        return self.names.get(str(ref))

    def image(self, ref: ImageRef) -> LocalImage | None:
        image_id = self.image_id(ref)
        return self._images[image_id] if image_id else None

    def tags(self, name: str) -> list[ImageRef]:
        domain, _, path = name.partition("/")
        found = sorted(key.removeprefix(name + ":") for key in self.names if key.startswith(name + ":"))
        return [ImageRef(domain, path, tag) for tag in found]

    def layer_size(self, diff_id: Digest) -> int:
        return self._path(diff_id).stat().st_size

    def read_layer(self, diff_id: Digest, chunk: int) -> Iterator[bytes]:
        with self._path(diff_id).open("rb") as file:
            while data := file.read(chunk):
                yield data

    # -- for tests ---------------------------------------------------------------------------------------------------

    def make_image(self, name: ImageRef, tars: Sequence[bytes], **config: Any) -> Digest:
        """An image of these layers, as a build would leave it (no manifest)."""
        diff_ids = [sha256_of(tar) for tar in tars]
        for diff_id, tar in zip(diff_ids, tars, strict=True):
            self._path(diff_id).write_bytes(tar)
        document = {
            "architecture": "amd64", "os": "linux", "config": {}, "history": [],
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        } | config  # fmt: skip
        raw = msgspec.json.encode(document)
        self._images[sha256_of(raw)] = LocalImage(raw, diff_ids)
        self.names[str(name)] = sha256_of(raw)
        return sha256_of(raw)

    def tag(self, old: ImageRef, new: ImageRef) -> None:
        self.names[str(new)] = self.names[str(old)]

    def _path(self, diff_id: Digest) -> Path:
        return self._layers / (diff_id.partition(":")[2] + ".tar")


def _copy(source: BlobSource, file: BinaryIO, digest: Digest) -> tuple[str, int, str]:
    """Unpack ``source`` into ``file``: digest and size of what was read, diff id of what was written."""
    blob, plain, seen, unpack = hashlib.sha256(), hashlib.sha256(), 0, None
    while data := source.read(PIECE):
        unpack = unpack or _unpacker(data)
        blob.update(data)
        seen += len(data)
        try:
            piece = unpack(data)
        except zlib.error as error:
            raise BLOB_MISMATCH(digest=digest, cause=error) from error
        plain.update(piece)
        file.write(piece)
    return f"sha256:{blob.hexdigest()}", seen, f"sha256:{plain.hexdigest()}"


def _unpacker(first: bytes) -> Any:
    if first.startswith(GZIP_MAGIC):
        return zlib.decompressobj(31).decompress
    if first.startswith(ZSTD_MAGIC):
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress
    return bytes
