"""What the transfer room needs from an image store. All methods block and are called in worker threads.

A blob is named by the digest of its (compressed) bytes as the registry has it, a layer by its diff id, the digest of
the plain tar. ``ingest_layer`` is the only way in, and checks both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dockyard.oci import Digest, ImageRef

from .model import RawManifest


class BlobSource(Protocol):
    """A blob to read once, in one thread."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, b"" at the end. Raises the errors of the transfer: let them pass."""
        ...


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image of which every layer is in the store."""

    config: bytes
    manifest: RawManifest
    layers: Sequence[tuple[Digest, Digest]]
    """(blob digest, diff id), lowest first."""
    index: RawManifest | None = None
    """The index the manifest was chosen from, kept whole (platforms, attestations)."""


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image to push."""

    config: bytes
    layers: Sequence[Digest]
    """Diff ids, lowest first."""
    manifest: RawManifest | None = None
    """The manifest it was pulled with, if any."""


class ImageStore(Protocol):
    def lease(self) -> AbstractContextManager[None]:
        """Keeps what is ingested inside from being collected before an image names it."""
        ...

    def has_layer(self, diff_id: Digest) -> bool: ...

    def ingest_layer(self, source: BlobSource, digest: Digest, size: int, diff_id: Digest) -> None:
        """Take in a layer: ``size`` bytes that have ``digest`` and unpack to ``diff_id``; else DataLoss.

        Reads ``source`` in bounded pieces and leaves nothing behind when it or the source fails.
        """
        ...

    def add_image(self, image: PulledImage, names: Sequence[ImageRef]) -> None:
        """Register the image and let ``names`` (tagged, or name@digest) point to it. Idempotent."""
        ...

    def image_id(self, ref: ImageRef) -> Digest | None:
        """The id (config digest) that ``ref`` names now."""
        ...

    def image(self, ref: ImageRef) -> LocalImage | None: ...

    def tags(self, name: str) -> list[ImageRef]:
        """All local tags of repository ``name`` (full form), sorted."""
        ...

    def layer_size(self, diff_id: Digest) -> int:
        """Bytes of the plain tar."""
        ...

    def read_layer(self, diff_id: Digest, chunk: int) -> Iterator[bytes]:
        """The plain tar, byte for byte as its diff id says, in chunks of about ``chunk`` bytes."""
        ...
