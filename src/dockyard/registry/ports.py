"""What the registry needs from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes at rest in the blob store."""

    location: str
    size: int
    modified: float


class Ingest(Protocol):
    """An upload in the making, appended to from the offset that `begin` was asked for."""

    async def write(self, data: bytes) -> None: ...

    async def sync(self) -> int:
        """Everything written so far is durable; the size of the upload."""

    async def drop(self) -> None:
        """It failed: give back the room of what was written since `begin`."""

    async def close(self) -> None: ...


class BlobStore(Protocol):
    """Large bytes by location. A location is chosen once and written once; locations are never used again.

    The upload's life: `begin` (as often as chunks come) -> `digest` -> `commit` gives the location, or `abandon`.
    All raise STORE_FAILED or STORE_FULL.
    """

    @property
    def place(self) -> str:
        """Where the bytes are, for people."""

    def check_room(self) -> None:
        """Raises STORE_FULL while so little room is left that deleting (which writes too) might soon be impossible."""

    async def begin(self, upload: str, offset: int, algorithm: str) -> Ingest:
        """Continue an upload at `offset`, hashing as it comes; unacknowledged bytes behind it are dropped."""

    async def digest(self, upload: str, algorithm: str, size: int) -> str:
        """The digest of the whole upload, read back unless known from its writing."""

    async def commit(self, upload: str, digest: str) -> str:
        """Move the upload to a new location, durably."""

    async def abandon(self, upload: str) -> None: ...

    def path(self, location: str) -> str | None:
        """A local file to be served by the kernel, if there is one."""

    def read(self, location: str, offset: int, count: int) -> AsyncIterator[bytes]:
        """Raises BLOB_UNKNOWN, with the first piece, when nothing is at the location."""

    async def delete(self, location: str) -> None:
        """Missing is fine."""

    def list(self, kind: str) -> AsyncIterator[Stored]:
        """All of kind "blobs" or "uploads" (location = upload id), for the search of orphans."""

    async def close(self) -> None: ...
