"""The one stream of server-sent events: it says what kind of thing changed, never what. Pages ask again, with their
rights. One look a second at the database serves every listener; while nobody listens nobody looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from dockyard.errors import DockyardError
from dockyard.registry.app import Registry
from dockyard.registry.errors import TOO_MANY

LISTENERS_MAX = 1000
_LOOK_SECONDS = 1.0
_ALIVE_LOOKS = 15
"""A comment after so many quiet looks, so that proxies keep the stream and dead clients are noticed."""
_LIFE_LOOKS = 3600

_STATE = (
    "SELECT (SELECT COALESCE(MAX(id), 0) FROM jobs), (SELECT COALESCE(SUM(done), 0) FROM jobs WHERE state = 'running'),"
    " (SELECT COUNT(*) FROM jobs WHERE state = 'running'), (SELECT COALESCE(MAX(id), 0) FROM deliveries),"
    " (SELECT COUNT(*) FROM deliveries WHERE due IS NOT NULL), (SELECT COALESCE(MAX(finished), 0) FROM deliveries)"
)


class Feed:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._listeners = 0
        self._looking: asyncio.Task[None] | None = None
        self._turn: asyncio.Future[list[str]] | None = None

    async def stream(self) -> AsyncIterator[bytes]:
        """Raises TOO_MANY."""
        if self._listeners >= LISTENERS_MAX:
            raise TOO_MANY(what="listeners")
        self._listeners += 1
        if self._looking is None:
            self._looking = self._registry.spawn(self._look())
        try:
            yield b"retry: 3000\n\n"
            quiet = 0
            for _ in range(_LIFE_LOOKS):
                names = await self._next()
                if self._registry.closing:
                    return
                quiet = 0 if names else quiet + 1
                if names:
                    yield b"".join(b"event: %b\ndata: 1\n\n" % name.encode() for name in names)
                elif quiet % _ALIVE_LOOKS == 0:
                    yield b": alive\n\n"
        finally:
            self._listeners -= 1

    async def _next(self) -> list[str]:
        if self._turn is None or self._turn.done():
            self._turn = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._turn)

    async def _look(self) -> None:
        try:
            before = await self._state()
            while self._listeners:
                await asyncio.sleep(_LOOK_SECONDS)
                now = await self._state()
                names = _changes(before, now)
                before = now
                if self._turn is not None and not self._turn.done():
                    self._turn.set_result(names)
        finally:
            self._looking = None

    async def _state(self) -> dict[str, Any]:
        db = self._registry.core.db
        try:
            row = await db.search(lambda tx: tx.one(_STATE)) or ()
            return {"content": await db.epoch(), "jobs": row[:3], "deliveries": row[3:]}
        except DockyardError:  # the database is away: listeners stay, the next look finds it again
            return {}


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [name for name, value in now.items() if before.get(name) != value]
