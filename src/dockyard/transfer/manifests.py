"""Manifests and indexes as registries serve them: read, choose a platform, write one for a push (pure).

What a digest names is never re-encoded: ``RawManifest.raw`` goes to the store and to other registries as it came.
"""

from __future__ import annotations

import platform as host
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dockyard.lib.notjson import NOT_JSON
from dockyard.oci import Digest, is_digest, sha256_of

from .errors import BAD_MANIFEST, FOREIGN_LAYER, NO_PLATFORM, NOT_AN_IMAGE, SCHEMA1_REMOVED
from .model import RawManifest

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"
SCHEMA1_TYPES = (f"{SCHEMA1}+json", f"{SCHEMA1}+prettyjws")
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
ACCEPT = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, *SCHEMA1_TYPES)
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)

MAX_LAYERS = 1000
"""Far above what any builder makes (overlayfs itself takes 500 lower directories)."""


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    architecture: str = ""
    os: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    media_type: str = ""
    size: int = 0
    digest: Digest = Digest("")
    platform: Platform | None = None
    annotations: dict[str, str] | None = None
    urls: tuple[str, ...] | None = None
    artifact_type: str = ""

    @property
    def is_attestation(self) -> bool:
        """BuildKit's extra manifests, which are kept in the index and never unpacked (attestation-storage.md)."""
        return bool(self.annotations and "vnd.docker.reference.type" in self.annotations)


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int = 2
    media_type: str = ""
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None


@dataclass(frozen=True, slots=True)
class ImageManifest:
    source: RawManifest
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class ImageIndex:
    source: RawManifest
    manifests: tuple[Descriptor, ...]


def sniff_media_type(raw: bytes, header: str) -> str:
    """The document's own mediaType, else the header's, else by its shape: headers of static servers lie."""
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except NOT_JSON:
        return header.partition(";")[0].strip()
    if document.media_type:
        return document.media_type
    declared = header.partition(";")[0].strip()
    if declared in ACCEPT:
        return declared
    return OCI_INDEX if document.manifests is not None else OCI_MANIFEST


def parse_manifest(source: RawManifest, ref: str) -> ImageManifest | ImageIndex:
    """Raises InvalidParameter: schema 1, malformed JSON, bad digests or sizes."""
    if source.media_type in SCHEMA1_TYPES:
        raise SCHEMA1_REMOVED(ref=ref)
    try:
        document = msgspec.json.decode(source.raw, type=_Document)
    except NOT_JSON as error:
        raise BAD_MANIFEST(ref=ref, cause=error) from error
    if document.schema_version == 1:
        raise SCHEMA1_REMOVED(ref=ref)
    if source.media_type in INDEX_TYPES or document.manifests is not None:
        children = document.manifests or ()
        _check(children, ref)
        return ImageIndex(source, children)
    if document.config is None or document.layers is None:
        raise BAD_MANIFEST(ref=ref, cause="it has no config or no layers")
    _check((document.config, *document.layers), ref)
    return ImageManifest(source, document.config, document.layers)


def check_image(manifest: ImageManifest, ref: str) -> None:
    """Whether it can be run: artifacts (Helm charts, signatures) share the format. Raises InvalidParameter."""
    known = (DOCKER_CONFIG, OCI_CONFIG, "application/octet-stream", "")
    if manifest.config.media_type not in known:
        raise NOT_AN_IMAGE(ref=ref, media_type=manifest.config.media_type)
    for layer in manifest.layers:
        if layer.urls and "foreign" in layer.media_type:
            raise FOREIGN_LAYER(ref=ref, digest=layer.digest)


def _check(descriptors: Sequence[Descriptor], ref: str) -> None:
    if len(descriptors) > MAX_LAYERS:
        raise BAD_MANIFEST(ref=ref, cause=f"it lists {len(descriptors)} entries, more than {MAX_LAYERS}")
    for descriptor in descriptors:
        if not is_digest(descriptor.digest):
            raise BAD_MANIFEST(ref=ref, cause=f"invalid checksum digest format: {descriptor.digest[:100]!r}")
        if descriptor.size < 0:
            raise BAD_MANIFEST(ref=ref, cause=f"{descriptor.digest} has size {descriptor.size}")


# -- platforms -------------------------------------------------------------------------------------------------------

_ARCHITECTURES = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "aarch64": ("arm64", ""), "arm64": ("arm64", ""),
    "armv7l": ("arm", "v7"), "armhf": ("arm", "v7"), "armv6l": ("arm", "v6"), "armel": ("arm", "v6"),
    "i386": ("386", ""), "i686": ("386", ""), "ppc64le": ("ppc64le", ""), "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}  # fmt: skip
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7", "amd64": "v1"}
_ARM_FALLBACK = {"v8": ("v8", "v7", "v6", "v5"), "v7": ("v7", "v6", "v5"), "v6": ("v6", "v5"), "v5": ("v5",)}


def host_platform() -> Platform:
    architecture, variant = _ARCHITECTURES.get(host.machine(), (host.machine(), ""))
    return Platform(architecture, "linux", variant=variant)


def parse_platform(text: str) -> Platform:
    """``os[/arch[/variant]]`` or an architecture alone, normalised as containerd/platforms does."""
    if not text:
        return host_platform()
    parts = text.lower().split("/")
    if len(parts) == 1:
        name = parts[0]
        if name in _ARCHITECTURES or name in {value[0] for value in _ARCHITECTURES.values()}:
            architecture, variant = _ARCHITECTURES.get(name, (name, ""))
            return Platform(architecture, "linux", variant=variant)
        return Platform(host_platform().architecture, name)
    architecture, variant = _ARCHITECTURES.get(parts[1], (parts[1], ""))
    return Platform(architecture, parts[0], variant=parts[2] if len(parts) > 2 else variant)


def rank(wanted: Platform, offered: Platform) -> int | None:
    """0 for an exact fit, higher for a lesser one that still runs, None for none."""
    if offered.os != wanted.os or offered.architecture != wanted.architecture:
        return None
    default = _DEFAULT_VARIANT.get(wanted.architecture, "")
    want, have = wanted.variant or default, offered.variant or default
    if wanted.architecture == "arm":
        order = _ARM_FALLBACK.get(want, (want,))
        return order.index(have) if have in order else None
    return 0 if want == have else None


def choose(index: ImageIndex, wanted: Platform) -> Descriptor:
    """The image of the index that runs on ``wanted``; the first of equals. Raises NotFound."""
    offers = [d for d in index.manifests if not d.is_attestation and d.media_type not in INDEX_TYPES]
    ranked = [
        (fit, place) for place, offer in enumerate(offers)
        if offer.platform is not None and (fit := rank(wanted, offer.platform)) is not None
    ]  # fmt: skip
    if ranked:
        return offers[min(ranked)[1]]
    if len(offers) == 1 and offers[0].platform is None:
        return offers[0]
    available = ", ".join(str(offer.platform) for offer in offers if offer.platform) or "no platform"
    raise NO_PLATFORM(platform=wanted, available=available)


def platforms_of(index: ImageIndex) -> list[dict[str, Any]]:
    return [
        platform_document(offer.platform) for offer in index.manifests
        if offer.platform is not None and not offer.is_attestation
    ]  # fmt: skip


def platform_document(platform: Platform) -> dict[str, Any]:
    document: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        document["os.version"] = platform.os_version
    if platform.os_features:
        document["os.features"] = list(platform.os_features)
    if platform.variant:
        document["variant"] = platform.variant
    return document


# -- image configs and manifests to push -----------------------------------------------------------------------------


class _RootFs(msgspec.Struct, frozen=True):
    type: str = "layers"
    diff_ids: tuple[Digest, ...] = ()


class ImageConfig(msgspec.Struct, frozen=True):
    """What a pull must know of an image's config; the rest stays in its raw bytes."""

    architecture: str = ""
    os: str = "linux"
    variant: str = ""
    rootfs: _RootFs = _RootFs()

    @property
    def platform(self) -> Platform:
        return Platform(self.architecture, self.os, variant=self.variant)


def parse_config(raw: bytes, layers: int, ref: str) -> ImageConfig:
    """Raises InvalidParameter if it is malformed or does not have one diff id for each layer."""
    try:
        config = msgspec.json.decode(raw, type=ImageConfig)
    except NOT_JSON as error:
        raise BAD_MANIFEST(ref=ref, cause=f"its config: {error}") from error
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != layers or not all(is_digest(diff_id) for diff_id in diff_ids):
        raise BAD_MANIFEST(ref=ref, cause=f"its config names {len(diff_ids)} layers, the manifest {layers}")
    return config


def write_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> RawManifest:
    """Docker schema 2 if all layers are gzip in Docker's type, else OCI. Indented by 3, as distribution writes it."""
    return _written(config, layers, docker=all(layer.media_type == DOCKER_LAYER for layer in layers))


def write_oci_manifest(
    config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
) -> RawManifest:
    """What an index of OCI's refers to."""
    return _written(config, layers, docker=False, annotations=annotations)


def _written(
    config: Descriptor, layers: Sequence[Descriptor], *, docker: bool, annotations: Mapping[str, str] | None = None
) -> RawManifest:
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _plain(config, DOCKER_CONFIG if docker else OCI_CONFIG),
        "layers": [_plain(layer, layer.media_type if docker else to_oci(layer.media_type)) for layer in layers],
        **({"annotations": dict(annotations)} if annotations else {}),
    }
    raw = msgspec.json.format(msgspec.json.encode(document), indent=3)
    return RawManifest(media_type, sha256_of(raw), raw)


def to_oci(media_type: str) -> str:
    return f"{OCI_LAYER}+gzip" if media_type == DOCKER_LAYER else media_type


def _plain(descriptor: Descriptor, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "size": descriptor.size, "digest": descriptor.digest}
