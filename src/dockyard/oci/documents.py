"""Documents of images: configs, manifests, indexes; parsed leniently, the bytes that were digested kept beside them.

Fields that nobody here needs are not modelled: they live on in ``raw``. Sizes and digests are checked where they are
read, because everything later trusts them. Sources: image-spec config.md, manifest.md, image-index.md; Docker's
schema 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from dockyard.lib.notjson import NOT_JSON

from .digest import Digest, chain_ids, parse_digest, sha256_of
from .errors import BAD_DOCUMENT

MAX_DOCUMENT = 8 << 20  # containerd reads no manifest above 8 MiB
MAX_LAYERS = 500  # overlayfs stacks 500 lower directories

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
INDEX_TYPES = frozenset((OCI_INDEX, DOCKER_INDEX))
MANIFEST_TYPES = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
REFERENCE_ANNOTATION = "vnd.docker.reference.digest"
ATTESTATION_ANNOTATION = "vnd.docker.reference.type"
NAME_ANNOTATION = "io.containerd.image.name"
TAG_ANNOTATION = "org.opencontainers.image.ref.name"

T = TypeVar("T")


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A typed, sized, digested pointer (descriptor.md)."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str = ""
    urls: list[str] | None = None

    @property
    def is_attestation(self) -> bool:
        return (self.annotations or {}).get(ATTESTATION_ANNOTATION) == "attestation-manifest"


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = 2
    media_type: str = ""


class Index(msgspec.Struct, frozen=True, rename="camel"):
    manifests: list[Descriptor]
    schema_version: int = 2
    media_type: str = ""


class RootFs(msgspec.Struct, frozen=True):
    diff_ids: list[str] = []
    type: str = "layers"


class HistoryRow(msgspec.Struct, frozen=True, omit_defaults=True):
    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ConfigDocument(msgspec.Struct, frozen=True):
    """What the platform reads of an image config; ``config`` is Docker's container config, kept as it is."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str | None = None
    author: str = ""
    config: dict[str, Any] | None = None
    rootfs: RootFs = RootFs()
    history: list[HistoryRow] | None = None


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """A config with its bytes. The image ID is the digest of exactly these bytes."""

    raw: bytes
    document: ConfigDocument
    diff_ids: tuple[Digest, ...]

    @property
    def id(self) -> Digest:
        return sha256_of(self.raw)

    @property
    def chain_ids(self) -> list[Digest]:
        return chain_ids(self.diff_ids)


def parse_config(raw: bytes) -> ImageConfig:
    """Raises InvalidParameter where the bytes are no image config."""
    document = decode("image config", raw, ConfigDocument)
    if len(document.rootfs.diff_ids) > MAX_LAYERS:
        raise BAD_DOCUMENT(what="image config", cause=f"more than {MAX_LAYERS} layers")
    return ImageConfig(raw, document, tuple(parse_digest(item) for item in document.rootfs.diff_ids))


def parse_manifest(raw: bytes) -> Manifest:
    manifest = decode("manifest", raw, Manifest)
    if len(manifest.layers) > MAX_LAYERS:
        raise BAD_DOCUMENT(what="manifest", cause=f"more than {MAX_LAYERS} layers")
    for descriptor in (manifest.config, *manifest.layers):
        check_descriptor(descriptor)
    return manifest


def parse_index(raw: bytes) -> Index:
    index = decode("index", raw, Index)
    for descriptor in index.manifests:
        check_descriptor(descriptor)
    return index


def check_descriptor(descriptor: Descriptor) -> None:
    parse_digest(descriptor.digest)
    if not 0 <= descriptor.size < 1 << 46:
        raise BAD_DOCUMENT(what="descriptor", cause=f"size {descriptor.size}")


def decode(what: str, raw: bytes, kind: type[T]) -> T:
    """JSON of a foreign document; size-limited, its errors translated."""
    if len(raw) > MAX_DOCUMENT:
        raise BAD_DOCUMENT(what=what, cause=f"larger than {MAX_DOCUMENT} bytes")
    try:
        return msgspec.json.decode(raw, type=kind)
    except NOT_JSON as error:
        raise BAD_DOCUMENT(what=what, cause=str(error)) from None


def encode(document: Any) -> bytes:
    """The one way this house writes a document that gets a digest."""
    return msgspec.json.encode(document)
