"""Indexes of what a build makes: an image a platform, and attestations: a manifest of in-toto statements about each.

::

    index ─┬─ image manifest, one a platform          platform os/arch
           └─ manifest, platform unknown/unknown      annotations vnd.docker.reference.{type,digest}
                └─ one layer a statement              annotation in-toto.io/predicate-type

Source: moby/buildkit docs/attestations/attestation-storage.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from .digest import sha256_of
from .documents import ATTESTATION_ANNOTATION, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, REFERENCE_ANNOTATION

__all__ = ["IN_TOTO", "PREDICATE_ANNOTATION", "Attestation", "Described", "image_index", "platform_of"]

IN_TOTO = "application/vnd.in-toto+json"
PREDICATE_ANNOTATION = "in-toto.io/predicate-type"
_UNKNOWN = {"architecture": "unknown", "os": "unknown"}


@dataclass(frozen=True, slots=True)
class Attestation:
    """An in-toto predicate (JSON)."""

    predicate_type: str
    predicate: bytes


@dataclass(frozen=True, slots=True)
class Described:
    """An image of an index: its config, the descriptor of its manifest, what is attested about it."""

    config: bytes
    manifest: Mapping[str, Any]
    attestations: Sequence[Attestation] = ()


def image_index(
    images: Sequence[Described], names: Sequence[str], annotations: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """An index of images, one a platform, each followed by what is attested about it. Its descriptor, and the documents
    that are new as (media type, bytes), the index last. ``names``: what the statements call the images. Deterministic."""
    rows: list[dict[str, Any]] = []
    documents: list[tuple[str, bytes]] = []
    for image in images:
        rows.append({**image.manifest, "platform": platform_of(image.config)})
    for image in images:
        if image.attestations:
            row, made = _attested(image, names)
            rows.append(row)
            documents += made
    extra = {"annotations": dict(annotations)} if annotations else {}
    index = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows, **extra})
    return _descriptor(OCI_INDEX, index), [*documents, (OCI_INDEX, index)]


def platform_of(config: bytes) -> dict[str, str]:
    document = msgspec.json.decode(config)
    return {key: document[key] for key in ("architecture", "os", "variant") if document.get(key)}


def _attested(image: Described, names: Sequence[str]) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """The row of the index, and statements, config and manifest."""
    digest = image.manifest["digest"].partition(":")[2]
    subjects = [
        {"name": f"pkg:docker/{name.replace(':', '@')}", "digest": {"sha256": digest}} for name in names or ["_"]
    ]
    statements = [
        msgspec.json.encode({
            "_type": "https://in-toto.io/Statement/v0.1", "predicateType": item.predicate_type, "subject": subjects,
            "predicate": msgspec.Raw(item.predicate),
        })
        for item in image.attestations
    ]  # fmt: skip
    about = msgspec.json.encode({
        **_UNKNOWN, "config": {}, "rootfs": {"type": "layers", "diff_ids": [sha256_of(each) for each in statements]},
    })  # fmt: skip
    manifest = msgspec.json.encode({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": _descriptor(OCI_CONFIG, about),
        "layers": [
            {**_descriptor(IN_TOTO, statement), "annotations": {PREDICATE_ANNOTATION: item.predicate_type}}
            for statement, item in zip(statements, image.attestations, strict=True)
        ],
    })  # fmt: skip
    row = {
        **_descriptor(OCI_MANIFEST, manifest), "platform": _UNKNOWN,
        "annotations": {REFERENCE_ANNOTATION: image.manifest["digest"], ATTESTATION_ANNOTATION: "attestation-manifest"},
    }  # fmt: skip
    return row, [*((IN_TOTO, each) for each in statements), (OCI_CONFIG, about), (OCI_MANIFEST, manifest)]


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256_of(blob), "size": len(blob)}
