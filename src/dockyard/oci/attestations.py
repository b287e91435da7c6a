"""Attestations beside an image: an index over its manifest and a manifest of in-toto statements about it.

::

    index ─┬─ image manifest                          platform os/arch
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

__all__ = ["IN_TOTO", "PREDICATE_ANNOTATION", "Attestation", "attested_index"]

IN_TOTO = "application/vnd.in-toto+json"
PREDICATE_ANNOTATION = "in-toto.io/predicate-type"
_UNKNOWN = {"architecture": "unknown", "os": "unknown"}


@dataclass(frozen=True, slots=True)
class Attestation:
    """An in-toto predicate (JSON)."""

    predicate_type: str
    predicate: bytes


def attested_index(
    config: bytes, names: Sequence[str], attestations: Sequence[Attestation], image: Mapping[str, Any]
) -> tuple[dict[str, Any], list[bytes]]:
    """Descriptor of the index, and the blobs that are new; ``image`` is the descriptor of the image's manifest, ``config``
    its config. Deterministic."""
    digest = image["digest"].partition(":")[2]
    subjects = [
        {"name": f"pkg:docker/{name.replace(':', '@')}", "digest": {"sha256": digest}} for name in names or ["_"]
    ]
    statements = [
        msgspec.json.encode({
            "_type": "https://in-toto.io/Statement/v0.1", "predicateType": item.predicate_type, "subject": subjects,
            "predicate": msgspec.Raw(item.predicate),
        })
        for item in attestations
    ]  # fmt: skip
    about = msgspec.json.encode({
        **_UNKNOWN, "config": {}, "rootfs": {"type": "layers", "diff_ids": [sha256_of(each) for each in statements]},
    })  # fmt: skip
    manifest = msgspec.json.encode({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": _descriptor(OCI_CONFIG, about),
        "layers": [
            {**_descriptor(IN_TOTO, statement), "annotations": {PREDICATE_ANNOTATION: item.predicate_type}}
            for statement, item in zip(statements, attestations, strict=True)
        ],
    })  # fmt: skip
    document = msgspec.json.decode(config)
    platform = {key: document[key] for key in ("architecture", "os", "variant") if document.get(key)}
    index = msgspec.json.encode({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [
            {**image, "platform": platform},
            {**_descriptor(OCI_MANIFEST, manifest), "platform": _UNKNOWN,
             "annotations": {REFERENCE_ANNOTATION: image["digest"], ATTESTATION_ANNOTATION: "attestation-manifest"}},
        ],
    })  # fmt: skip
    return _descriptor(OCI_INDEX, index), [*statements, about, manifest, index]


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256_of(blob), "size": len(blob)}
