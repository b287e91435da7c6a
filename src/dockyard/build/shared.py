"""Identical steps that run at the same time run once: whoever comes second waits for the first and sees its output.

The work belongs to no caller. It ends when done, or when the last one that waits for it has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .model import Layer

__all__ = ["Listener", "SharedSteps"]

REPLAY_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Listener:
    """Who waits: called for each piece of output (fd, data), and with the sandbox once there is a process."""

    output: Callable[[int, bytes], None]
    started: Callable[[str], None]


@dataclass(slots=True)
class _Running:
    listeners: list[Listener] = field(default_factory=list)
    replay: list[tuple[int, bytes]] = field(default_factory=list)
    replayed: int = 0
    sandbox: str = ""
    leader_left: bool = False
    task: asyncio.Task[Layer] | None = None

    def output(self, fd: int, data: bytes) -> None:
        if self.replayed < REPLAY_LIMIT:
            self.replay.append((fd, data))
            self.replayed += len(data)
        for listener in self.listeners:
            listener.output(fd, data)

    def started(self, sandbox: str) -> None:
        self.sandbox = sandbox
        for listener in self.listeners:
            listener.started(sandbox)


Work = Callable[[Listener], Awaitable[Layer]]


class SharedSteps:
    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}

    def __len__(self) -> int:
        return len(self._running)

    async def run(self, key: str, listener: Listener, work: Work) -> Layer:
        """The result of ``work`` for ``key``; ``work`` is called only if nobody runs it already."""
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = _Running()
            running.task = asyncio.ensure_future(self._perform(key, running, work))
            return await self._wait(key, running, listener)
        if running.sandbox:
            listener.started(running.sandbox)
            for fd, data in running.replay:
                listener.output(fd, data)
        try:
            return await self._wait(key, running, listener)
        except Exception:
            # Whose secrets and context it used has gone in the middle: do it with one's own.
            if running.leader_left:
                return await self.run(key, listener, work)
            raise

    async def _wait(self, key: str, running: _Running, listener: Listener) -> Layer:
        assert running.task is not None
        leads = not running.listeners
        running.listeners.append(listener)
        try:
            return await asyncio.shield(running.task)
        finally:
            running.listeners.remove(listener)
            if not running.task.done():
                running.leader_left = running.leader_left or leads
                if not running.listeners:
                    self._running.pop(key, None)
                    running.task.cancel()
                    await asyncio.wait({running.task})

    async def _perform(self, key: str, running: _Running, work: Work) -> Layer:
        try:
            return await work(Listener(running.output, running.started))
        finally:
            if self._running.get(key) is running:
                del self._running[key]
