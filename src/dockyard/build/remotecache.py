"""Caches that other machines made, and this one's made for others.

::

    --cache-from ─► Imports.open ─► manifest, config: claims by step key ─► find(key): only where this machine's own
                                                                            records have nothing; fetches the layer
    --cache-to   ─► export ─► layers, config, manifest to a registry or to a directory of the client

An imported record is believed by the build that names its cache and by no other: it never gets a key that another build
looks for (CVE-2024-24557). What it fetched is kept under a name of its own, so that it is counted, pruned and bounded
like every layer of the cache, and the next build that names the cache fetches nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from dockyard.errors import DockyardError
from dockyard.model import new_id
from dockyard.oci.digest import sha256_of
from dockyard.oci.documents import OCI_LAYER_GZIP, Descriptor, parse_config, parse_manifest

from . import embedded
from .cachefile import CONFIG_TYPE, CacheFile, config_bytes, manifest_bytes, read_config, read_top
from .cachespec import CacheSpec, parse_cache
from .errors import BAD_CACHE, NO_CACHE_PLACE
from .model import BaseImage, Request
from .ports import BlobPlace, ContentStore, Images, Layers, Lease, Registries, Session, Written
from .progress import Progress, Sink, VertexDone, VertexQueued, VertexStarted, Warned
from .records import Records, StepRecord

__all__ = ["BuiltCache", "Imports", "RemoteCaches", "wanted_exports"]

MAX_CONFIG = 32 << 20
READ_PIECE = 1 << 20
HELD_PREFIX = "imported "


@dataclass(frozen=True, slots=True)
class BuiltCache:
    """What a build leaves for others: records of the target's own steps (``mode=min``), and of all stages (``max``)."""

    least: tuple[StepRecord, ...] = ()
    most: tuple[StepRecord, ...] = ()

    def records(self, mode: str) -> tuple[StepRecord, ...]:
        return self.most if mode == "max" else self.least

    def layers(self) -> set[str]:
        return {record.layer for record in self.most if record.layer}


def wanted_exports(request: Request) -> list[CacheSpec]:
    """Caches to be written beside the image. Raises InvalidParameter."""
    found = [parse_cache(text) for text in request.cache_to]
    for spec in found:
        spec.check()
    return [spec for spec in found if spec.kind in ("registry", "local")]


@dataclass(frozen=True, slots=True)
class _Source:
    place: BlobPlace | None
    file: CacheFile
    name: str


@dataclass
class Imports:
    """For one build."""

    sources: Sequence[_Source]
    layers: Layers
    records: Records
    sink: Sink
    _fetching: dict[str, asyncio.Lock] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.sources)

    async def find(self, key: str, lease: Lease) -> StepRecord | None:
        """A record whose layer is here now, held by the lease. A layer that cannot be had is told, and counts as none."""
        for source in self.sources:
            record = source.file.records.get(key)
            if record is not None and (not record.layer or await self._have(source, record, lease)):
                return record
        return None

    async def _have(self, source: _Source, record: StepRecord, lease: Lease) -> bool:
        lease.hold([record.layer])
        async with self._fetching.setdefault(record.layer, asyncio.Lock()):
            if self.layers.size(record.layer) is None and not await self._fetch(source, record, lease):
                return False
        if source.place is not None:
            self._keep(source, record)
        return True

    async def _fetch(self, source: _Source, record: StepRecord, lease: Lease) -> bool:
        blob = source.file.blobs.get(record.layer)
        if source.place is None or blob is None:
            return False
        try:
            with _vertex(self.sink, f"importing cached layer {record.layer[:19]} from {source.name}"):
                await source.place.layer(blob, record.layer, lease)
        except DockyardError as error:
            self.sink(Warned(f"cached layer {record.layer[:19]} of {source.name} cannot be used: {error}"))
            return False
        return self.layers.size(record.layer) is not None

    def _keep(self, source: _Source, record: StepRecord) -> None:
        name = hashlib.sha256(f"{source.name}\0{record.layer}".encode()).hexdigest()
        size, now = self.layers.size(record.layer) or 0, time.time_ns()
        self.records.put(replace(record, key=HELD_PREFIX + name, size=size, used=now, uses=1))


@dataclass(frozen=True, slots=True)
class RemoteCaches:
    """Both ways, for all builds of a builder."""

    images: Images
    layers: Layers
    records: Records
    registries: Registries | None

    # -- from elsewhere -----------------------------------------------------------------------------------------------

    async def open(self, request: Request, platform: str, session: Session, sink: Sink, lease: Lease) -> Imports:
        """Reads what --cache-from names; a cache that cannot be had is a warning. Raises InvalidParameter."""
        specs = list(dict.fromkeys(request.cache_from))
        found = await asyncio.gather(*(self._source(parse_cache(text), request, platform, session, sink, lease) for text in specs))
        return Imports([source for source in found if source is not None], self.layers, self.records, sink)

    async def _source(
        self, spec: CacheSpec, request: Request, platform: str, session: Session, sink: Sink, lease: Lease
    ) -> _Source | None:
        try:
            spec.check()
            if not spec.kind and self.images.has(spec.attrs["ref"]):
                image = await self.images.resolve(spec.attrs["ref"], platform, request)
                lease.hold(image.diff_ids)
                return _Source(None, CacheFile(embedded.read(image), {}), image.ref)
            with _vertex(sink, f"importing cache manifest from {spec.place}"):
                place = await self._place(spec, request, session)
                return _Source(place, await _read(place, spec, platform), spec.place)
        except DockyardError as error:
            sink(Warned(f"cache source {spec.place} cannot be used: {error}"))
            return None

    async def _place(self, spec: CacheSpec, request: Request, session: Session) -> BlobPlace:
        if spec.kind == "local":
            directory = spec.attrs.get("dest") or spec.attrs.get("src") or ""
            store = await session.content_store(f"local:{directory}")
            if store is None:
                raise NO_CACHE_PLACE(place=f"directory {directory}", cause="the client of this build offers none")
            return _Directory(store, self.layers, spec.attrs.get("digest", ""))
        if spec.kind == "inline" or self.registries is None:
            raise NO_CACHE_PLACE(place=spec.place, cause=f"nothing can be read from type={spec.kind or 'registry'}")
        return self.registries.place(spec.attrs["ref"], request)

    # -- for others ---------------------------------------------------------------------------------------------------

    async def export(
        self, request: Request, built: Sequence[BuiltCache], session: Session, sink: Sink
    ) -> dict[str, str]:
        """Writes what --cache-to names; the caller holds the layers. Answers the exporter's response. Raises what the
        place raises, unless ``ignore-error`` makes it a warning."""
        response: dict[str, str] = {}
        for spec in wanted_exports(request):
            kind = "client directory" if spec.kind == "local" else "registry"
            try:
                with _vertex(sink, f"exporting cache to {kind}") as vertex:
                    place = await self._place(spec, request, session)
                    descriptor = await self._write(place, spec, built, sink, vertex)
            except DockyardError as error:
                if not spec.flag("ignore-error"):
                    raise
                sink(Warned(f"the cache was not exported to {spec.place}: {error}"))
                continue
            response["cache.manifest"] = msgspec.json.encode(descriptor).decode()
        return response

    async def _write(
        self, place: BlobPlace, spec: CacheSpec, built: Sequence[BuiltCache], sink: Sink, vertex: str
    ) -> Mapping[str, Any]:
        records = [
            record for each in built for record in each.records(spec.attrs.get("mode", "min"))
            if not record.layer or self.layers.size(record.layer) is not None
        ]  # fmt: skip

        def documents(blobs: Mapping[str, Descriptor]) -> list[Written]:
            config = config_bytes(records, blobs)
            media_type, manifest = manifest_bytes(config, blobs, index=not spec.flag("image-manifest", default=True))
            return [Written(CONFIG_TYPE, config), Written(media_type, manifest, manifest=True)]

        def told(what: str, current: int, total: int, done: bool) -> None:
            sink(Progress(vertex, what, current, total, time.time(), done))

        last = await place.write(sorted({record.layer for record in records if record.layer}), documents, told)
        told(f"writing cache manifest {sha256_of(last.raw)}", len(last.raw), len(last.raw), True)
        return {"mediaType": last.media_type, "digest": sha256_of(last.raw), "size": len(last.raw)}


async def _read(place: BlobPlace, spec: CacheSpec, platform: str) -> CacheFile:
    top = read_top(await place.manifest(spec.attrs.get("digest", "")))
    if top.config is not None:
        return read_config(await place.blob(top.config.digest, MAX_CONFIG), spec.place)
    manifest = top.image
    if manifest is None:
        system, _, rest = platform.partition("/")
        fitting = [
            each for each in top.images
            if each.platform and (each.platform.os, each.platform.architecture) == (system, rest.partition("/")[0])
        ]  # fmt: skip
        if not fitting:
            raise BAD_CACHE(cause=f"{spec.place} has neither a cache nor an image for {platform}")
        manifest = parse_manifest(await place.manifest(fitting[0].digest))
    config = parse_config(await place.blob(manifest.config.digest, MAX_CONFIG))
    image = BaseImage(spec.place, "", msgspec.json.decode(config.raw), tuple(config.diff_ids))
    if len(image.diff_ids) != len(manifest.layers):
        raise BAD_CACHE(cause="config and manifest name different numbers of layers")
    return CacheFile(embedded.read(image), dict(zip(image.diff_ids, manifest.layers, strict=True)))


@dataclass(frozen=True, slots=True)
class _Directory:
    """A content store of the client's: an image layout in a directory of its machine."""

    store: ContentStore
    layers: Layers
    digest: str

    async def manifest(self, digest: str = "") -> bytes:
        if not (digest or self.digest):
            raise NO_CACHE_PLACE(place="the directory", cause="its index.json names no cache")
        return await self.blob(digest or self.digest, MAX_CONFIG)

    async def blob(self, digest: str, limit: int) -> bytes:
        out = bytearray()
        async for piece in self.store.read(digest):
            out += piece
            if len(out) > limit:
                raise BAD_CACHE(cause=f"{digest} is larger than {limit} bytes")
        if sha256_of(out) != digest:
            raise BAD_CACHE(cause=f"{digest} is not what its name says")
        return bytes(out)

    async def layer(self, blob: Descriptor, diff_id: str, lease: Lease) -> None:
        await self.layers.ingest(self.store.read(blob.digest), blob, diff_id, lease)

    async def write(
        self, layers: Sequence[str], compose: Callable[[Mapping[str, Descriptor]], Sequence[Written]],
        told: Callable[[str, int, int, bool], None],
    ) -> Written:  # fmt: skip
        blobs = {}
        for diff_id in layers:
            counted = _Counted(self.layers.packed(diff_id))
            await self.store.write(f"layer {diff_id}", aiter(counted))
            blobs[diff_id] = Descriptor(OCI_LAYER_GZIP, counted.digest, counted.size)
            told(f"writing layer {counted.digest}", counted.size, counted.size, True)
        parts = compose(blobs)
        for part in parts:
            await self.store.write(f"document {sha256_of(part.raw)}", _pieces(part.raw))
        return parts[-1]


class _Counted:
    """Passes pieces on and knows, at the end, what they were."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces, self._hash, self.size = pieces, hashlib.sha256(), 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            self._hash.update(piece)
            self.size += len(piece)
            yield piece

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), READ_PIECE):
        yield data[start : start + READ_PIECE]


@contextmanager
def _vertex(sink: Sink, title: str) -> Iterator[str]:
    """A line on the screen; a failure is told by who catches it."""
    digest = "sha256:" + new_id()
    sink(VertexQueued(digest, title))
    sink(VertexStarted(digest, time.time()))
    try:
        yield digest
    finally:
        sink(VertexDone(digest, time.time()))
