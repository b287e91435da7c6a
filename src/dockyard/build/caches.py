"""Cache mounts: directories that outlive builds, one per (id, origin), counted and pruned like every other record.

::

    caches/<number>/          named by its record's number

``shared``: everybody at once. ``locked``: one after another. ``private``: one each; a second one while the first is in
use. The size is measured when the last user leaves.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from dockyard.kernel import safefs
from dockyard.storage.copytree import copy_tree

from .dockerfile.mounts import Mount
from .ports import Layers
from .records import Records

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
        name = hashlib.sha256("\0".join([mount.id, source if layers else "", *layers]).encode()).hexdigest()
        number = self._choose(name, mount)
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
            self._users[number] -= 1
            if not self._users[number]:
                del self._users[number]
                self._locks.pop(number, None)
                size = await asyncio.to_thread(_size_of, self.path(number))
                self._records.used_mount(number, size, self._now())

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
