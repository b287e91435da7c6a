"""What the door needs from the engine, besides the Builder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...service import Result

__all__ = ["HostFacts", "ImageShelf", "PushProgress"]

PushProgress = Callable[[str, int, int, bool], None]
"""(what, current, total, done)"""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """``gateway`` is the address that ``host-gateway`` stands for, "" when there is none."""

    id: str
    hostname: str
    platform: str
    gateway: str = ""


class ImageShelf(Protocol):
    """Images as exporters need them."""

    async def register(self, result: Result, tags: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        """Record the image under its names, which may be none. Returns (its ID, the names in their long form).
        Raises InvalidParameter for a bad name."""
        ...

    async def forget(self, image: str) -> None:
        """Removes an image that has no name and that nothing uses; leaves any other."""
        ...

    def save(self, image: str, names: Sequence[str]) -> AsyncIterator[bytes]:
        """The archive that ``docker save`` makes (OCI layout and docker archive in one), under these names."""
        ...

    async def push(self, name: str, auth: Mapping[str, str], progress: PushProgress) -> str:
        """Digest of the manifest in the registry."""
        ...

    async def config(self, ref: str, platform: str, auth: Mapping[str, str]) -> tuple[str, bytes]:
        """(digest, image config) of an image that is here or can be pulled. Raises NotFound."""
        ...
