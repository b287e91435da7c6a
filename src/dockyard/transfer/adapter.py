"""The storage room as the transfer's ImageStore.

Bytes are hashed, unpacked and indexed in the transfer's own threads; records are asked and changed on the event loop's
thread, which owns them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from dockyard.errors import InvalidParameter, NotFound
from dockyard.oci import Digest, ImageRef, parse_reference
from dockyard.oci.documents import parse_manifest
from dockyard.storage import Document, Image, LayerSource, Lease, Store, ingest

from .manifests import INDEX_TYPES
from .model import RawManifest
from .ports import BlobSource, LocalImage, PulledImage

T = TypeVar("T")


def _config_of(manifest: bytes) -> str:
    try:
        return parse_manifest(manifest).config.digest
    except InvalidParameter:
        return ""


class StorageImages:
    """Implements ports.ImageStore over ``dockyard.storage.Store``. Made on the loop that owns the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._leases: set[Lease] = set()

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        held = self._store.lease()
        lease = self._on_loop(held.__enter__)
        self._leases.add(lease)
        try:
            yield
        finally:
            self._leases.discard(lease)
            self._on_loop(lambda: held.__exit__(None, None, None))

    def has_layer(self, diff_id: Digest) -> bool:
        """Also takes the layer into all leases: the pull that asks is about to count on it."""
        return self._on_loop(lambda: self._hold(diff_id))

    def ingest_layer(self, source: BlobSource, digest: Digest, size: int, diff_id: Digest) -> None:
        store = self._store
        expected = ingest.Expected(digest, size, diff_id)
        got = ingest.receive(source, store.root / "ingest", expected, store.limits)
        ready = ingest.index_layer(got, store.snapshotter, store.limits)
        self._on_loop(lambda: store.commit_layer(ready, self._lease()) and self._hold(diff_id))

    def add_image(self, image: PulledImage, names: Sequence[ImageRef]) -> None:
        documents = [Document(m.digest, m.media_type, m.raw) for m in (image.manifest, image.index) if m]
        layers = [LayerSource(diff_id, digest) for digest, diff_id in image.layers]
        self._on_loop(
            lambda: self._store.register_image(
                image.config, layers=layers, documents=documents,
                tags=[name for name in names if not name.digest], digests=[name for name in names if name.digest],
            )
        )  # fmt: skip

    def image_id(self, ref: ImageRef) -> Digest | None:
        found = self._on_loop(lambda: self._find(ref))
        return found.id if found else None

    def image(self, ref: ImageRef) -> LocalImage | None:
        return self._on_loop(lambda: self._local(ref))

    def tags(self, name: str) -> list[ImageRef]:
        return self._on_loop(lambda: self._tags(name))

    def layer_size(self, diff_id: Digest) -> int:
        return self._store.layers.get(diff_id).size

    def read_layer(self, diff_id: Digest, chunk: int) -> Iterator[bytes]:
        # An open file stays whole even if the image is removed meanwhile.
        with open(self._store.layers.path(diff_id, "layer.tar"), "rb", buffering=0) as file:
            while data := file.read(chunk):
                yield data

    # -- on the loop's thread ----------------------------------------------------------------------------------------

    def _on_loop(self, work: Callable[[], T]) -> T:
        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _lease(self) -> Lease:
        return next(iter(self._leases), Lease())

    def _hold(self, diff_id: Digest) -> bool:
        if diff_id not in self._store.layers:
            return False
        for lease in self._leases:
            lease.layers.add(diff_id)
        return True

    def _find(self, ref: ImageRef) -> Image | None:
        try:
            return self._store.images.get(str(ref))
        except NotFound:
            return None

    def _local(self, ref: ImageRef) -> LocalImage | None:
        image = self._find(ref)
        if image is None:
            return None
        manifests = [d for d in self._store.images.documents(image.id) if d.media_type not in INDEX_TYPES]
        # Attestations are manifests too; the image's own is the one that names its config.
        manifests.sort(key=lambda document: _config_of(document.data) != image.id)
        first = next((RawManifest(d.media_type, d.digest, d.data) for d in manifests), None)
        return LocalImage(image.config.raw, image.diff_ids, first)

    def _tags(self, name: str) -> list[ImageRef]:
        refs = [parse_reference(tag) for image in self._store.images.all() for tag in image.repo_tags]
        return sorted((ref for ref in refs if ref.name == name), key=str)
