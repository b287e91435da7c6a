"""Storage and transfer behind the builder's ports: base images, layers, roots."""

from __future__ import annotations

import os
import platform as machine
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from dockyard.build.errors import FETCH_FAILED
from dockyard.build.model import BaseImage, Layer, Request
from dockyard.build.plan import host_platform
from dockyard.build.ports import Lease, Stubs, Told
from dockyard.build.stubs import left_out
from dockyard.errors import DockyardError, NotFound
from dockyard.kernel import mount as kmount
from dockyard.kernel import safefs
from dockyard.oci import Digest, ImageRef, parse_reference
from dockyard.oci.documents import Descriptor
from dockyard.storage import Image, Store
from dockyard.storage import Lease as StoreLease
from dockyard.storage.pipe import stream_from_thread
from dockyard.transfer import Transfer
from dockyard.transfer.compress import Packed
from dockyard.transfer.manifests import ImageIndex, choose, parse_manifest, parse_platform

__all__ = ["DOCKER_HUB", "BuildImages", "BuildLayers", "auth_for"]

DOCKER_HUB = "https://index.docker.io/v1/"
READ_PIECE = 1 << 20

Emit = Callable[..., None]


class BuildImages:
    def __init__(self, store: Store, transfer: Transfer, emit: Emit) -> None:
        self._store, self._transfer, self._emit = store, transfer, emit
        self.lent: dict[str, BaseImage] = {}
        """Results of builds that other builds stand on without being recorded, by reference."""
        self._foreign: dict[tuple[str, str], str] = {}
        """Images for platforms that are not this machine's, by (reference, platform): no name leads to them."""

    async def resolve(self, ref: str, platform: str, request: Request, told: Told | None = None) -> BaseImage:
        if ref in self.lent:
            return self.lent[ref]
        found = None if request.pull else self._local(ref, platform) or self._local(self._foreign.get((ref, platform), ""), platform)
        if found is None:
            found = await self._fetched(ref, platform, request, told or _silent)
        if found is None:
            raise FETCH_FAILED(url=ref, cause=f"the image is not for {platform}")
        digest = found.repo_digests[0].rpartition("@")[2] if found.repo_digests else ""
        document = msgspec.json.decode(found.config.raw)
        return BaseImage(ref, found.id, document, tuple(found.diff_ids), digest)

    async def _fetched(self, ref: str, platform: str, request: Request, told: Told) -> Image | None:
        """Pulled by name; for another platform by the digest of its manifest, or the name would move to an image that this
        machine cannot run. Raises FETCH_FAILED and the registry's errors."""
        name = parse_reference(ref).with_default_tag()
        other = self._local(ref, "")
        if _same_machine(platform):
            await self._pull(name, platform, request, told)
            return self._local(ref, platform)
        try:
            digest = await self._digest_of(name, platform, request)
            await self._pull(replace(name, tag=None, digest=digest), platform, request, told)
        except DockyardError as error:
            if other is None:
                raise
            here = f"{other.config.document.os}/{other.config.document.architecture}"
            raise FETCH_FAILED(url=ref, cause=f"it is here for {here} only, and for {platform}: {error}") from error
        found = self._local(str(replace(name, tag=None, digest=digest)), platform)
        if found is not None:
            self._foreign[ref, platform] = found.id
        return found

    async def _digest_of(self, name: ImageRef, platform: str, request: Request) -> Digest:
        raw = await self._transfer.manifest(name, auth=auth_for(name, request.auths))
        document = parse_manifest(raw, name.familiar)
        return choose(document, parse_platform(platform)).digest if isinstance(document, ImageIndex) else raw.digest

    def _local(self, ref: str, platform: str) -> Image | None:
        """``platform`` "": any."""
        if not ref:
            return None
        try:
            image = self._store.get_image(ref)
        except NotFound:
            return None
        document = image.config.document
        if not platform:
            return image
        system, _, rest = platform.partition("/")
        wanted = (system, rest.partition("/")[0])
        return image if wanted == (document.os or system, document.architecture or wanted[1]) else None

    async def _pull(self, name: ImageRef, platform: str, request: Request, told: Told) -> None:
        async for message in await self._transfer.pull(name, platform=platform, auth=auth_for(name, request.auths)):
            if error := message.get("errorDetail"):
                raise FETCH_FAILED(url=name.familiar, cause=error.get("message", ""))
            amount = message.get("progressDetail") or {}
            told(message.get("id", ""), message.get("status", ""), amount.get("current", 0), amount.get("total", 0))
        self._emit("image", "pull", name.familiar, name=name.familiar)

    def has(self, ref: str) -> bool:
        try:
            return bool(self._store.get_image(ref))
        except DockyardError:
            return False

    def register(self, config: bytes) -> str:
        return self._store.register_image(config).id

    def tag(self, image: str, tags: Sequence[str]) -> None:
        for tag in tags:
            ref = parse_reference(tag)
            if ref not in self._store.images.refs(Digest(image)):
                self._store.images.tag(Digest(image), ref)
                self._emit("image", "tag", image, name=ref.familiar)

    def layers(self) -> set[str]:
        return {str(layer) for layer in self._store.images.used_layers()}


def _same_machine(wanted: str) -> bool:
    system, _, rest = wanted.partition("/")
    return f"{system}/{rest.partition('/')[0]}" == host_platform(machine.machine())


def _silent(_layer: str, _status: str, _current: int, _total: int) -> None:
    """For who shows nothing."""


def auth_for(name: ImageRef, auths: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """X-Registry-Config names registries as ``docker login`` stored them."""
    keys = [DOCKER_HUB, "index.docker.io", "docker.io"] if name.domain == "docker.io" else [name.domain]
    for key in (*keys, *(f"https://{key}" for key in keys)):
        if key in auths:
            return auths[key]
    return None


class _Lease:
    def __init__(self, inner: StoreLease) -> None:
        self.inner = inner

    def hold(self, diff_ids: Iterable[str]) -> None:
        self.inner.layers.update(Digest(item) for item in diff_ids)


class BuildLayers:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.ids = store.ids

    def size(self, diff_id: str) -> int | None:
        digest = Digest(diff_id)
        return self._store.layers.get(digest).content_size if digest in self._store.layers else None

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        with self._store.lease() as inner:
            yield _Lease(inner)

    def leased(self, diff_id: str) -> bool:
        return self._store.leased(Digest(diff_id))

    def collect(self) -> None:
        self._store.collect()

    async def commit(self, pieces: Callable[[], Generator[bytes, None, None]], lease: Lease) -> Layer:
        layer = await self._store.ingest_pieces(pieces, _inner(lease))
        return Layer(layer.diff_id, layer.content_size)

    async def ingest(self, chunks: AsyncIterator[bytes], blob: Descriptor, diff_id: str, lease: Lease) -> Layer:
        layer, _ = await self._store.ingest_layer(
            chunks, _inner(lease), digest=Digest(blob.digest), size=blob.size, diff_id=Digest(diff_id)
        )
        return Layer(layer.diff_id, layer.content_size)

    def packed(self, diff_id: str) -> AsyncIterator[bytes]:
        return stream_from_thread(self._store.threads, self._packed(diff_id))

    def _packed(self, diff_id: str) -> Generator[bytes, None, None]:
        with open(self._store.layers.path(Digest(diff_id), "layer.tar"), "rb", buffering=0) as file:
            yield from Packed(iter(lambda: file.read(READ_PIECE), b""), "gzip")

    async def merge(self, chain: Sequence[str], lease: Lease) -> Layer:
        layer = await self._store.merge_layers([Digest(item) for item in chain], _inner(lease))
        return Layer(layer.diff_id, layer.content_size)

    def view(self, chain: Sequence[str]) -> int:
        """A mount of its own that no path leads to: it ends with its descriptor, also by kill -9."""
        paths = [self._store.layers.mount(Digest(item)) for item in reversed(chain)]
        if not paths:
            empty = self._store.root / "empty"
            empty.mkdir(mode=0o755, exist_ok=True)
            return safefs.open_root(str(empty))
        if len(paths) == 1:
            return safefs.open_root(paths[0])
        return kmount.fs_mount("overlay", [("lowerdir+", path) for path in paths])

    async def prepare(self, key: str, chain: Sequence[str]) -> Path:
        self._store.prepare(key, layers=[Digest(item) for item in chain], transient=True)
        return self._store.mount(key, volatile=True)

    async def diff(self, key: str, stubs: Stubs, lease: Lease, epoch: int | None) -> Layer:
        with safefs.root_fd(str(self._store.snapshots.upper(key))) as upper:
            skip = left_out(upper, stubs)
            with safefs.opened(upper, ".", os.O_RDONLY | os.O_DIRECTORY) as folder:
                if skip.issuperset(os.listdir(folder)):
                    return Layer("")
        latest = None if epoch is None else epoch * 1_000_000_000
        diff_id = await self._store.layer_of(key, _inner(lease), skip=skip, latest_ns=latest)
        return Layer(diff_id, self.size(diff_id) or 0)

    async def release(self, key: str) -> None:
        with suppress(NotFound):
            self._store.remove(key)


def _inner(lease: Lease) -> StoreLease:
    assert isinstance(lease, _Lease)
    return lease.inner
