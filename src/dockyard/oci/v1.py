"""Images as Docker saved them before 1.10: one directory for each layer, and no digests. Pure.

::

    repositories            {name: {tag: id}}
    <id>/json               config of that layer's own image, "parent" names the next lower one
    <id>/layer.tar          its files
    <id>/VERSION            "1.0"

Rules after moby image/v1 (MakeConfigFromV1Config): the topmost document becomes the config, every document a row of the
history, and diff IDs are those of the layers found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .documents import MAX_LAYERS, decode, encode
from .errors import BAD_ARCHIVE

_DROPPED = ("id", "parent", "parent_id", "layer_id", "throwaway", "Size")
Repositories = dict[str, dict[str, str]]


class Content(Protocol):
    """What is asked of an archive's content (``archive.ArchiveContent``)."""

    def document(self, name: str) -> bytes: ...
    def has(self, name: str) -> bool: ...


def chains(content: Content) -> dict[str, list[str]]:
    """Topmost id -> the names for it, as ``repositories`` says. Raises InvalidParameter."""
    rows = decode("repositories", content.document("repositories"), Repositories)
    found: dict[str, list[str]] = {}
    for name, tags in rows.items():
        for tag, top in tags.items():
            found.setdefault(top, []).append(f"{name}:{tag}")
    return found


def ancestry(content: Content, top: str) -> list[str]:
    """Ids from the lowest layer to ``top``. Raises InvalidParameter for a loop, a missing parent, too many layers."""
    ids: list[str] = []
    current = top
    while current:
        if current in ids or len(ids) >= MAX_LAYERS:
            raise BAD_ARCHIVE(cause=f"the parents of {top[:12]} form a loop or are too many")
        if "/" in current or not content.has(f"{current}/json"):
            raise BAD_ARCHIVE(cause=f"{current[:64]}/json is missing")
        ids.append(current)
        parent = _row(content, current).get("parent")
        current = parent if isinstance(parent, str) else ""
    return ids[::-1]


def _row(content: Content, layer: str) -> dict[str, Any]:
    return decode(f"{layer}/json", content.document(f"{layer}/json"), dict[str, Any])


def make_config(documents: Sequence[bytes], diff_ids: Sequence[str]) -> bytes:
    """The image config of today; ``documents`` from the lowest layer up, one for each diff ID."""
    rows = [decode("v1 image", raw, dict[str, Any]) for raw in documents]
    config = {name: value for name, value in rows[-1].items() if name not in _DROPPED}
    config["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    config["history"] = [_history(row) for row in rows]
    return encode(config)


def _history(row: Mapping[str, Any]) -> dict[str, Any]:
    made_by = row.get("container_config")
    command = made_by.get("Cmd") if isinstance(made_by, dict) else None
    created_by = " ".join(map(str, command)) if isinstance(command, list) else ""
    texts = {"created_by": created_by} | {name: row.get(name) for name in ("created", "author", "comment")}
    return {name: value for name, value in texts.items() if value and isinstance(value, str)}
