"""Image archives: which images a tar of ``docker save`` or an OCI layout holds, decided from its small documents.

::

    docker archive   manifest.json [{Config, RepoTags, Layers, Parent?}]
    OCI layout       oci-layout, index.json -> (indexes ->) manifests -> blobs/ALGORITHM/HEX
    hybrid           both in one tar, as Docker 25 and later write it: manifest.json says what, the blobs are kept
    v1               <id>/{json,layer.tar,VERSION} and ``repositories``, before Docker 1.10 (oci.v1)

Pure: gets the documents and the names of all members, gives a plan. Member names are cleaned, so that nothing outside
of the archive is ever named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from . import v1
from .attestations import Attestation, Described, image_index
from .digest import Digest, sha256_of
from .documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    NAME_ANNOTATION,
    OCI_MANIFEST,
    REFERENCE_ANNOTATION,
    TAG_ANNOTATION,
    Descriptor,
    Index,
    Manifest,
    Platform,
    decode,
    parse_index,
    parse_manifest,
)
from .errors import BAD_ARCHIVE
from .layers import clean_name

MAX_INDEX_DEPTH = 8


class ManifestItem(msgspec.Struct, frozen=True):
    """A row of manifest.json."""

    Config: str
    Layers: list[str] | None = None
    RepoTags: list[str] | None = None
    Parent: str = ""


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """Member that holds the layer, and what is claimed about its (compressed) bytes."""

    member: str
    digest: Digest | None = None
    size: int | None = None
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class PlannedImage:
    config: bytes
    layers: tuple[PlannedLayer, ...]
    names: tuple[str, ...] = ()
    parent: str = ""
    documents: tuple[tuple[str, bytes], ...] = ()  # (media type, bytes) of manifests and indexes that lead here
    platform: Platform | None = None
    v1: tuple[bytes, ...] = ()
    """Documents of a v1 archive, lowest first, in place of ``config``: that needs the diff IDs (``v1.make_config``)."""


@dataclass(frozen=True, slots=True)
class ArchiveContent:
    """Members by cleaned name: small documents with their bytes, larger files by name only, links resolved."""

    documents: Mapping[str, bytes]
    files: frozenset[str]
    links: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        """The member that a path in a document means. Raises InvalidParameter where there is none."""
        path = b"/".join(clean_name(name.encode("utf-8", "surrogateescape"))).decode("utf-8", "surrogateescape")
        for _ in range(MAX_INDEX_DEPTH):
            if path in self.documents or path in self.files:
                return path
            if path not in self.links:
                break
            path = self.links[path]
        raise BAD_ARCHIVE(cause=f"{name} is missing")

    def document(self, name: str) -> bytes:
        path = self.resolve(name)
        if path not in self.documents:
            raise BAD_ARCHIVE(cause=f"{name} is too large for a document")
        return self.documents[path]

    def has(self, name: str) -> bool:
        return name in self.documents or name in self.files or name in self.links


def plan_load(content: ArchiveContent) -> list[PlannedImage]:
    """The images of an archive. Raises InvalidParameter where it is none or is incomplete."""
    if content.has("manifest.json"):
        items = decode("manifest.json", content.document("manifest.json"), list[ManifestItem])
        kept = _documents_by_config(content)
        return [_from_item(content, item, kept) for item in items]
    if content.has("index.json"):
        return _from_layout(content)
    if content.has("repositories"):
        return _from_v1(content)
    raise BAD_ARCHIVE(cause="neither manifest.json nor index.json nor repositories is in it")


def _from_v1(content: ArchiveContent) -> list[PlannedImage]:
    images = []
    for top, names in v1.chains(content).items():
        ids = v1.ancestry(content, top)
        layers = tuple(PlannedLayer(content.resolve(f"{layer}/layer.tar")) for layer in ids)
        documents = tuple(content.document(f"{layer}/json") for layer in ids)
        images.append(PlannedImage(b"", layers, tuple(names), v1=documents))
    return images


def _from_item(
    content: ArchiveContent, item: ManifestItem, kept: Mapping[Digest, list[tuple[str, bytes]]]
) -> PlannedImage:
    config = content.document(item.Config)
    layers = tuple(PlannedLayer(content.resolve(name)) for name in item.Layers or ())
    return PlannedImage(config, layers, tuple(item.RepoTags or ()), item.Parent, tuple(kept.get(sha256_of(config), ())))


def _documents_by_config(content: ArchiveContent) -> dict[Digest, list[tuple[str, bytes]]]:
    kept: dict[Digest, list[tuple[str, bytes]]] = {}
    if content.has("index.json"):
        for found in _manifests(content, parse_index(content.document("index.json")), (), 0):
            kept.setdefault(Digest(found.manifest.config.digest), []).extend(found.documents)
    return kept


@dataclass(frozen=True, slots=True)
class _Found:
    manifest: Manifest
    documents: tuple[tuple[str, bytes], ...]
    names: tuple[str, ...]
    platform: Platform | None


def _manifests(
    content: ArchiveContent, index: Index, above: tuple[tuple[str, bytes], ...], depth: int, names: tuple[str, ...] = ()
) -> Iterator[_Found]:
    """Image manifests reachable from an index; blobs that are not in the archive are passed over. An attestation is no
    image: its manifest and statements go along with the documents of the image that it is about."""
    if depth > MAX_INDEX_DEPTH:
        raise BAD_ARCHIVE(cause="indexes are nested too deeply")
    about = _attestations(content, index)
    for descriptor in index.manifests:
        path = blob_path(descriptor.digest)
        if descriptor.is_attestation or path not in content.documents:
            continue
        raw = content.documents[path]
        if sha256_of(raw) != descriptor.digest:
            raise BAD_ARCHIVE(cause=f"{path} is not what its name says")
        found = names or _names(descriptor)
        chain = (*above, (descriptor.media_type, raw), *about.get(descriptor.digest, ()))
        if descriptor.media_type in INDEX_TYPES:
            yield from _manifests(content, parse_index(raw), chain, depth + 1, found)
        elif descriptor.media_type in MANIFEST_TYPES and not descriptor.artifact_type:
            yield _Found(parse_manifest(raw), chain, found, descriptor.platform)


def _attestations(content: ArchiveContent, index: Index) -> dict[str, list[tuple[str, bytes]]]:
    """Digest of an image manifest -> what is attested about it (BuildKit docs/attestations/attestation-storage.md)."""
    about: dict[str, list[tuple[str, bytes]]] = {}
    for descriptor in index.manifests:
        path = blob_path(descriptor.digest)
        if not descriptor.is_attestation or path not in content.documents:
            continue
        raw = content.documents[path]
        if sha256_of(raw) != descriptor.digest:
            raise BAD_ARCHIVE(cause=f"{path} is not what its name says")
        found = about.setdefault((descriptor.annotations or {}).get(REFERENCE_ANNOTATION, ""), [])
        found.append((descriptor.media_type, raw))
        for part in parse_manifest(raw).layers:
            statement = content.documents.get(blob_path(part.digest))
            if statement is not None and sha256_of(statement) == part.digest:
                found.append((part.media_type, statement))
    return about


def _names(descriptor: Descriptor) -> tuple[str, ...]:
    annotations = descriptor.annotations or {}
    if NAME_ANNOTATION in annotations:
        return (annotations[NAME_ANNOTATION],)
    # skopeo and umoci write what was asked for, often a bare tag: only a name with a tag names an image.
    name = annotations.get(TAG_ANNOTATION, "")
    return (name,) if ":" in name or "/" in name else ()


def _from_layout(content: ArchiveContent) -> list[PlannedImage]:
    images, incomplete = [], ""
    for found in _manifests(content, parse_index(content.document("index.json")), (), 0):
        needed = (found.manifest.config, *found.manifest.layers)
        missing = [item.digest for item in needed if not content.has(blob_path(item.digest))]
        if missing:
            incomplete = missing[0]
            continue
        config = content.document(blob_path(found.manifest.config.digest))
        if sha256_of(config) != found.manifest.config.digest:
            raise BAD_ARCHIVE(cause=f"{blob_path(found.manifest.config.digest)} is not what its name says")
        layers = tuple(
            PlannedLayer(content.resolve(blob_path(d.digest)), Digest(d.digest), d.size, d.media_type)
            for d in found.manifest.layers
        )
        images.append(PlannedImage(config, layers, found.names, "", found.documents, found.platform))
    if not images:
        raise BAD_ARCHIVE(cause=f"blob {incomplete} is missing" if incomplete else "it holds no image manifest")
    return images


def blob_path(digest: str) -> str:
    algorithm, _, name = digest.partition(":")
    return f"blobs/{algorithm}/{name}"


@dataclass(frozen=True, slots=True)
class Annotations:
    """Of an image's manifest, of the row that an index has for it, and of that index."""

    manifest: Mapping[str, str] = field(default_factory=dict)
    descriptor: Mapping[str, str] = field(default_factory=dict)
    index: Mapping[str, str] = field(default_factory=dict)

    def row(self, described: Mapping[str, Any]) -> dict[str, Any]:
        return {**described, **({"annotations": dict(self.descriptor)} if self.descriptor else {})}


NO_ANNOTATIONS = Annotations()


@dataclass(frozen=True, slots=True)
class SavedImage:
    """What save needs of an image: config bytes, (diff ID, size of the plain tar) of each layer, names to write. With
    attestations, or ``others`` for other platforms, its names lead to an index; the docker archive's own list has this
    image alone."""

    config: bytes
    layers: tuple[tuple[Digest, int], ...]
    names: tuple[tuple[str, str], ...]  # (full reference, familiar reference)
    created_ns: int
    attestations: tuple[Attestation, ...] = ()
    others: tuple[SavedImage, ...] = ()
    annotations: Annotations = NO_ANNOTATIONS


def save_documents(images: list[SavedImage]) -> dict[str, tuple[bytes, int]]:
    """Every document of a hybrid archive by path, with its time; the layer blobs come beside them. Deterministic."""
    documents: dict[str, tuple[bytes, int]] = {"oci-layout": (b'{"imageLayoutVersion":"1.0.0"}', 0)}
    items: list[dict[str, Any]] = []
    descriptors: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for image in images:
        described = []
        for each in (image, *image.others):
            manifest = _manifest_of(each, sha256_of(each.config))
            documents[blob_path(sha256_of(each.config))] = (each.config, each.created_ns)
            documents[blob_path(sha256_of(manifest))] = (manifest, 0)
            row = each.annotations.row({"mediaType": OCI_MANIFEST, "digest": sha256_of(manifest), "size": len(manifest)})
            described.append(Described(each.config, row, each.attestations))
        descriptor: dict[str, Any] = dict(described[0].manifest)
        if image.others or image.attestations or image.annotations.index:
            descriptor, made = image_index(described, [name for _, name in image.names], image.annotations.index)
            documents |= {blob_path(sha256_of(blob)): (blob, 0) for _, blob in made}
        for full, familiar in image.names:
            tag = full.rpartition(":")[2]
            kept = descriptor.get("annotations") or {}
            descriptors.append({**descriptor, "annotations": {**kept, NAME_ANNOTATION: full, TAG_ANNOTATION: tag}})
            if image.layers:
                top = image.layers[-1][0].partition(":")[2]
                repositories.setdefault(familiar.rpartition(":")[0], {})[tag] = top
        if not image.names:
            descriptors.append(descriptor)
        items.append(_item_of(image, sha256_of(image.config)))
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": descriptors}
    documents["index.json"] = (msgspec.json.encode(index), 0)
    documents["manifest.json"] = (msgspec.json.encode(items), 0)
    if repositories:
        documents["repositories"] = (msgspec.json.encode(repositories, order="sorted"), 0)
    return documents


def _layer_descriptor(diff_id: Digest, size: int) -> dict[str, Any]:
    return {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff_id, "size": size}


def _manifest_of(image: SavedImage, config_digest: Digest) -> bytes:
    return msgspec.json.encode({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": len(image.config)
        },
        "layers": [_layer_descriptor(diff_id, size) for diff_id, size in image.layers],
        **({"annotations": dict(image.annotations.manifest)} if image.annotations.manifest else {}),
    })  # fmt: skip


def _item_of(image: SavedImage, config_digest: Digest) -> dict[str, Any]:
    return {
        "Config": blob_path(config_digest),
        "RepoTags": [familiar for _, familiar in image.names] or None,
        "Layers": [blob_path(diff_id) for diff_id, _ in image.layers],
        "LayerSources": {diff_id: _layer_descriptor(diff_id, size) for diff_id, size in image.layers},
    }
