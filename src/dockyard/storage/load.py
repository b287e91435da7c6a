"""``docker load``: an archive of images, read once, forward, from any of the formats in dockyard.oci.archive.

Each member goes straight to where it will stay: what begins like JSON is kept in memory (8 MiB a piece, DOCUMENTS_LIMIT
in all), anything else is received as a layer and indexed by other threads while the next one streams in. What turns out
to be no layer of any image is dropped at the end.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path

from dockyard.oci import Digest, is_digest, v1
from dockyard.oci.archive import ArchiveContent, PlannedImage, PlannedLayer, plan_load
from dockyard.oci.documents import MAX_DOCUMENT, parse_config
from dockyard.oci.errors import BAD_ARCHIVE
from dockyard.oci.layers import clean_name
from dockyard.oci.tar import LINK, REG, SYMLINK, StreamReader, TarHeader

from . import ingest
from .compress import Plain, Pushback, Reader
from .ingest import Expected, Ingested
from .model import Limits, Progress

MAX_MEMBERS = 100_000
DOCUMENTS_LIMIT = 256 << 20


@dataclass(slots=True)
class LoadedImage:
    """A planned image whose layers are received: each is one in the store already or a new one."""

    plan: PlannedImage
    layers: list[Digest | Ingested] = field(default_factory=list)


class Loader:
    """The blocking half of a load; ``run`` is called in a thread. Its directory is the caller's to remove."""

    def __init__(
        self, directory: Path, pool: Executor, snapshotter: str, limits: Limits, has_layer: Callable[[Digest], bool],
        progress: Progress,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._pool = pool
        self._snapshotter = snapshotter
        self._limits = limits
        self._has_layer = has_layer
        self._progress = progress
        self._documents: dict[str, bytes] = {}
        self._documents_size = 0
        self._links: dict[str, str] = {}
        self._received: dict[str, Ingested] = {}
        self._indexing: dict[str, Future[Ingested]] = {}
        self._present: dict[str, Digest] = {}

    def run(self, source: Reader) -> list[LoadedImage]:
        stream = Plain(source)
        archive = StreamReader(lambda size: stream.read(size), MAX_MEMBERS)
        try:
            while (header := archive.next()) is not None:
                self._member(header, archive)
            while stream.read(ingest.PIECE):  # padding behind the end: a client must not see its pipe break
                continue
            images = plan_load(ArchiveContent(self._documents, self._files(), self._links))
            return [self._complete(plan) for plan in images]
        finally:
            for future in self._indexing.values():
                if not future.cancel():
                    future.exception()

    def _files(self) -> frozenset[str]:
        return frozenset((*self._received, *self._present))

    def _member(self, header: TarHeader, archive: StreamReader) -> None:
        name = b"/".join(clean_name(header.name)).decode("utf-8", "surrogateescape")
        if header.type in (SYMLINK, LINK):
            base = name.rpartition("/")[0] if header.type == SYMLINK else ""
            target = base.encode("utf-8", "surrogateescape") + b"/" + header.linkname
            self._links[name] = b"/".join(clean_name(target)).decode("utf-8", "surrogateescape")
            return
        if header.type not in (REG, "7"):
            return
        digest = f"sha256:{name.rpartition('/')[2]}"
        if is_digest(digest) and header.size > MAX_DOCUMENT and self._has_layer(Digest(digest)):
            self._present[name] = Digest(digest)
            return
        data = Pushback(archive)
        if header.size <= MAX_DOCUMENT and (data.peek(1) in (b"{", b"[", b"") or not _is_layer_name(name)):
            self._keep(name, data, header.size)
            return
        got = ingest.receive(data, self._directory, Expected(), self._limits)
        self._received[name] = got
        self._indexing[name] = self._pool.submit(ingest.index_layer, got, self._snapshotter, self._limits)
        self._progress(got.diff_id[7:19], "Loading layer", header.size, header.size)

    def _keep(self, name: str, data: Reader, size: int) -> None:
        self._documents_size += size
        if self._documents_size > DOCUMENTS_LIMIT:
            raise BAD_ARCHIVE(cause=f"more than {DOCUMENTS_LIMIT} bytes of documents")
        pieces = io.BytesIO()
        while piece := data.read(ingest.PIECE):
            pieces.write(piece)
        self._documents[name] = pieces.getvalue()

    def _complete(self, plan: PlannedImage) -> LoadedImage:
        if plan.v1:
            return self._complete_v1(plan)
        config = parse_config(plan.config)
        if len(plan.layers) != len(config.diff_ids):
            counts = f"expected {len(config.diff_ids)}, got {len(plan.layers)}"
            raise BAD_ARCHIVE(cause=f"invalid manifest, layers length mismatch: {counts}")
        image = LoadedImage(plan)
        for layer, diff_id in zip(plan.layers, config.diff_ids, strict=True):
            image.layers.append(self._layer(layer, diff_id))
        return image

    def _complete_v1(self, plan: PlannedImage) -> LoadedImage:
        """No digests to compare with: what came is what it is."""
        layers = [self._ingested(layer.member) for layer in plan.layers]
        config = v1.make_config(plan.v1, [layer.diff_id for layer in layers])
        parse_config(config)
        return LoadedImage(replace(plan, config=config), list(layers))

    def _layer(self, layer: PlannedLayer, diff_id: Digest) -> Digest | Ingested:
        if self._has_layer(diff_id):
            return diff_id
        got = self._ingested(layer.member, f"{layer.member} is not the layer {diff_id}")
        ingest.verify(got, Expected(layer.digest, layer.size, diff_id))
        return got

    def _ingested(self, member: str, otherwise: str = "") -> Ingested:
        if member in self._documents:  # a small one that begins like JSON, or an empty file
            data = Pushback(io.BytesIO(self._documents.pop(member)))
            got = ingest.receive(data, self._directory, Expected(), self._limits)
            self._received[member] = got
            self._indexing[member] = self._pool.submit(ingest.index_layer, got, self._snapshotter, self._limits)
        if member not in self._indexing:
            raise BAD_ARCHIVE(cause=otherwise or f"{member} is missing")
        return self._indexing[member].result()


def _is_layer_name(name: str) -> bool:
    return name.endswith(".tar") or name.startswith("blobs/") or "/layer" in name

