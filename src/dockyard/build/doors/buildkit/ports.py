"""What the door needs from the engine, besides the Builder."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dockyard.oci.archive import NO_ANNOTATIONS, Annotations
from dockyard.oci.attestations import Attestation

from ...ports import Written
from ...service import Result

__all__ = ["HostFacts", "ImageShelf", "Package", "PushProgress"]

PushProgress = Callable[[str, int, int, bool], None]
"""(what, current, total, done)"""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """``gateway`` gives the address that ``host-gateway`` stands for, "" when there is none; ``emulated`` the platforms that
    are not this machine's and whose programs run all the same."""

    id: str
    hostname: str
    platform: str
    gateway: Callable[[], str] = str
    emulated: Callable[[], tuple[str, ...]] = tuple


@dataclass(frozen=True, slots=True)
class Package:
    """An image of what is exported, with what is attested about it."""

    result: Result
    attestations: tuple[Attestation, ...] = ()
    annotations: Annotations = NO_ANNOTATIONS

    @property
    def alone(self) -> bool:
        """Can go without an index."""
        return not self.attestations and not self.annotations.index and not self.annotations.descriptor


class ImageShelf(Protocol):
    """Images as exporters need them."""

    async def register(self, result: Result, tags: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        """Record the image under its names, which may be none. Returns (its ID, the names in their long form).
        Raises InvalidParameter for a bad name."""
        ...

    def lend(self, result: Result) -> str:
        """Makes an unrecorded result a base for other builds; gives the reference to it. Undone by ``take_back``."""
        ...

    def take_back(self, reference: str) -> None: ...

    def save(self, packages: Sequence[Package], names: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """The archive that ``docker save`` makes (OCI layout and docker archive in one), under these names: of one image, or
        of an index of several platforms, whose first alone is in the docker archive's list."""
        ...

    async def push_index(
        self, name: str, packages: Sequence[Package], auth: Mapping[str, str], progress: PushProgress
    ) -> Written:
        """An index of these images and of what is attested about them, or the one image that needs none; what the name leads
        to from now on."""
        ...

    async def push(self, name: str, auth: Mapping[str, str], progress: PushProgress) -> str:
        """Digest of the manifest in the registry."""
        ...

    async def config(self, ref: str, platform: str, auth: Mapping[str, str]) -> tuple[str, bytes]:
        """(digest, image config) of an image that is here or can be pulled. Raises NotFound."""
        ...
