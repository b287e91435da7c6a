"""Rows of ``docker history``, from the config's own history and the sizes of the layers."""

from __future__ import annotations

from .archives import parse_time
from .images import ImageStore
from .model import HistoryEntry, Image

MISSING = "<missing>"


def history(images: ImageStore, image: Image) -> list[HistoryEntry]:
    """Newest first. Sizes go to the rows that are no ``empty_layer``, in order; only images that are here have IDs."""
    sizes = iter(image.layer_sizes)
    rows = []
    for row in image.config.document.history or ():
        size = 0 if row.empty_layer else next(sizes, 0)
        rows.append((parse_time(row.created) // 1_000_000_000, row.created_by, row.comment, size))
    ids: list[tuple[str, tuple[str, ...]]] = []
    current: Image | None = image
    while current is not None and len(ids) < len(rows):
        ids.append((str(current.id), current.repo_tags))
        current = images.image(current.parent) if current.parent is not None and current.parent in images else None
    ids += [(MISSING, ())] * (len(rows) - len(ids))
    return [
        HistoryEntry(name, created, by, comment, size, tags)
        for (name, tags), (created, by, comment, size) in zip(ids, reversed(rows), strict=True)
    ]
