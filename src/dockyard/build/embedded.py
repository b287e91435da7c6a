"""The cache that an image carries for others (``--cache-to type=inline``, ``--build-arg BUILDKIT_INLINE_CACHE=1``) and its
reading (``--cache-from IMAGE``). Pure.

::

    config["dockyard.cache.v1"] = [[step key, index of its layer or -1, created in ns], ...]

A step has one key there, that of what it read; only steps of the image itself are in it: the layers of other stages are
not. It is believed for the one build that names the image, and never becomes a record of this machine (CVE-2024-24557).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from .cachespec import parse_cache
from .model import BaseImage, Request
from .records import StepRecord

__all__ = ["FIELD", "embed", "is_wanted", "read"]

FIELD = "dockyard.cache.v1"
MAX_ROWS = 10_000


def is_wanted(request: Request) -> bool:
    given = request.build_args.get("BUILDKIT_INLINE_CACHE") or ""
    return given.lower() in ("1", "true") or any(parse_cache(text).kind == "inline" for text in request.cache_to)


def embed(document: Mapping[str, Any], records: Sequence[StepRecord], chain: Sequence[str]) -> dict[str, Any]:
    places = {layer: index for index, layer in enumerate(chain)}
    rows = [[record.key, places.get(record.layer, -1), record.created] for record in records if not record.content]
    return {**document, FIELD: rows[:MAX_ROWS]}


def read(image: BaseImage) -> dict[str, StepRecord]:
    """What the image says of its steps; what cannot be read counts as nothing."""
    try:
        rows = msgspec.convert(image.document.get(FIELD) or [], list[tuple[str, int, int]])
    except msgspec.ValidationError:
        return {}
    found = {}
    for key, index, created in rows[:MAX_ROWS]:
        if -1 <= index < len(image.diff_ids):
            layer = image.diff_ids[index] if index >= 0 else ""
            found[key] = StepRecord(key, layer, 0, "imported", image.ref, created, created)
    return found
