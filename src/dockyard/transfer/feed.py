"""Progress from worker threads to one reader on the event loop.

Byte counts are coalesced (a slow reader sees the newest, never a backlog), so the feed holds at most a few objects per
layer however long the reader sleeps. States of one id keep their order.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Any

from .cancel import Cancel
from .model import Progress

PROGRESS_INTERVAL = 0.1
"""Seconds between two byte counts of one layer, as in dockerd's progress reader."""
STOP_WAIT = 5.0
"""Seconds that a reader who leaves waits for the worker threads to notice."""


class Feed:
    """Written by any thread; ``run`` is its one reader."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._items: dict[object, Progress] = {}
        self._last: dict[str, float] = {}
        self._ready = asyncio.Event()
        self._serial = 0

    def say(self, status: str, id: str = "") -> None:
        """A sentence about the whole operation."""
        with self._lock:
            self._put(self._serial, {"status": status} | ({"id": id} if id else {}))

    def state(self, status: str, id: str) -> None:
        """A layer's new state: never dropped."""
        with self._lock:
            self._put(self._serial, {"status": status, "progressDetail": {}, "id": id})

    def aux(self, value: dict[str, Any]) -> None:
        with self._lock:
            self._put(self._serial, {"progressDetail": {}, "aux": value})

    def count(self, status: str, id: str, current: int, total: int, *, final: bool = False) -> None:
        """A byte count: at most one in PROGRESS_INTERVAL is kept, the last (``final``) always."""
        now = time.monotonic()
        with self._lock:
            if not final and now - self._last.get(id, 0.0) < PROGRESS_INTERVAL:
                return
            self._last[id] = now
            detail = {"current": current, "total": total} if total else {"current": current}
            self._put((status, id), {"status": status, "progressDetail": detail, "id": id})

    def _put(self, key: object, item: Progress) -> None:
        self._serial += 1
        self._items[key] = item
        if len(self._items) == 1:
            self._loop.call_soon_threadsafe(self._ready.set)

    def take(self) -> list[Progress]:
        with self._lock:
            items = list(self._items.values())
            self._items.clear()
            self._ready.clear()
            return items

    async def run(self, executor: Executor, work: Callable[[], None], cancel: Cancel) -> AsyncIterator[Progress]:
        """Do ``work`` in a thread and yield what it says; its error is raised at the end. Leaving early cancels it."""
        done = asyncio.ensure_future(self._loop.run_in_executor(executor, work))
        done.add_done_callback(lambda _: self._ready.set())
        try:
            while not done.done():
                await self._ready.wait()
                for item in self.take():
                    yield item
            for item in self.take():
                yield item
            done.result()
        finally:
            if not done.done():
                cancel.cancel()
                # wait, not wait_for: the thread owns files and connections and must be let go by itself.
                await asyncio.wait([done], timeout=STOP_WAIT)
            done.add_done_callback(_heard)  # now, or when a peer that says nothing has been given up


def _heard(done: asyncio.Future[None]) -> None:
    """Its error is nobody's any more: without this asyncio would tell it as forgotten."""
    if not done.cancelled():
        done.exception()
