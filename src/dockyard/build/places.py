"""Places on networks for RUN steps. A place is made for the first step that needs one like it and given on to the next:
making and leaving one costs ten times what looking up a name in it does, and steps of a stage follow one another.

Only the namespace is handed on; /etc/hosts and its like are fresh files for every step. A step with more rights than
usual gets a place of its own. What is idle is given up when a build ends, so that nobody's network is held by a cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

from dockyard.errors import DockyardError
from dockyard.model import new_id

from .ports import Networks, Place

__all__ = ["Places"]

log = logging.getLogger("dockyard.build")

Key = tuple[str, tuple[str, ...]]


class Places:
    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._idle: dict[Key, list[Place]] = {}

    @contextlib.asynccontextmanager
    async def take(self, network: str, extra_hosts: Sequence[str], *, own: bool = False) -> AsyncIterator[Place]:
        """Raises NotFound for a network that is not there."""
        key = (network, tuple(extra_hosts))
        waiting = [] if own else self._idle.get(key, [])
        place = waiting.pop() if waiting else await self._make(network, extra_hosts)
        try:
            yield place
        finally:
            if own or network.startswith("container:"):
                await self._give_up(place)
            else:
                self._idle.setdefault(key, []).append(place)

    async def _make(self, network: str, extra_hosts: Sequence[str]) -> Place:
        sandbox = new_id()
        try:
            return await self._networks.attach(network, sandbox, extra_hosts)
        except BaseException:
            await asyncio.shield(self._networks.detach(sandbox))
            raise

    async def drain(self) -> None:
        """Give up all that is idle."""
        idle = [place for places in self._idle.values() for place in places]
        self._idle.clear()
        for place in idle:
            await self._give_up(place)

    async def _give_up(self, place: Place) -> None:
        try:
            await asyncio.shield(self._networks.detach(place.sandbox))
        except (DockyardError, OSError) as error:
            log.warning("cannot leave the network place %s: %s", place.sandbox[:12], error)
