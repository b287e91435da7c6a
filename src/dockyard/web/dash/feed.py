"""The stream: "something changed", never what. One waiting thread serves every listener."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from dockyard.compose.desk import Desk
from dockyard.registry.errors import TOO_MANY

LISTENERS_MAX = 100
_WAIT = 5.0
_LIFE = 3600 / _WAIT


class Feed:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._listeners = 0
        self._turn: asyncio.Task[int] | None = None
        self._version = desk.version
        self.closing = False

    async def stream(self) -> AsyncIterator[bytes]:
        """Raises TOO_MANY."""
        if self._listeners >= LISTENERS_MAX:
            raise TOO_MANY(what="listeners")
        self._listeners += 1
        try:
            yield b"retry: 2000\n\n"
            seen, rounds = -1, 0
            while not self.closing and rounds < _LIFE:
                version = await self._next() if seen == self._version else self._version
                rounds += 1
                yield b": alive\n\n" if version == seen else b"event: look\ndata: 1\n\n"
                seen = version
        finally:
            self._listeners -= 1

    async def _next(self) -> int:
        if self._turn is None or self._turn.done():
            self._turn = asyncio.create_task(self._wait())
        return await asyncio.shield(self._turn)

    async def _wait(self) -> int:
        self._version = await asyncio.to_thread(self._desk.wait, self._version, _WAIT)
        return self._version
