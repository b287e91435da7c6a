"""Blobs as files.

    ROOT/blobs/sha256/ab/<hex>-<nonce>     written once: fsync, rename from uploads/, fsync of the directory
    ROOT/uploads/<upload id>               as long as the database says; longer only if a crash cut an acknowledgement

Hashing and writing happen in one lane of threads, a piece ahead of the socket, so a push costs one pass over its bytes.
Several replicas on one machine or one shared file system may use the same ROOT: who writes to an upload holds its lock
(flock), and a hash that was kept is believed only while nobody else has touched the file since.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dockyard.registry.errors import BLOB_UNKNOWN, STORE_FAILED, STORE_FULL, UPLOAD_INVALID
from dockyard.registry.ports import Stored

if TYPE_CHECKING:
    from hashlib import _Hash

T = TypeVar("T")

_PIECE = 1024 * 1024  # bytes handed to a thread at once: the hand-over (50 us) is then 3 % of hashing them
_LANES = 4
_READ = 256 * 1024
_RESERVE, _RESERVE_SHARE = 64 * 1024 * 1024, 0.02
"""Room that uploads leave: the database lives on the same disk as a rule, and needs some even to delete."""
_STATES = 4096  # unfinished uploads whose hash is kept; the others are read back once at their end


def new_location(digest: str) -> str:
    algorithm, _, hexed = digest.partition(":")
    return f"{algorithm}/{hexed[:2]}/{hexed}-{secrets.token_hex(4)}"


def digest_at(location: str) -> str:
    algorithm, _, name = location.split("/")
    return f"{algorithm}:{name.rpartition('-')[0]}"


def _translated(error: OSError) -> Exception:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return STORE_FULL()
    return STORE_FAILED(reason=error.strerror or str(error))


@dataclass(frozen=True, slots=True)
class _State:
    """The hash of an upload's first `size` bytes, true as long as the file's time of change is `touched`."""

    hasher: _Hash
    size: int
    touched: int


def _lock(fd: int) -> None:
    """Raises UPLOAD_INVALID while another process holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UPLOAD_INVALID(reason="another replica is writing to this upload") from None


class FileStore:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._lane = ThreadPoolExecutor(_LANES, thread_name_prefix="registry-blobs")
        self._states: OrderedDict[str, _State] = OrderedDict()
        for part in ("blobs", "uploads"):
            (root / part).mkdir(parents=True, exist_ok=True)
        seen = os.statvfs(root)
        self._reserve = min(_RESERVE, int(seen.f_blocks * seen.f_frsize * _RESERVE_SHARE))

    def check_room(self) -> None:
        try:
            self.need_room(0)
        except OSError as error:
            raise _translated(error) from error

    def need_room(self, more: int) -> None:
        """Raises OSError ENOSPC."""
        seen = os.statvfs(self.root)
        if seen.f_bavail * seen.f_frsize - more < self._reserve:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @property
    def place(self) -> str:
        return f"files below {self.root}"

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """In the lane; a cancelled caller still waits for the thread, which uses the caller's descriptors."""
        job = asyncio.get_running_loop().run_in_executor(self._lane, work, *args)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait({job})
            raise
        except OSError as error:
            raise _translated(error) from error

    def _upload(self, upload: str) -> Path:
        return self.root / "uploads" / upload

    async def begin(self, upload: str, offset: int, algorithm: str) -> FileIngest:
        def open_at() -> int:
            fd = os.open(self._upload(upload), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _lock(fd)
                size = os.fstat(fd).st_size
                if size < offset:
                    raise UPLOAD_INVALID(reason=f"{offset - size} acknowledged bytes are missing; start again")
            except BaseException:
                os.close(fd)
                raise
            return fd

        fd = await self.run(open_at)
        known = self._states.pop(upload, None)
        hasher: _Hash | None = None
        if offset == 0:
            hasher = hashlib.new(algorithm)
        elif known is not None and known.size == offset and known.touched == os.fstat(fd).st_mtime_ns:
            hasher = known.hasher
        return FileIngest(self, upload, fd, offset, hasher)

    def keep_state(self, upload: str, state: _State) -> None:
        self._states[upload] = state
        while len(self._states) > _STATES:
            self._states.popitem(last=False)

    async def digest(self, upload: str, algorithm: str, size: int) -> str:
        known = self._states.get(upload)

        def find() -> _State:
            try:
                file = self._upload(upload).open("rb")
            except FileNotFoundError:  # a crash came between its move and the record
                raise UPLOAD_INVALID(reason="acknowledged bytes are missing; start again") from None
            with file:
                _lock(file.fileno())
                seen = os.fstat(file.fileno())
                same = known is not None and (known.size, known.touched) == (size, seen.st_mtime_ns)
                if known is not None and same and known.hasher.name == algorithm:
                    return known
                if seen.st_size > size:
                    os.truncate(self._upload(upload), size)
                hasher = hashlib.file_digest(file, algorithm)
                return _State(hasher, size, os.fstat(file.fileno()).st_mtime_ns)

        state = await self.run(find)
        self.keep_state(upload, state)
        return f"{algorithm}:{state.hasher.hexdigest()}"

    async def commit(self, upload: str, digest: str) -> str:
        location = new_location(digest)
        known = self._states.get(upload)

        def move() -> None:
            target = self.root / "blobs" / location
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                _sync_directory(target.parent.parent)
            source = self._upload(upload)
            with source.open("rb+") as file:
                _lock(file.fileno())
                if known is None or os.fstat(file.fileno()).st_mtime_ns != known.touched:
                    raise UPLOAD_INVALID(reason="somebody else wrote to this upload; try again")
                os.fsync(file.fileno())
                source.rename(target)
            _sync_directory(target.parent)

        await self.run(move)
        self._states.pop(upload, None)
        return location

    async def abandon(self, upload: str) -> None:
        self._states.pop(upload, None)
        await self.run(lambda: self._upload(upload).unlink(missing_ok=True))

    def path(self, location: str) -> str:
        return f"{self.root}/blobs/{location}"

    async def read(self, location: str, offset: int, count: int) -> AsyncIterator[bytes]:
        try:
            fd = await self.run(os.open, self.path(location), os.O_RDONLY | os.O_CLOEXEC)
        except STORE_FAILED.kind as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise BLOB_UNKNOWN(digest=digest_at(location)) from error
            raise
        try:
            while count:
                data = await self.run(os.pread, fd, min(count, _READ), offset)
                if not data:
                    raise STORE_FAILED(reason=f"{location} is shorter than recorded")
                yield data
                offset += len(data)
                count -= len(data)
        finally:
            os.close(fd)

    async def delete(self, location: str) -> None:
        await self.run(lambda: Path(self.path(location)).unlink(missing_ok=True))

    async def list(self, kind: str) -> AsyncIterator[Stored]:
        base = self.root / kind

        def directory(place: Path) -> tuple[list[Path], list[Stored]]:
            folders, files = [], []
            with contextlib.suppress(FileNotFoundError), os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        stat = entry.stat(follow_symlinks=False)
                        name = os.path.relpath(entry.path, base)
                        files.append(Stored(name, stat.st_size, stat.st_mtime))
            return folders, files

        pending = [base]
        while pending:
            folders, files = await self.run(directory, pending.pop())
            pending += folders
            for file in files:
                yield file

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._lane.shutdown)


class FileIngest:
    """Pieces are collected to `_PIECE` and written by a thread while the next ones arrive."""

    def __init__(self, store: FileStore, upload: str, fd: int, size: int, hasher: _Hash | None) -> None:
        self._store = store
        self._upload = upload
        self._fd = fd
        self._begin = self._size = size
        self._hasher = hasher
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._job: asyncio.Future[None] | None = None
        self._touched = False

    async def write(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= _PIECE:
            await self._flush()

    async def _flush(self) -> None:
        await self._settle()
        held, self._held, self._held_bytes = self._held, [], 0
        if held:
            self._job = asyncio.ensure_future(self._store.run(self._put, held))

    async def _settle(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            await job

    def _put(self, pieces: list[bytes]) -> None:
        self._store.need_room(sum(map(len, pieces)))
        if not self._touched:  # only now: the caller has looked into the database once more since it holds the lock
            os.ftruncate(self._fd, self._begin)
            os.lseek(self._fd, self._begin, os.SEEK_SET)
            self._touched = True
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(self._fd, view) :]
            if self._hasher is not None:
                self._hasher.update(piece)
            self._size += len(piece)

    async def sync(self) -> int:
        await self._flush()
        await self._settle()
        await self._store.run(os.fsync, self._fd)
        if self._hasher is not None:
            state = _State(self._hasher, self._size, os.fstat(self._fd).st_mtime_ns)
            self._store.keep_state(self._upload, state)
        return self._size

    async def drop(self) -> None:
        self._held, self._held_bytes = [], 0
        with contextlib.suppress(Exception):  # a job that failed is why we are here
            await self._settle()
        if self._touched:
            await self._store.run(os.ftruncate, self._fd, self._begin)

    async def close(self) -> None:
        with contextlib.suppress(Exception):  # its error was raised by write or sync already, or nobody acknowledges
            await self._settle()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
