"""Cache mounts: directories that outlive builds, one per (id, origin), counted and pruned like every other record.

::

    caches/<number>/          named by its record's number

``shared``: everybody at once. ``locked``: one after another. ``private``: one each; a second one while the first is in
use. The size is measured when the last user leaves.

A mount can be taken out as a tar and put back, on this machine or another (CI machines begin with nothing): ``packed``
and ``unpack``, for one that nobody uses. It is found by its ``id=`` (its target, where the Dockerfile gives none), the
one without ``from=`` before others, or as ``mountN``, which tells them apart.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

from dockyard.errors import DockyardError
from dockyard.kernel import safefs
from dockyard.storage import files
from dockyard.storage.copytree import copy_tree
from dockyard.storage.pipe import run_with_input, stream_from_thread

from .dockerfile.mounts import Mount
from .errors import BAD_OPTION, MOUNT_IN_USE, NO_SUCH_MOUNT
from .ports import Layers
from .records import MountRecord, Records

__all__ = ["CacheMounts"]

Now = Callable[[], int]


class CacheMounts:
    """Owned by the event loop's thread; copying and measuring happen in threads."""

    def __init__(self, directory: Path, records: Records, layers: Layers, now: Now) -> None:
        self._directory, self._records, self._layers, self._now = directory, records, layers, now
        self._users: dict[int, int] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        directory.mkdir(mode=0o710, parents=True, exist_ok=True)
        for entry in directory.iterdir():
            if not entry.name.isdigit() or int(entry.name) not in records.mounts:
                shutil.rmtree(entry, ignore_errors=True)

    def in_use(self, number: int) -> bool:
        return self._users.get(number, 0) > 0

    def path(self, number: int) -> Path:
        return self._directory / str(number)

    @asynccontextmanager
    async def take(self, mount: Mount, layers: Sequence[str], source: str) -> AsyncIterator[Path]:
        number = self._choose(_name(mount.id, layers, source), mount)
        self._users[number] = self._users.get(number, 0) + 1
        lock = self._locks.setdefault(number, asyncio.Lock())
        try:
            if mount.sharing == "locked":
                await lock.acquire()
            try:
                if not self.path(number).exists():
                    await asyncio.to_thread(self._make, number, mount, layers, source)
                yield self.path(number)
            finally:
                if mount.sharing == "locked":
                    lock.release()
        finally:
            await self._left(number)

    async def _left(self, number: int) -> None:
        self._users[number] -= 1
        if not self._users[number]:
            del self._users[number]
            self._locks.pop(number, None)
            size = await asyncio.to_thread(_size_of, self.path(number))
            self._records.used_mount(number, size, self._now())

    # -- out and in ---------------------------------------------------------------------------------------------------

    def find(self, id: str) -> MountRecord | None:
        """By ``mountN`` or by what the Dockerfile calls it; of several the plain one, then the one used last."""
        plain = _name(id, (), "")
        found = [each for each in self._records.mounts.values() if id in (f"mount{each.number}", each.text)]
        return max(found, key=lambda each: (each.name == plain, each.used), default=None)

    def packed(self, id: str, threads: Executor) -> AsyncIterator[bytes]:
        """A tar of the directory, its own mode and owner included. Raises NotFound, Conflict."""
        record = self.find(id)
        if record is None or not self.path(record.number).exists():
            raise NO_SUCH_MOUNT(id=id[:200])
        if self.in_use(record.number):
            raise MOUNT_IN_USE(id=id[:200])
        return self._packed(record.number, threads)

    async def _packed(self, number: int, threads: Executor) -> AsyncIterator[bytes]:
        async with self._alone(number):
            with _opened_directory(self.path(number)) as root:
                pieces = stream_from_thread(threads, files.pack(root, ".", ".", follow=False))
                async with aclosing(pieces):
                    async for piece in pieces:
                        yield piece

    async def unpack(self, id: str, chunks: AsyncIterator[bytes], threads: Executor) -> MountRecord:
        """The tar (packed or not) becomes the mount's whole content, or nothing changes. Raises Conflict, InvalidParameter."""
        record = self.find(id) or self._records.add_mount(_name(id, (), ""), id, self._now())
        async with self._alone(record.number):
            part = self._directory / f"{record.number}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(mode=0o755)
            try:
                with _opened_directory(self._directory) as root:
                    await run_with_input(threads, chunks, lambda source: files.unpack(
                        source, root, part.name, keep_kind=True, owner=None, whole=True
                    ))  # fmt: skip
            except BaseException as error:
                shutil.rmtree(part, ignore_errors=True)
                if not self.path(record.number).exists():
                    self._records.drop_mount(record.number)
                if isinstance(error, OSError) and not isinstance(error, DockyardError):
                    raise BAD_OPTION(text=f"cannot unpack into the cache mount: {error.strerror}") from None
                raise
            gone = self._directory / f"{record.number}.gone"
            if self.path(record.number).exists():
                os.rename(self.path(record.number), gone)
            os.rename(part, self.path(record.number))
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
        return self._records.mounts.get(record.number, record)

    @asynccontextmanager
    async def _alone(self, number: int) -> AsyncIterator[None]:
        if self.in_use(number):
            raise MOUNT_IN_USE(id=f"mount{number}")
        self._users[number] = 1
        lock = self._locks.setdefault(number, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            await self._left(number)

    def _choose(self, name: str, mount: Mount) -> int:
        for record in self._records.mounts_named(name):
            if mount.sharing != "private" or not self.in_use(record.number):
                return record.number
        return self._records.add_mount(name, mount.id, self._now()).number

    def _make(self, number: int, mount: Mount, layers: Sequence[str], source: str) -> None:
        """Complete or not there: made beside and renamed."""
        part = self._directory / f"{number}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o755)
        if layers:
            root = self._layers.view(layers)
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY
                with safefs.opened(root, source or ".", flags) as below, _opened_directory(part) as into:
                    copy_tree(below, into, self._layers.ids)
            finally:
                os.close(root)
        else:
            os.chown(part, *self._layers.ids.outside(mount.uid, mount.gid))
            os.chmod(part, 0o755 if mount.mode is None else mount.mode)
        if self.path(number).exists():
            shutil.rmtree(part)
        else:
            os.rename(part, self.path(number))

    def remove(self, number: int) -> None:
        """Not for one in use."""
        self._records.drop_mount(number)
        gone = self._directory / f"{number}.gone"
        try:
            os.rename(self.path(number), gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)


def _name(id: str, layers: Sequence[str], source: str) -> str:
    return hashlib.sha256("\0".join([id, source if layers else "", *layers]).encode()).hexdigest()


@contextmanager
def _opened_directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _size_of(path: Path) -> int:
    from dockyard.storage.upper import usage_of

    try:
        return usage_of(path)[0]
    except OSError:
        return 0
