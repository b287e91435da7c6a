"""What the controller, its sandboxes and the name service share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dockyard.kernel.netns import NetnsThread
from dockyard.network import hostports
from dockyard.network.drivers import DriverRegistry
from dockyard.network.ipams import IpamRegistry
from dockyard.network.model import Network, NetworkSettings, SandboxSpec
from dockyard.network.ports import Driver, Firewall, Json
from dockyard.network.records import Records

Tell = Callable[[str, Json], None]
"""(action, attributes): something happened that nobody asked for."""


def _nobody(action: str, attributes: Json) -> None:
    return None


@dataclass(slots=True)
class Core:
    settings: NetworkSettings
    netns_dir: Path
    records: Records
    thread: NetnsThread
    firewall: Firewall
    drivers: DriverRegistry
    ipams: IpamRegistry
    ports: hostports.Holder
    userns: str = ""
    """The user namespace of most sandboxes: that of those made ahead."""
    specs: dict[str, SandboxSpec] = field(default_factory=dict)
    """Of containers with a sandbox."""
    tell: Tell = _nobody

    def driven(self, driver: str) -> list[Network]:
        return [item for item in self.records.networks.values() if item.driver == driver and not item.config_only]

    async def driver(self, network: Network) -> Driver:
        return await self.drivers.get(network.driver)
