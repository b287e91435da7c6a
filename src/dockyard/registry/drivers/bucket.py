"""Blobs as objects of a bucket: S3, Google Cloud Storage, Azure, through obstore.

    PREFIX/blobs/sha256/ab/<hex>-<nonce>
    PREFIX/uploads/<upload id>/<offset, 16 digits>     one object for each chunk that a client sent

A chunk's object exists only when the chunk is whole, so any replica can continue or finish an upload. An object that a
crash left at an offset nobody acknowledged is overwritten by the next chunk at that offset, or ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast

import obstore
from obstore.exceptions import BaseError, NotFoundError

from dockyard.registry.drivers.files import new_location
from dockyard.registry.errors import STORE_FAILED, UPLOAD_INVALID
from dockyard.registry.ports import Stored

if TYPE_CHECKING:
    from hashlib import _Hash

_PIECE = 8 * 1024 * 1024  # part of a multipart upload (S3 wants 5 MiB or more)
_COPY_MAX = 4 * 1024**3  # CopyObject of S3 ends at 5 GB
_STATES = 4096


@contextlib.contextmanager
def _translating() -> Any:
    try:
        yield
    except FileNotFoundError as error:
        raise STORE_FAILED(reason=f"missing object: {error}") from error
    except (BaseError, OSError) as error:
        raise STORE_FAILED(reason=str(error).splitlines()[0][:200]) from error


class BucketStore:
    """`url` as obstore has it: s3://bucket/prefix, gs://, az://; credentials and endpoint from the environment."""

    def __init__(self, url: str, **options: Any) -> None:
        with _translating():
            self._store: Any = obstore.store.from_url(url, **options)
        self._url = url
        self._states: OrderedDict[str, tuple[_Hash, int]] = OrderedDict()

    @property
    def place(self) -> str:
        return f"bucket {self._url}"

    def check_room(self) -> None:
        """Buckets have room."""

    async def begin(self, upload: str, offset: int, algorithm: str) -> BucketIngest:
        hasher, hashed = self._states.pop(upload, (None, -1))
        if offset == 0:
            hasher = hashlib.new(algorithm)
        elif hashed != offset:
            hasher = None
        with _translating():
            writer = obstore.open_writer_async(self._store, _part(upload, offset), buffer_size=_PIECE)
        return BucketIngest(self, upload, writer, offset, hasher)

    def keep_state(self, upload: str, hasher: _Hash, size: int) -> None:
        self._states[upload] = (hasher, size)
        while len(self._states) > _STATES:
            self._states.popitem(last=False)

    async def _parts(self, upload: str, size: int) -> list[str]:
        """Paths that make up the upload, in order. Raises UPLOAD_INVALID when bytes are missing."""
        found: dict[int, tuple[str, int]] = {}
        with _translating():
            async for metas in obstore.list(self._store, f"uploads/{upload}/"):
                for meta in metas:
                    found[int(meta["path"].rsplit("/", 1)[1])] = (meta["path"], meta["size"])
        at, parts = 0, []
        while at < size:
            path, length = found.get(at, ("", 0))
            if not length:
                raise UPLOAD_INVALID(reason="acknowledged bytes are missing; start again")
            parts.append(path)
            at += length
        return parts

    async def digest(self, upload: str, algorithm: str, size: int) -> str:
        hasher, hashed = self._states.get(upload, (None, -1))
        if hasher is None or hashed != size or hasher.name != algorithm:
            hasher = hashlib.new(algorithm)
            for part in await self._parts(upload, size):
                async for data in self._stream(part):
                    hasher.update(data)
            self.keep_state(upload, hasher, size)
        return f"{algorithm}:{hasher.hexdigest()}"

    async def _stream(self, path: str, **options: Any) -> AsyncIterator[bytes]:
        with _translating():
            answer = await obstore.get_async(self._store, path, options=cast(Any, options or None))
            async for data in answer.stream(min_chunk_size=256 * 1024):
                yield bytes(data)

    async def commit(self, upload: str, digest: str) -> str:
        location = new_location(digest)
        _, size = self._states.get(upload, (None, -1))
        if size < 0:
            raise UPLOAD_INVALID(reason="commit before digest")
        parts = await self._parts(upload, size)
        with _translating():
            if len(parts) == 1 and size <= _COPY_MAX:
                await obstore.copy_async(self._store, parts[0], f"blobs/{location}")
            else:
                writer = obstore.open_writer_async(self._store, f"blobs/{location}", buffer_size=_PIECE)
                for part in parts:
                    async for data in self._stream(part):
                        await writer.write(data)
                await writer.close()
        await self.abandon(upload)
        return location

    async def abandon(self, upload: str) -> None:
        self._states.pop(upload, None)
        with _translating():
            async for metas in obstore.list(self._store, f"uploads/{upload}/"):
                await self._remove([meta["path"] for meta in metas])

    async def _remove(self, paths: list[str]) -> None:
        with contextlib.suppress(NotFoundError, FileNotFoundError):
            await obstore.delete_async(self._store, paths)

    def path(self, location: str) -> None:
        return None

    async def read(self, location: str, offset: int, count: int) -> AsyncIterator[bytes]:
        if count:
            async for data in self._stream(f"blobs/{location}", range=(offset, offset + count)):
                yield data

    async def delete(self, location: str) -> None:
        with _translating():
            await self._remove([f"blobs/{location}"])

    async def list(self, kind: str) -> AsyncIterator[Stored]:
        seen: set[str] = set()
        with _translating():
            async for metas in obstore.list(self._store, f"{kind}/"):
                for meta in metas:
                    name = meta["path"].removeprefix(f"{kind}/")
                    if kind == "uploads":
                        name = name.partition("/")[0]
                        if name in seen:
                            continue
                        seen.add(name)
                    yield Stored(name, meta["size"], meta["last_modified"].timestamp())

    async def close(self) -> None:
        self._states.clear()


class BucketIngest:
    def __init__(self, store: BucketStore, upload: str, writer: Any, size: int, hasher: _Hash | None) -> None:
        self._store = store
        self._upload = upload
        self._writer = writer
        self._size = size
        self._hasher = hasher

    async def write(self, data: bytes) -> None:
        if self._hasher is not None:
            self._hasher.update(data)
        with _translating():
            await self._writer.write(data)
        self._size += len(data)

    async def sync(self) -> int:
        with _translating():
            await self._writer.close()
        if self._hasher is not None:
            self._store.keep_state(self._upload, self._hasher, self._size)
        return self._size

    async def drop(self) -> None:
        """Nothing was put in place."""

    async def close(self) -> None:
        """An unfinished multipart upload is never seen by anybody; the bucket's lifecycle rule removes its parts."""


def _part(upload: str, offset: int) -> str:
    return f"uploads/{upload}/{offset:016d}"
