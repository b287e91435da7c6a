"""What a manifest says, read from its bytes; the bytes themselves are kept and served unchanged.

Image manifests (OCI and Docker schema 2), indexes and manifest lists, and artifacts (any OCI manifest with an
artifactType). Docker's schema 1 is refused: its last writer left moby in 28.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from dockyard.lib.notjson import NOT_JSON
from dockyard.registry.errors import DIGEST_INVALID, MANIFEST_INVALID
from dockyard.registry.names import check_digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
IMAGES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"
_FOREIGN = ("foreign", "nondistributable")  # layers that live at their own URLs and are never pushed
_MANIFEST_REFERENCES_MAX = 10_000


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    urls: list[str] | None = None


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    blobs: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """`blobs` must exist in the repository; `children` (of an index) may be missing: sparse indexes are copied so."""

    media_type: str
    raw: bytes
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    children: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: dict[str, str]

    @property
    def blobs(self) -> list[str]:
        """Digests of config and layers, once each, without layers that are not distributed."""
        found = [self.config.digest] if self.config is not None else []
        found += [layer.digest for layer in self.layers if not _foreign(layer)]
        return list(dict.fromkeys(found))

    @property
    def content_size(self) -> int:
        return sum(d.size for d in (*self.layers, *([self.config] if self.config else [])))


def _foreign(layer: Descriptor) -> bool:
    return bool(layer.urls) or any(word in layer.media_type for word in _FOREIGN)


_decoder = msgspec.json.Decoder(_Document)


def parse_manifest(raw: bytes, content_type: str) -> Manifest:
    """Raises MANIFEST_INVALID, DIGEST_INVALID."""
    try:
        document = _decoder.decode(raw)
    except NOT_JSON as error:
        raise MANIFEST_INVALID(reason=str(error)) from error
    media_type = _media_type(document, content_type.partition(";")[0].strip())
    index = media_type in INDEXES or (media_type not in IMAGES and document.manifests is not None)
    if document.schema_version != 2:
        raise MANIFEST_INVALID(reason="schemaVersion must be 2")
    if media_type in IMAGES and (document.config is None or document.layers is None):
        raise MANIFEST_INVALID(reason="an image manifest needs config and layers")
    if media_type in INDEXES and document.manifests is None:
        raise MANIFEST_INVALID(reason="an index needs manifests")
    artifact_type = document.artifact_type
    if not artifact_type and document.config is not None:
        artifact_type = document.config.media_type
    manifest = Manifest(
        media_type=media_type,
        raw=raw,
        config=None if index else document.config,
        layers=() if index else tuple(document.layers or document.blobs or ()),
        children=tuple(document.manifests or ()) if index else (),
        subject=document.subject,
        artifact_type=artifact_type,
        annotations=document.annotations or {},
    )
    _check_descriptors(manifest)
    return manifest


def _media_type(document: _Document, content_type: str) -> str:
    """The type it is served with: what the pusher said; the field in the document must not contradict it."""
    if content_type.startswith(_SCHEMA1):
        raise MANIFEST_INVALID(reason="image manifest schema 1 is not supported")
    if content_type in {"", "application/json", "application/octet-stream"}:
        content_type = document.media_type
    if not content_type:
        content_type = OCI_INDEX if document.manifests is not None else OCI_MANIFEST
    if document.media_type and document.media_type != content_type:
        raise MANIFEST_INVALID(reason=f"Content-Type {content_type} is not its mediaType {document.media_type}")
    return content_type


def _check_descriptors(manifest: Manifest) -> None:
    descriptors = [*manifest.layers, *manifest.children]
    descriptors += [d for d in (manifest.config, manifest.subject) if d is not None]
    if len(descriptors) > _MANIFEST_REFERENCES_MAX:
        raise MANIFEST_INVALID(reason=f"more than {_MANIFEST_REFERENCES_MAX} references")
    for descriptor in descriptors:
        if descriptor.size < 0:
            raise MANIFEST_INVALID(reason=f"negative size of {descriptor.digest[:140]}")
        try:
            check_digest(descriptor.digest)
        except DIGEST_INVALID.kind as error:
            raise MANIFEST_INVALID(reason=str(error)) from error


def referrer_descriptor(manifest: Manifest, digest: str) -> Descriptor:
    """How a manifest with a subject appears in the referrers list (spec "Listing Referrers")."""
    return Descriptor(
        digest=digest, size=len(manifest.raw), media_type=manifest.media_type, artifact_type=manifest.artifact_type,
        annotations=manifest.annotations or None,
    )  # fmt: skip


def index_document(descriptors: list[Descriptor]) -> bytes:
    listed = msgspec.json.encode(descriptors)
    return b'{"schemaVersion":2,"mediaType":"%b","manifests":%b}' % (OCI_INDEX.encode(), listed)
