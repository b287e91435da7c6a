"""Push: skip what is there, mount what a neighbour has, upload the rest at once, then config and manifest.

An image that was pulled goes out under the digest it came in with: if the target ends up with exactly the blobs of the
original manifest, those bytes are put, not a manifest of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future

from dockyard.errors import DockyardError, InvalidParameter, Unauthorized, Unavailable
from dockyard.oci import Digest, ImageRef, sha256_of

from .cancel import Cancel
from .compress import Packed
from .download import CHUNK, short_id
from .errors import NO_LOCAL_TAG
from .feed import Feed
from .manifests import DOCKER_CONFIG, Descriptor, ImageManifest, parse_manifest, write_manifest
from .model import Part, RawManifest
from .ports import ImageStore, LocalImage
from .records import Known, Records
from .repository import Repository

MAX_MOUNTS = 3
MAX_CHECKS = 4
"""Known digests of one layer that are asked for before it is uploaded."""
MAX_UPLOADS = 3
"""Attempts for one blob."""
RETRY_PAUSE = 1.0

Compose = Callable[[Mapping[Digest, Descriptor]], Sequence[Part]]
"""What is to be pushed besides the layers, once it is known what these have become there; pure, called in a thread."""


class Push:
    """One push operation; ``run`` blocks and is called in a worker thread."""

    def __init__(
        self, target: Repository, store: ImageStore, records: Records, uploads: Executor, feed: Feed,
        cancel: Cancel, compression: str, chunk: int,
    ) -> None:  # fmt: skip
        self._target = target
        self._store = store
        self._records = records
        self._uploads = uploads
        self._feed = feed
        self._cancel = cancel
        self._compression = compression
        self._chunk = chunk

    def run(self, ref: ImageRef, *, all_tags: bool) -> None:
        """Raises NotFound (no such local image), Unauthorized (not allowed), Unavailable."""
        self._feed.say(f"The push refers to repository [{ref.name}]")
        refs = self._store.tags(ref.name) if all_tags else [ref]
        images = [(each, image) for each in refs if (image := self._store.image(each)) is not None]
        if not images:
            raise NO_LOCAL_TAG(name=ref.familiar_name if all_tags else ref.familiar)
        for each, image in images:
            self._one(each, image)

    def run_parts(self, ref: ImageRef, layers: Sequence[Digest], compose: Compose) -> None:
        """Layers, then what ``compose`` makes of them in its order; the last manifest gets the tag. The caller holds the
        layers. Raises as ``run``."""
        self._feed.say(f"The push refers to repository [{ref.name}]")
        parts = compose(self._push_all(ref, layers, {}))
        for place, part in enumerate(parts, 1):
            self._cancel.check()
            digest = sha256_of(part.raw)
            if part.manifest:
                last = place == len(parts)
                self._target.put_manifest((ref.tag or digest) if last else digest, part.media_type, part.raw)
            elif not self._target.has_blob(digest):
                self._target.finish_upload(self._target.start_upload(), digest, part.raw)
        digest, size = sha256_of(parts[-1].raw), len(parts[-1].raw)
        self._feed.say(f"{ref.tag}: digest: {digest} size: {size}")
        self._feed.aux({"Tag": ref.tag or "", "Digest": digest, "Size": size})

    def _one(self, ref: ImageRef, image: LocalImage) -> None:
        original = _original(image, ref)
        layers = self._push_layers(ref, image, original)
        config = Descriptor(DOCKER_CONFIG, len(image.config), sha256_of(image.config))
        if not self._target.has_blob(config.digest):
            self._target.finish_upload(self._target.start_upload(), config.digest, image.config)
        manifest = self._manifest(config, layers, original)
        tag = ref.tag or ""
        self._target.put_manifest(tag or manifest.digest, manifest.media_type, manifest.raw)
        self._feed.say(f"{tag}: digest: {manifest.digest} size: {len(manifest.raw)}")
        self._feed.aux({"Tag": tag, "Digest": manifest.digest, "Size": len(manifest.raw)})

    def _manifest(self, config: Descriptor, layers: list[Descriptor], original: ImageManifest | None) -> RawManifest:
        if original and [o.digest for o in original.layers] == [layer.digest for layer in layers]:
            return original.source
        return write_manifest(config, layers)

    def _push_layers(self, ref: ImageRef, image: LocalImage, original: ImageManifest | None) -> list[Descriptor]:
        hints = dict(zip(image.layers, original.layers, strict=True)) if original else {}
        done = self._push_all(ref, image.layers, hints)
        return [done[diff_id] for diff_id in image.layers]

    def _push_all(
        self, ref: ImageRef, layers: Sequence[Digest], hints: Mapping[Digest, Descriptor]
    ) -> dict[Digest, Descriptor]:
        """Each layer once, from the top; ``hints``: what a layer was when it was pulled."""
        started: dict[Digest, Future[Descriptor]] = {}
        for diff_id in reversed(layers):
            if diff_id not in started:
                self._feed.state("Preparing", short_id(diff_id))
                started[diff_id] = self._uploads.submit(self._layer, ref, diff_id, hints.get(diff_id))
        try:
            done = {diff_id: future.result() for diff_id, future in started.items()}
        except BaseException:
            self._cancel.cancel()
            raise
        finally:
            for future in started.values():
                if not future.cancel():
                    future.exception()
        self._records.add(
            Known(diff_id, layer.digest, layer.size, layer.media_type, ref.name) for diff_id, layer in done.items()
        )
        return done

    # -- one layer ---------------------------------------------------------------------------------------------------

    def _layer(self, ref: ImageRef, diff_id: Digest, hint: Descriptor | None) -> Descriptor:
        self._cancel.check()
        known = self._records.known(diff_id)
        if hint is not None:  # the original digest first, so that the original manifest can be kept
            known.sort(key=lambda row: row.digest != hint.digest)
        if there := self._already_there(ref, known, hint):
            self._feed.state("Layer already exists", short_id(diff_id))
            return there
        if mounted := self._mount(ref, known):
            self._feed.state(f"Mounted from {mounted[1]}", short_id(diff_id))
            return mounted[0]
        for attempt in range(1, MAX_UPLOADS + 1):
            try:
                return self._upload(diff_id)
            except Unavailable:
                self._cancel.check()
                if attempt == MAX_UPLOADS:
                    raise
                self._feed.state(f"Retrying in {RETRY_PAUSE * attempt:.0f} seconds", short_id(diff_id))
                self._cancel.wait(RETRY_PAUSE * attempt)
        raise AssertionError("the last attempt returns or raises")

    def _already_there(self, ref: ImageRef, known: list[Known], hint: Descriptor | None) -> Descriptor | None:
        candidates = {row.digest: Descriptor(row.media_type, row.size, row.digest) for row in known}
        if hint is not None:
            candidates = {hint.digest: hint} | candidates
        for descriptor in list(candidates.values())[:MAX_CHECKS]:
            if self._target.has_blob(descriptor.digest):
                return descriptor
        for row in known:
            if row.repository == ref.name:
                self._records.forget(row)
        return None

    def _mount(self, ref: ImageRef, known: list[Known]) -> tuple[Descriptor, str] | None:
        neighbours = [
            row for row in known
            if row.repository.partition("/")[0] == ref.domain and row.repository != ref.name
        ]  # fmt: skip
        for row in neighbours[:MAX_MOUNTS]:
            source = row.repository.partition("/")[2]
            try:
                location = self._target.mount_blob(row.digest, source)
            except Unauthorized:
                continue  # the account may not read there
            if not location:
                return Descriptor(row.media_type, row.size, row.digest), source
            self._drop_upload(location)
            self._records.forget(row)
        return None

    def _drop_upload(self, location: str) -> None:
        try:
            self._target.cancel_upload(location)
        except DockyardError:
            self._cancel.check()  # registries may not allow it; they expire uploads by themselves

    def _upload(self, diff_id: Digest) -> Descriptor:
        location = self._target.start_upload()
        packed = Packed(self._plain(diff_id), self._compression)
        if self._chunk:
            location = self._target.send_chunks(location, packed, self._chunk)
        else:
            location = self._target.send_stream(location, packed)
        self._target.finish_upload(location, packed.digest)
        self._feed.state("Pushed", short_id(diff_id))
        return Descriptor(packed.media_type, packed.size, packed.digest)

    def _plain(self, diff_id: Digest) -> Iterator[bytes]:
        total = self._store.layer_size(diff_id)
        sent = 0
        for data in self._store.read_layer(diff_id, CHUNK):
            self._cancel.check()
            sent += len(data)
            self._feed.count("Pushing", short_id(diff_id), sent, total, final=sent == total)
            yield data


def _original(image: LocalImage, ref: ImageRef) -> ImageManifest | None:
    """The manifest that the image came with, if its layers are those of the image."""
    if image.manifest is None:
        return None
    try:
        document = parse_manifest(image.manifest, ref.familiar)
    except InvalidParameter:
        return None
    fits = isinstance(document, ImageManifest) and len(document.layers) == len(image.layers)
    return document if isinstance(document, ImageManifest) and fits else None
