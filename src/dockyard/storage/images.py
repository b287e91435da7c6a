"""Image records: what there is, by which names, and what removal would do.

One ID rule (ADR 300): an image's ID is the digest of its config, as every Docker engine up to API 1.51 has it.
Manifests and indexes it came with are kept as they are, beside it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dockyard.errors import DockyardError
from dockyard.oci import Digest, ImageConfig, ImageRef, is_digest, parse_config, parse_reference

from .db import Database
from .errors import AMBIGUOUS_ID, NO_SUCH_IMAGE
from .layers import LayerStore
from .model import Image, LayerSource

MIN_PREFIX = 2
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest, an index or an attestation that belongs to an image."""

    digest: Digest
    media_type: str
    data: bytes


class ImageStore:
    def __init__(self, db: Database, layers: LayerStore) -> None:
        self._db = db
        self._layers = layers
        self._configs: dict[Digest, ImageConfig] = {}
        self._parents: dict[Digest, Digest | None] = {}
        self._tags: dict[str, Digest] = {}
        self._digests: dict[str, set[Digest]] = {}
        self._cache: dict[Digest, Image] = {}
        for raw, parent in db.rows("SELECT config, parent FROM images ORDER BY added"):
            assert isinstance(raw, bytes)
            config = parse_config(raw)
            self._configs[config.id] = config
            self._parents[config.id] = None if parent is None else Digest(str(parent))
        for ref, image in db.rows("SELECT ref, image FROM tags"):
            self._tags[str(ref)] = Digest(str(image))
        for ref, image in db.rows("SELECT ref, image FROM repo_digests"):
            self._digests.setdefault(str(ref), set()).add(Digest(str(image)))

    def __contains__(self, image: Digest) -> bool:
        return image in self._configs

    def ids(self) -> list[Digest]:
        return list(self._configs)

    def all(self) -> list[Image]:
        return [self.image(item) for item in self._configs]

    def image(self, image: Digest) -> Image:
        cached = self._cache.get(image)
        if cached is None:
            config = self._configs.get(image)
            if config is None:
                raise NO_SUCH_IMAGE(ref=image)
            cached = self._cache[image] = self._view(image, config)
        return cached

    def _view(self, image: Digest, config: ImageConfig) -> Image:
        sizes = tuple(self._layers.get(diff_id).content_size for diff_id in config.diff_ids)
        tags = sorted(parse_reference(ref).familiar for ref, owner in self._tags.items() if owner == image)
        digests = sorted(parse_reference(ref).familiar for ref, owners in self._digests.items() if image in owners)
        return Image(
            image, config, tuple(tags), tuple(digests), sum(sizes), config.document.created or "",
            self._parents.get(image), tuple(config.chain_ids), sizes,
        )  # fmt: skip

    def get(self, ref: str) -> Image:
        """By ID, prefix of an ID, name[:tag] or name@digest. Raises NotFound with Docker's sentence."""
        return self.image(self.resolve(ref))

    def resolve(self, ref: str) -> Digest:
        if is_digest(ref) and Digest(ref) in self._configs:
            return Digest(ref)
        parsed = self._parsed(ref)
        if parsed is not None:
            found = self._by_reference(parsed)
            if found is not None:
                return found
        found = self._by_prefix(ref)
        if found is None:
            shown = parsed.with_default_tag().familiar if parsed is not None else ref
            raise NO_SUCH_IMAGE(ref=shown)
        return found

    def _parsed(self, ref: str) -> ImageRef | None:
        try:
            return parse_reference(ref)
        except DockyardError:
            return None

    def _by_reference(self, ref: ImageRef) -> Digest | None:
        if ref.digest is not None:
            owners = self._digests.get(f"{ref.name}@{ref.digest}", set())
            if owners:
                return min(owners)
            # name@ID of an image that carries the name: what save, podman and some scripts write
            if ref.digest in self._configs and any(
                owner == ref.digest and parse_reference(tag).name == ref.name for tag, owner in self._tags.items()
            ):
                return ref.digest
            return None
        return self._tags.get(str(ref.with_default_tag()))

    def _by_prefix(self, ref: str) -> Digest | None:
        text = ref.removeprefix("sha256:")
        if len(text) < MIN_PREFIX or not _HEX.issuperset(text):
            return None
        found = [image for image in self._configs if image.startswith("sha256:" + text)]
        if len(found) > 1:
            raise AMBIGUOUS_ID(ref=ref)
        return found[0] if found else None

    def put(
        self, config: ImageConfig, layers: Sequence[LayerSource] = (), documents: Iterable[Document] = (),
        parent: Digest | None = None,
    ) -> Digest:  # fmt: skip
        """Record an image whose layers are stored. An image that is here already only gains documents."""
        image = config.id
        for diff_id in config.diff_ids:
            self._layers.get(diff_id)
        with self._db.transaction() as db:
            if image not in self._configs:
                db.execute(
                    "INSERT INTO images(id, config, parent, added) VALUES (?,?,?,?)",
                    (image, config.raw, parent, time.time()),
                )
                db.executemany(
                    "INSERT INTO image_layers(image, position, diff_id) VALUES (?,?,?)",
                    [(image, position, diff_id) for position, diff_id in enumerate(config.diff_ids)],
                )
            db.executemany(
                "INSERT OR REPLACE INTO blobs(digest, media_type, data, image) VALUES (?,?,?,?)",
                [(item.digest, item.media_type, item.data, image) for item in documents],
            )
            db.executemany(
                "INSERT OR REPLACE INTO fetched(digest, diff_id, media_type, size) VALUES (?,?,?,?)",
                [(s.blob_digest, s.diff_id, s.media_type, s.size) for s in layers if s.blob_digest is not None],
            )
        if image not in self._configs:
            self._configs[image] = config
            self._parents[image] = parent
        return image

    def documents(self, image: Digest) -> list[Document]:
        rows = self._db.rows("SELECT digest, media_type, data FROM blobs WHERE image=? ORDER BY digest", image)
        return [Document(Digest(str(d)), str(m), data) for d, m, data in rows if isinstance(data, bytes)]

    def tag(self, image: Digest, ref: ImageRef) -> Digest | None:
        """Point a name at the image; the image that had it before, if another."""
        name = str(ref.with_default_tag())
        before = self._tags.get(name)
        self._db.execute("INSERT OR REPLACE INTO tags(ref, image) VALUES (?,?)", name, image)
        self._tags[name] = image
        self._forget_views(image, before)
        return before if before != image else None

    def add_digest(self, image: Digest, ref: ImageRef) -> None:
        name = f"{ref.name}@{ref.digest}"
        self._db.execute("INSERT OR IGNORE INTO repo_digests(ref, image) VALUES (?,?)", name, image)
        self._digests.setdefault(name, set()).add(image)
        self._forget_views(image)

    def untag(self, ref: ImageRef) -> None:
        name = f"{ref.name}@{ref.digest}" if ref.digest else str(ref.with_default_tag())
        self._db.remove(("DELETE FROM tags WHERE ref=?", (name,)), ("DELETE FROM repo_digests WHERE ref=?", (name,)))
        owners = {self._tags.pop(name)} if name in self._tags else self._digests.pop(name, set())
        self._forget_views(*owners)

    def refs(self, image: Digest) -> list[ImageRef]:
        """Tags, then digests, in full form."""
        tags = sorted(ref for ref, owner in self._tags.items() if owner == image)
        digests = sorted(ref for ref, owners in self._digests.items() if image in owners)
        return [parse_reference(ref) for ref in tags + digests]

    def named_by(self, ref: str, image: Digest) -> ImageRef | None:
        """The name that ``ref`` means, or None where it is the image's ID or a prefix of it."""
        parsed = None if image.startswith("sha256:" + ref.removeprefix("sha256:")) else self._parsed(ref)
        return parsed.with_default_tag() if parsed is not None else None

    def children(self, image: Digest) -> list[Digest]:
        return [child for child, parent in self._parents.items() if parent == image]

    def delete(self, image: Digest) -> None:
        """Forget image and names; layers are the collector's."""
        self._db.remove(("DELETE FROM images WHERE id=?", (image,)))
        del self._configs[image]
        self._parents.pop(image, None)
        self._tags = {ref: owner for ref, owner in self._tags.items() if owner != image}
        for owners in self._digests.values():
            owners.discard(image)
        self._digests = {ref: owners for ref, owners in self._digests.items() if owners}
        self._forget_views(image)

    def used_layers(self) -> set[Digest]:
        return {diff_id for config in self._configs.values() for diff_id in config.diff_ids}

    def _forget_views(self, *images: Digest | None) -> None:
        for image in images:
            if image is not None:
                self._cache.pop(image, None)
