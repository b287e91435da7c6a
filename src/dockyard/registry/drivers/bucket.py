"""Blobs as objects of a bucket: S3, Google Cloud Storage, Azure, through obstore.

    PREFIX/blobs/sha256/ab/<hex>-<nonce>
    PREFIX/uploads/<upload id>/<offset, 16 digits>-<nonce>     one object for each chunk that a client sent

A chunk's object exists only when the chunk is whole, and no name is used twice, so any replica can continue or finish
an upload and none can change what another one has acknowledged. What a crash or a race left at some offset is a second
candidate there: the objects that make up an upload are those whose sizes add up to what the database says, and they
are the very ones that are hashed and then committed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import obstore
from obstore.exceptions import BaseError, NotFoundError

from dockyard.registry.drivers.files import digest_at, new_location
from dockyard.registry.errors import BLOB_UNKNOWN, STORE_FAILED, UPLOAD_INVALID
from dockyard.registry.ports import Stored

if TYPE_CHECKING:
    from hashlib import _Hash

_PIECE = 8 * 1024 * 1024  # part of a multipart upload (S3 wants 5 MiB or more)
_COPY_MAX = 4 * 1024**3  # CopyObject of S3 ends at 5 GB
_STATES = 4096
_RETRY = {"max_retries": 4, "retry_timeout": timedelta(seconds=20), "backoff": {"max_backoff": timedelta(seconds=2)}}
"""obstore's own bound is three minutes: clients leave before it, and a load balancer takes the replica for dead."""
_CALLS = {"timeout": timedelta(seconds=30)}
_STREAMS = {"timeout": timedelta(days=1), "read_timeout": timedelta(seconds=30)}
"""`timeout` ends with the last byte of the body, so a slow client's pull must not have it (it was cut after three
minutes); `read_timeout` is for a bucket that sends nothing while something is waited for."""

_ENVIRONMENT = {"s3": "AWS", "s3a": "AWS", "gs": "GOOGLE"}
_CONNECTION = ("allow_http", "allow_invalid_certificates", "proxy_url", "proxy_ca_certificate", "proxy_excludes", "connect_timeout")


def _connection(url: str) -> dict[str, str]:
    """How to connect, from the environment (AWS_ALLOW_HTTP, ...): obstore looks there only when it is given no option."""
    prefix = _ENVIRONMENT.get(url.partition(":")[0], "AZURE")
    found = {name: os.environ.get(f"{prefix}_{name.upper()}") for name in _CONNECTION}
    return {name: value for name, value in found.items() if value}


@contextlib.contextmanager
def _translating() -> Any:
    try:
        yield
    except FileNotFoundError as error:
        raise STORE_FAILED(reason=f"missing object: {error}") from error
    except (BaseError, OSError) as error:
        raise STORE_FAILED(reason=str(error).splitlines()[0][:200]) from error


@dataclass(frozen=True, slots=True)
class _State:
    """What is known of an upload here: the hash of its first `size` bytes, and the objects they are in."""

    hasher: _Hash
    size: int
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    offset: int
    size: int
    modified: float
    path: str


class BucketStore:
    """`url` as obstore has it: s3://bucket/prefix, gs://, az://; credentials and endpoint from the environment."""

    def __init__(self, url: str, **options: Any) -> None:
        with _translating():
            if url.startswith("memory:"):
                self._store: Any = obstore.store.from_url(url)
                self._reader = self._store
            else:
                options = {"retry_config": _RETRY, **options}
                self._store, self._reader = (
                    obstore.store.from_url(url, client_options=cast(Any, _connection(url) | bounds), **options)
                    for bounds in (_CALLS, _STREAMS)
                )
        self._url = url
        self._states: OrderedDict[str, _State] = OrderedDict()

    @property
    def place(self) -> str:
        return f"bucket {self._url}"

    def check_room(self) -> None:
        """Buckets have room."""

    async def begin(self, upload: str, offset: int, algorithm: str) -> BucketIngest:
        known = self._states.pop(upload, None)
        if offset == 0:
            known = _State(hashlib.new(algorithm), 0, ())
        elif known is not None and known.size != offset:
            known = None
        path = f"uploads/{upload}/{offset:016d}-{secrets.token_hex(4)}"
        with _translating():
            writer = obstore.open_writer_async(self._store, path, buffer_size=_PIECE)
        return BucketIngest(self, upload, path, writer, offset, known)

    def keep_state(self, upload: str, state: _State) -> None:
        self._states[upload] = state
        while len(self._states) > _STATES:
            self._states.popitem(last=False)

    async def _parts(self, upload: str, size: int) -> tuple[str, ...]:
        """Paths that make up the upload, in order. Raises UPLOAD_INVALID when bytes are missing."""
        found: list[Part] = []
        with _translating():
            async for metas in obstore.list(self._store, f"uploads/{upload}/"):
                for meta in metas:
                    offset = int(meta["path"].rsplit("/", 1)[1].partition("-")[0])
                    found.append(Part(offset, meta["size"], meta["last_modified"].timestamp(), meta["path"]))
        parts = chain(found, size)
        if parts is None:
            raise UPLOAD_INVALID(reason="acknowledged bytes are missing; start again")
        return parts

    async def digest(self, upload: str, algorithm: str, size: int) -> str:
        known = self._states.get(upload)
        if known is None or known.size != size or known.hasher.name != algorithm:
            parts = known.parts if known is not None and known.size == size else await self._parts(upload, size)
            hasher = hashlib.new(algorithm)
            for part in parts:
                async for data in self._stream(part):
                    hasher.update(data)
            known = _State(hasher, size, parts)
            self.keep_state(upload, known)
        return f"{algorithm}:{known.hasher.hexdigest()}"

    async def _stream(self, path: str, **options: Any) -> AsyncIterator[bytes]:
        with _translating():
            answer = await obstore.get_async(self._reader, path, options=cast(Any, options or None))
            async for data in answer.stream(min_chunk_size=256 * 1024):
                yield bytes(data)

    async def commit(self, upload: str, digest: str) -> str:
        location = new_location(digest)
        known = self._states.get(upload)
        if known is None:
            raise UPLOAD_INVALID(reason="commit before digest")
        parts, size = known.parts, known.size
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
        if not count:
            return
        try:
            async for data in self._stream(f"blobs/{location}", range=(offset, offset + count)):
                yield data
        except STORE_FAILED.kind as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise BLOB_UNKNOWN(digest=digest_at(location)) from error
            raise

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
    def __init__(self, store: BucketStore, upload: str, path: str, writer: Any, size: int, known: _State | None) -> None:
        self._store = store
        self._upload = upload
        self._path = path
        self._writer = writer
        self._begin = self._size = size
        self._known = known

    async def write(self, data: bytes) -> None:
        if self._known is not None:
            self._known.hasher.update(data)
        with _translating():
            await self._writer.write(data)
        self._size += len(data)

    async def sync(self) -> int:
        with _translating():
            await self._writer.close()
        if self._known is not None:
            parts = (*self._known.parts, self._path) if self._size > self._begin else self._known.parts
            self._store.keep_state(self._upload, _State(self._known.hasher, self._size, parts))
        return self._size

    async def drop(self) -> None:
        """Nothing was put in place."""

    async def close(self) -> None:
        """An unfinished multipart upload is never seen by anybody; the bucket's lifecycle rule removes its parts."""


def chain(found: list[Part], size: int) -> tuple[str, ...] | None:
    """Objects that follow each other from 0 to `size` exactly, newest first where there is a choice."""
    by_offset: dict[int, list[Part]] = {}
    for part in sorted(found, key=lambda p: -p.modified):
        if part.size:
            by_offset.setdefault(part.offset, []).append(part)
    came_from: dict[int, Part] = {}
    reached = {0}
    for offset in sorted(by_offset):
        for part in by_offset[offset] if offset in reached else ():
            end = offset + part.size
            if end <= size and end not in reached:
                reached.add(end)
                came_from[end] = part
    if size not in reached:
        return None
    paths: list[str] = []
    while size:
        paths.append(came_from[size].path)
        size = came_from[size].offset
    return tuple(reversed(paths))
