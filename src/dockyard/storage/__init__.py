"""The storage room: layers, images, snapshots and volumes of one machine, below one directory.

Nouns: *Layer* (a plain tar and its EROFS index, shared and read-only), *Image* (a config over layers, with names),
*Snapshot* (a writable overlay over layers), *Volume* (a directory that outlives containers), *Lease* (keeps new layers
until an image holds them).

Invariants, as absences: never extracts a tar where the kernel can mount an index of it; never keeps a tar it did not
hash; never runs a program, except bootstrap its package tool; never resolves a foreign path outside ``kernel.safefs``;
never knows containers, registries or the network: who uses an image is told by the caller; never needs a clean
shutdown.
"""

from .images import Document
from .model import (
    ChangeKind,
    Deleted,
    DiskUsage,
    HistoryEntry,
    Image,
    Layer,
    LayerSource,
    Limits,
    Snapshot,
    Volume,
    no_progress,
)
from .store import Lease, Store

__all__ = [
    "ChangeKind", "Deleted", "DiskUsage", "Document", "HistoryEntry", "Image", "Layer", "LayerSource", "Lease",
    "Limits", "Snapshot", "Store", "Volume", "no_progress",
]  # fmt: skip
