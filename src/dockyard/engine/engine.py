"""The engine: its services side by side, as the API calls them, and its one way to end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dockyard.engine.containers import Containers
from dockyard.engine.execs import Execs
from dockyard.engine.kit import Kit
from dockyard.engine.system import System


@dataclass(frozen=True, slots=True)
class Engine:
    kit: Kit
    containers: Containers
    execs: Execs
    images: Any
    builds: Any
    volumes: Any
    networks: Any
    system: System
    closers: Sequence[Callable[[], Awaitable[None]]] = ()
    """Run last, in order: rooms that must be let go of."""

    async def close(self) -> None:
        """Lets operations finish, ends watchers and streams. Containers go on under their conmons."""
        self.kit.events.close()
        await self.kit.supervisor.close()
        self.kit.store.close()
        for close in self.closers:
            await close()
