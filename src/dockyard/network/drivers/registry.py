"""Which driver serves which name: the built-in ones, then plugins, looked up when first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from dockyard.client import plugins
from dockyard.network.drivers.remote import RemoteDriver
from dockyard.network.errors import NOT_A_DRIVER
from dockyard.network.ports import Driver


class DriverRegistry:
    def __init__(self, own: Mapping[str, Driver], dirs: plugins.PluginDirs | None = None) -> None:
        self._own = dict(own)
        self._dirs = dirs
        self._remote: dict[str, RemoteDriver] = {}

    def own(self, name: str) -> Driver | None:
        return self._own.get(name)

    async def get(self, name: str) -> Driver:
        """Raises NotFound for a driver that is neither ours nor a plugin, System for a plugin that does not answer."""
        if (found := self._own.get(name)) is not None:
            return found
        if name not in self._remote:
            plugin = await asyncio.to_thread(plugins.find, name, self._dirs)
            if "NetworkDriver" not in await asyncio.to_thread(plugin.implements):
                raise NOT_A_DRIVER(name=name, kind="NetworkDriver")
            self._remote[name] = await RemoteDriver.open(plugin)
        return self._remote[name]

    def names(self) -> list[str]:
        """For ``docker info``."""
        return sorted([*self._own, *self._remote])
