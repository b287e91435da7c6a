"""Who may touch the data root. Two locks, both flock(2), both gone with their holder::

    ROOT/daemon.lock   held by a serving daemon for its whole life: exit helpers ask it whether one is there
    ROOT/engine.lock   held by whoever works on the records: the daemon, or one exit helper at a time

A daemon that starts takes the first at once (another daemon is an error) and waits for the second, so that a helper in
the middle of its work finishes it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path

from dockyard.engine.errors import ENGINE_LOCKED

HELPER_LIMIT = 60.0
"""Seconds to wait for a helper that is at work."""
RETRY = 0.05


class RootLock:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: list[int] = []

    async def acquire(self, *, daemon: bool) -> None:
        """Raises Conflict naming the holder."""
        if daemon:
            await self._take("daemon.lock", 0)
        await self._take("engine.lock", HELPER_LIMIT)

    async def _take(self, name: str, seconds: float) -> None:
        fd = os.open(self._root / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "?"
                    os.close(fd)
                    raise ENGINE_LOCKED(root=str(self._root), pid=holder) from None
                await asyncio.sleep(RETRY)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._held.append(fd)

    def release(self) -> None:
        while self._held:
            os.close(self._held.pop())
