"""Nouns of the storage room."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dockyard.oci import Digest, ImageConfig


@dataclass(frozen=True, slots=True)
class Image:
    """An image as clients see it. ``id`` is the digest of the config's bytes; ``size`` the sum of its plain layers."""

    id: Digest
    config: ImageConfig
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size: int
    created: str
    parent: Digest | None
    chain_ids: tuple[Digest, ...]
    layer_sizes: tuple[int, ...]

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        return self.config.diff_ids


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A row of ``docker history``, newest first."""

    id: str
    created: int
    created_by: str
    comment: str
    size: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """A stored layer: ``number`` names its directory, ``size`` is that of the plain tar."""

    diff_id: Digest
    number: int
    size: int
    entries: int
    content_size: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A writable view over an image's layers, or over another snapshot."""

    key: str
    diff_ids: tuple[Digest, ...]
    parent: str | None
    labels: Mapping[str, str] = field(default_factory=dict)


class ChangeKind(enum.IntEnum):
    """Kinds of ``GET /containers/{id}/changes``."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Volume:
    name: str
    driver: str
    mountpoint: str
    created: str
    labels: Mapping[str, str]
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LayerSource:
    """One layer handed to register_image: stored already (``diff_id``), with the digest it was fetched under."""

    diff_id: Digest
    blob_digest: Digest | None = None
    media_type: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Deleted:
    """A row of DELETE /images: exactly one of the two is set."""

    untagged: str = ""
    deleted: str = ""


@dataclass(frozen=True, slots=True)
class DiskUsage:
    layers_size: int
    images: Mapping[Digest, tuple[int, int]]  # id -> (size, shared size)
    volumes: Mapping[str, int]
    snapshots: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on untrusted archives."""

    max_entries: int = 5_000_000
    max_layer_bytes: int = 1 << 40
    max_ratio: int = 1100  # deflate's own ceiling is 1032:1; above is zstd or bzip2 of zeros
    ratio_floor: int = 256 << 20  # below this size a ratio says nothing


Progress = Callable[[str, str, int, int], None]  # (id, status, current, total)


def no_progress(_id: str, _status: str, _current: int, _total: int) -> None:
    """For callers that show nothing."""
