"""The one place that starts tasks outliving their caller, and the cleanup list that undoes half-done operations."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from dockyard.errors import DockyardError

T = TypeVar("T")

CLOSE_TIMEOUT = 10.0
"""Seconds that running operations get to finish when the engine is closed."""

_log = logging.getLogger("dockyard.engine")


class Supervisor:
    """Keeps a reference to each task (asyncio does not) and tells of those that fail."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Task[Any]] = set()
        self._operations: set[asyncio.Task[Any]] = set()

    def watch(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task that ends with the engine: exit watchers, health checks, restart timers."""
        return self._spawn(work, name, self._watchers)

    async def operate(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Runs ``work`` to its end even if the caller goes away; its result or error is the caller's."""
        task = self._spawn(work, name, self._operations)
        return await asyncio.shield(task)

    def _spawn(self, work: Coroutine[Any, Any, T], name: str, group: set[asyncio.Task[Any]]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        group.add(task)
        task.add_done_callback(group.discard)
        task.add_done_callback(_tell)
        return task

    async def close(self) -> None:
        """Lets operations finish (bounded), then ends the watchers."""
        if self._operations:
            await asyncio.wait(self._operations, timeout=CLOSE_TIMEOUT)
        left = [*self._operations, *self._watchers]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def statistics(self) -> dict[str, int]:
        return {"operations": len(self._operations), "watchers": len(self._watchers)}


def _tell(task: asyncio.Task[Any]) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if error is not None and not isinstance(error, DockyardError):
        _log.error("%s failed", task.get_name(), exc_info=error)


class Undo:
    """The undo halves of steps already done, run last first. Each is tried; a failure is logged."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Awaitable[Any]]]] = []

    def add(self, name: str, step: Callable[[], Awaitable[Any]]) -> None:
        self._steps.append((name, step))

    async def run(self) -> None:
        while self._steps:
            name, step = self._steps.pop()
            try:
                await step()
            except (DockyardError, OSError) as error:
                _log.warning("cannot undo %s: %s", name, error)
