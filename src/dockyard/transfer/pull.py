"""Pull: name → manifest → platform → config → layers, all at once → image.

::

    mirrors, registry ──manifest──► index? ──choose──► manifest ──► config (diff ids)
                                                          │
                 layer 1 ─┐  socket → sha256 → decompress → diff id → store, in Downloads' threads
                 layer 2 ─┼──────────────────────────────────────────────────────────► add_image, names
                 layer n ─┘
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from dockyard.oci import Digest, ImageRef

from .cancel import Cancel
from .download import Downloads, download, short_id
from .errors import WRONG_PLATFORM
from .feed import Feed
from .manifests import (
    Descriptor,
    ImageConfig,
    ImageIndex,
    ImageManifest,
    Platform,
    check_image,
    choose,
    host_platform,
    parse_config,
    parse_manifest,
    rank,
)
from .model import RawManifest
from .ports import ImageStore, PulledImage
from .records import Known, Records
from .repository import Repository, first_good

MAX_INDEX_DEPTH = 2
"""An index may point to an index (OCI image-index.md); deeper nesting is not seen in practice."""


@dataclass(frozen=True, slots=True)
class Found:
    """A resolved name: where it was found, the image, and the index it came from."""

    sources: list[Repository]
    """The repository that answered and those after it."""
    manifest: ImageManifest
    index: RawManifest | None

    @property
    def digest(self) -> Digest:
        """What the name stands for: the index if there is one."""
        return (self.index or self.manifest.source).digest


def resolve(sources: list[Repository], ref: ImageRef, wanted: Platform) -> Found:
    reference = ref.digest or ref.tag or ""

    def ask(source: Repository) -> Found:
        found = _descend(source, source.manifest(reference), ref, wanted)
        return Found(sources[sources.index(source) :], *found)

    return first_good(sources, ask)


def _descend(
    source: Repository, top: RawManifest, ref: ImageRef, wanted: Platform
) -> tuple[ImageManifest, RawManifest | None]:
    index: RawManifest | None = None
    document = parse_manifest(top, ref.familiar)
    for _ in range(MAX_INDEX_DEPTH):
        if isinstance(document, ImageManifest):
            break
        index = index or document.source
        document = parse_manifest(source.manifest(choose(document, wanted).digest), ref.familiar)
    if isinstance(document, ImageIndex):
        choose(replace(document, manifests=()), wanted)
        raise AssertionError("choose refuses an empty index")
    check_image(document, ref.familiar)
    return document, index


class Pull:
    """One pull operation; ``run`` blocks and is called in a worker thread."""

    def __init__(
        self, sources: Callable[[ImageRef], list[Repository]], store: ImageStore, records: Records,
        downloads: Downloads, feed: Feed, cancel: Cancel, attempts: int,
    ) -> None:  # fmt: skip
        self._sources = sources
        self._store = store
        self._records = records
        self._downloads = downloads
        self._feed = feed
        self._cancel = cancel
        self._attempts = attempts

    def run(self, ref: ImageRef, platform: Platform | None) -> None:
        changed = self.one(ref, platform)
        self._status(ref, changed)

    def run_all_tags(self, ref: ImageRef, platform: Platform | None) -> None:
        tags = self._sources(ref)[-1].tags()
        changed = [self.one(ref.with_tag(tag), platform) for tag in tags]
        self._status(ref, any(changed))

    def one(self, ref: ImageRef, platform: Platform | None) -> bool:
        """Pull one name; whether it points to something new now."""
        found = resolve(self._sources(ref), ref, platform or host_platform())
        self._feed.say(f"Pulling from {ref.path}", ref.digest or ref.tag or "")
        manifest = found.manifest
        raw_config = first_good(found.sources, lambda source: source.blob_bytes(manifest.config.digest))
        config = parse_config(raw_config, len(manifest.layers), ref.familiar)
        if platform is not None and found.index is None and rank(platform, config.platform) is None:
            raise WRONG_PLATFORM(ref=ref.familiar, actual=config.platform, platform=platform)
        before = self._store.image_id(ref)
        pairs = [
            (layer.digest, diff_id) for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True)
        ]
        with self._store.lease():
            self._fetch_layers(found, config)
            image = PulledImage(raw_config, manifest.source, pairs, found.index)
            names = [ref] if ref.tag and not ref.digest else []
            self._store.add_image(image, [*names, replace(ref, tag=None, digest=found.digest)])
        self._remember(found, config, ref)
        self._feed.say(f"Digest: {found.digest}")
        return before != manifest.config.digest

    def _fetch_layers(self, found: Found, config: ImageConfig) -> None:
        waiting: dict[Digest, Callable[[], None]] = {}
        for layer, diff_id in zip(found.manifest.layers, config.rootfs.diff_ids, strict=True):
            if diff_id in waiting:
                continue
            if self._store.has_layer(diff_id):
                self._feed.state("Already exists", short_id(layer.digest))
                continue
            self._feed.state("Pulling fs layer", short_id(layer.digest))
            waiting[diff_id] = functools.partial(self._settle, found.sources, layer, diff_id)
        started = {key: self._downloads.start(key, work) for key, work in waiting.items()}
        try:
            for key, (future, _) in started.items():
                self._downloads.fetch(key, waiting[key], self._cancel, future)
        except BaseException:
            self._cancel.cancel()  # the other layers of this pull are of no use any more
            raise
        finally:
            for future, ours in started.values():
                if ours and not future.cancel():
                    future.exception()

    def _settle(self, sources: list[Repository], layer: Descriptor, diff_id: Digest) -> None:
        self._cancel.check()
        if not self._store.has_layer(diff_id):
            download(sources, layer, diff_id, self._store, self._feed, self._cancel, self._attempts, self._downloads.partials)
        # The store unpacked while the bytes came in: one object tells old clients that this phase is over.
        self._feed.count("Extracting", short_id(layer.digest), layer.size, layer.size, final=True)
        self._feed.state("Pull complete", short_id(layer.digest))

    def _remember(self, found: Found, config: ImageConfig, ref: ImageRef) -> None:
        self._records.add(
            Known(diff_id, layer.digest, layer.size, layer.media_type, ref.name)
            for layer, diff_id in zip(found.manifest.layers, config.rootfs.diff_ids, strict=True)
        )

    def _status(self, ref: ImageRef, changed: bool) -> None:
        news = "Downloaded newer image for" if changed else "Image is up to date for"
        self._feed.say(f"Status: {news} {ref.familiar}")
