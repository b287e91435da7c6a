"""Which IPAM driver serves which name: ``default`` and ``null``, then plugins, looked up when first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from dockyard.client import plugins
from dockyard.network.errors import NOT_A_DRIVER
from dockyard.network.ipams.remote import RemoteIpam
from dockyard.network.ports import Ipam


class IpamRegistry:
    def __init__(self, own: Mapping[str, Ipam], dirs: plugins.PluginDirs | None = None) -> None:
        self._own = dict(own)
        self._dirs = dirs
        self._remote: dict[str, RemoteIpam] = {}

    async def get(self, name: str) -> Ipam:
        """Raises NotFound for a driver that is neither ours nor a plugin."""
        if (found := self._own.get(name)) is not None:
            return found
        if name not in self._remote:
            plugin = await asyncio.to_thread(plugins.find, name, self._dirs)
            if "IpamDriver" not in await asyncio.to_thread(plugin.implements):
                raise NOT_A_DRIVER(name=name, kind="IpamDriver")
            self._remote[name] = await RemoteIpam.open(plugin)
        return self._remote[name]
