"""The image config that a stage comes to. Pure; the ID is the digest of the bytes made here.

The base's document is kept field by field (what nobody here knows survives); config, root file system, history and
times are ours. Times come from the cache's records, so that a rebuild without changes is the same image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dockyard.lib.clock import rfc3339

__all__ = ["COMMENT", "history_row", "image_config", "image_id", "squashed"]

COMMENT = "buildkit.dockerfile.v0"
"""What tools look for to tell that a row came from a Dockerfile."""
_DROPPED = ("container", "container_config", "docker_version", "id", "parent", "comment", "dockyard.cache.v1")


def history_row(text: str, created: int, author: str, *, empty: bool, comment: str = COMMENT) -> dict[str, Any]:
    """``created`` in nanoseconds since the epoch. moby's own builder leaves no ``comment``."""
    row: dict[str, Any] = {"created": rfc3339(created), "created_by": text}
    if author:
        row["author"] = author
    if comment:
        row["comment"] = comment
    if empty:
        row["empty_layer"] = True
    return row


def image_config(
    base: Mapping[str, Any], config: Mapping[str, Any], platform: tuple[str, str, str], chain: Sequence[str],
    history: Sequence[Mapping[str, Any]], created: int, author: str,
) -> bytes:  # fmt: skip
    system, architecture, variant = platform
    document = {key: value for key, value in base.items() if key not in _DROPPED}
    document |= {
        "architecture": document.get("architecture") or architecture, "os": document.get("os") or system,
        "created": rfc3339(created), "config": {"OnBuild": None, **{k: v for k, v in config.items() if v is not None and v != ""}},
        "rootfs": {"type": "layers", "diff_ids": list(chain)}, "history": list(history),
    }  # fmt: skip
    if variant and not document.get("variant"):
        document["variant"] = variant
    if author:
        document["author"] = author
    return msgspec.json.encode(document, order="deterministic")


def squashed(config: bytes, base_layers: int, layer: str) -> bytes:
    """The same image with all that was built in one layer above the base's (``--squash``)."""
    document = msgspec.json.decode(config)
    document["rootfs"]["diff_ids"] = [*document["rootfs"]["diff_ids"][:base_layers], *([layer] if layer else [])]
    left = base_layers
    for row in document["history"]:
        if row.get("empty_layer"):
            continue
        if left:
            left -= 1
        else:
            row["empty_layer"] = True
    row = {"created": document["created"], "comment": f"merge of the layers built above {base_layers} of the base"}
    if not layer:
        row["empty_layer"] = True
    document["history"].append(row)
    return msgspec.json.encode(document, order="deterministic")


def image_id(config: bytes) -> str:
    return "sha256:" + hashlib.sha256(config).hexdigest()
