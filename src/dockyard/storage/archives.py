"""Images in and out of the store: load, save, import, commit; each a short piece of wiring over the blocking halves."""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dockyard.kernel import safefs
from dockyard.oci import Digest, ImageRef, parse_reference, sha256_of
from dockyard.oci.archive import PlannedImage, SavedImage
from dockyard.oci.changes import apply_changes
from dockyard.oci.documents import decode, encode, parse_config

from . import ingest, save, upper
from .debian import architecture
from .errors import EMPTY_EXPORT
from .images import Document
from .ingest import Expected, Ingested
from .load import LoadedImage, Loader
from .model import Image, LayerSource, Progress
from .pipe import run_with_input, stream_from_thread

if TYPE_CHECKING:
    from .store import Store


@dataclass(frozen=True, slots=True)
class Loaded:
    """One line of ``docker load``: by a name, or by ID where the archive gave none."""

    id: Digest
    name: str = ""
    renamed: str = ""  # ID of the image that had the name before

    @property
    def messages(self) -> list[str]:
        """As dockerd prints them."""
        lines = []
        if self.renamed:
            lines.append(
                f"The image {self.name} already exists, renaming the old one with ID {self.renamed} to empty string"
            )
        lines.append(f"Loaded image: {self.name}" if self.name else f"Loaded image ID: {self.id}")
        return lines


async def load(store: Store, chunks: AsyncIterator[bytes], progress: Progress) -> list[Loaded]:
    with store.lease() as lease, ingest.scratch(store.root / "ingest") as directory:
        loader = Loader(
            directory, store.indexers, store.snapshotter, store.limits, store.layers.__contains__, progress
        )  # fmt: skip
        images = await run_with_input(store.threads, chunks, loader.run)
        loaded: list[Loaded] = []
        for image in _best_last(images):
            layers = []
            for item in image.layers:
                diff_id = store.commit_layer(item, lease).diff_id if isinstance(item, Ingested) else item
                lease.layers.add(diff_id)
                layers.append(LayerSource(diff_id))
            documents = [Document(sha256_of(raw), kind, raw) for kind, raw in image.plan.documents]
            parent = Digest(image.plan.parent) if image.plan.parent in store.images.ids() else None
            found = store.images.put(parse_config(image.plan.config), layers, documents, parent)
            loaded += _tag_loaded(store, found, image.plan)
        store.discard(directory)
    return loaded


def _best_last(images: list[LoadedImage]) -> list[LoadedImage]:
    """Of several platforms under one name the host's own gets the name: it is tagged last."""
    own = architecture()

    def fits(image: LoadedImage) -> bool:
        document = parse_config(image.plan.config).document
        return document.os in ("", "linux") and document.architecture in ("", own)

    return sorted(images, key=fits)


def _tag_loaded(store: Store, image: Digest, plan: PlannedImage) -> list[Loaded]:
    rows = []
    for name in plan.names:
        ref = parse_reference(name).with_default_tag()
        if ref.digest is not None:
            continue
        before = store.images.tag(image, ref)
        rows.append(Loaded(image, ref.familiar, before or ""))
    return rows or [Loaded(image)]


def select(store: Store, refs: Sequence[str]) -> list[SavedImage]:
    """The images of ``docker save``: an ID saves no name, a bare name all its tags. Raises NotFound."""
    chosen: dict[Digest, set[str]] = {}
    for text in refs:
        image = store.images.resolve(text)
        names = chosen.setdefault(image, set())
        if not _is_id(image, text):
            ref = parse_reference(text)
            if ref.digest is None and ref.tag is None:
                tagged = [(found, tag) for found in store.images.ids() for tag in store.images.refs(found)]
                for found, tag in tagged:
                    if tag.name == ref.name and tag.tag is not None:
                        chosen.setdefault(found, set()).add(str(tag))
            elif ref.digest is None:
                names.add(str(ref))
    return [_saved(store, image, names) for image, names in chosen.items()]


def _is_id(image: Digest, text: str) -> bool:
    return image.removeprefix("sha256:").startswith(text.removeprefix("sha256:"))


def _saved(store: Store, image: Digest, names: set[str]) -> SavedImage:
    config = store.images.image(image).config
    if not config.diff_ids:
        raise EMPTY_EXPORT(image=image)
    layers = tuple((diff_id, store.layers.get(diff_id).size) for diff_id in config.diff_ids)
    pairs = tuple((name, parse_reference(name).familiar) for name in sorted(names))
    return SavedImage(config.raw, layers, pairs, parse_time(config.document.created))


async def save_images(store: Store, refs: Sequence[str]) -> AsyncGenerator[bytes, None]:
    async with aclosing(stream_saved(store, select(store, refs))) as pieces:
        async for piece in pieces:
            yield piece


async def stream_saved(store: Store, images: list[SavedImage]) -> AsyncGenerator[bytes, None]:
    with store.lease() as lease:
        lease.layers.update(diff_id for top in images for image in (top, *top.others) for diff_id, _ in image.layers)
        paths: dict[str, Path] = {diff_id: store.layers.path(diff_id, "layer.tar") for diff_id in lease.layers}
        async with aclosing(stream_from_thread(store.threads, save.archive(images, paths))) as pieces:
            async for piece in pieces:
                yield piece


async def import_image(
    store: Store, chunks: AsyncIterator[bytes], ref: ImageRef | None, changes: Iterable[str], message: str,
    platform: str,
) -> Image:  # fmt: skip
    """``docker import``: one tar (compressed or not) becomes one layer without a parent."""
    config = apply_changes({}, changes)  # refuse before gigabytes are read
    with store.lease() as lease:
        layer, _ = await store.ingest_layer(chunks, lease)
        created = now()
        os_name, arch, variant = (*platform.lower().split("/"), "", "", "")[:3]
        document = {
            "architecture": arch or architecture(), **({"variant": variant} if variant else {}), "comment": message,
            "config": config, "created": created, "os": os_name or "linux",
            "history": [{"created": created, "comment": message}],
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }  # fmt: skip
        return store.register_image(encode(document), tags=[ref] if ref is not None else [])


async def commit_snapshot(
    store: Store, key: str, config: Mapping[str, Any], base: str | None, ref: ImageRef | None, author: str,
    comment: str, changes: Iterable[str], created_by: str,
) -> Image:  # fmt: skip
    """``docker commit``: the upper directory becomes a layer above the snapshot's own."""
    new_config = apply_changes({**config}, changes)
    with store.lease() as lease:
        layer = await layer_of_snapshot(store, key, lease.layers)
        parent = store.images.get(base) if base is not None else None
        old = decode("image config", parent.config.raw, dict[str, Any]) if parent is not None else {}
        created = now()
        row = {"created": created, "created_by": created_by, "author": author, "comment": comment}
        document = {
            **old, "author": author, "config": new_config, "created": created, "container": key,
            "architecture": old.get("architecture") or architecture(), "os": old.get("os") or "linux",
            "history": [*(old.get("history") or []), {name: value for name, value in row.items() if value}],
            "rootfs": {"type": "layers", "diff_ids": [*store.snapshots.get(key).diff_ids, layer]},
        }  # fmt: skip
        document.pop("container_config", None)
        return store.register_image(
            encode(document), tags=[ref] if ref is not None else [], parent=parent.id if parent is not None else None
        )


async def layer_of_snapshot(
    store: Store, key: str, held: set[Digest], skip: frozenset[str] = frozenset(), latest_ns: int | None = None
) -> Digest:
    """Store the upper directory of a snapshot as a layer; its diff ID. The digest is added to ``held``."""
    path = str(store.snapshots.upper(key))

    def pieces() -> Generator[bytes, None, None]:
        with safefs.root_fd(path) as root, safefs.opened(root, ".", os.O_RDONLY | os.O_DIRECTORY) as folder:
            yield from upper.diff_tar(folder, skip, latest_ns)

    return await ingest_pieces(store, pieces, held)


async def ingest_pieces(store: Store, make: Callable[[], Generator[bytes, None, None]], held: set[Digest]) -> Digest:
    def work() -> Ingested:
        # Closed here: a failure's traceback keeps the generator, and with it descriptors of files that are to go.
        with closing(make()) as pieces:
            got = ingest.receive(_GeneratorReader(pieces), store.root / "ingest", Expected(), store.limits)
        return ingest.index_layer(got, store.snapshotter, store.limits)

    got = await asyncio.get_running_loop().run_in_executor(store.threads, work)
    layer = store.layers.commit(got)
    held.add(layer.diff_id)
    store.sync_later()
    return layer.diff_id


class _GeneratorReader:
    """A generator of pieces as a reader; small pieces are gathered, for tar headers come one by one."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)

    def read(self, size: int = -1, /) -> bytes:
        gathered = bytearray()
        for piece in self._pieces:
            gathered += piece
            if len(gathered) >= ingest.PIECE:
                break
        return bytes(gathered)


async def stream_upper(store: Store, key: str) -> AsyncGenerator[bytes, None]:
    """The layer that a commit would make, as a tar."""
    path = str(store.snapshots.upper(key))
    with safefs.root_fd(path) as root, safefs.opened(root, ".", os.O_RDONLY | os.O_DIRECTORY) as folder:
        async with aclosing(stream_from_thread(store.threads, upper.diff_tar(folder))) as pieces:
            async for piece in pieces:
                yield piece


async def export_snapshot(store: Store, key: str) -> AsyncGenerator[bytes, None]:
    """The whole merged tree as a plain tar; mounted for the time if it is not. Volumes are not in it."""
    mounted = store.snapshots.is_mounted(key)
    path = store.mount(key)
    try:
        with safefs.root_fd(str(path)) as root, safefs.opened(root, ".", os.O_RDONLY | os.O_DIRECTORY) as folder:
            async with aclosing(stream_from_thread(store.threads, upper.tree_tar(folder, store.snapshots.ids(key)))) as pieces:
                async for piece in pieces:
                    yield piece
    finally:
        if not mounted:
            await store.unmount(key)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


def parse_time(text: str | None) -> int:
    """RFC 3339 with up to nine digits, in nanoseconds; 0 where there is none or it is none."""
    if not text:
        return 0
    head, _, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :] if rest else ""
    try:
        moment = datetime.datetime.fromisoformat(head + zone if rest else text)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp()) * 1_000_000_000 + int(digits[:9].ljust(9, "0") or 0)

