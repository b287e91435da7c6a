"""Network drivers: bridge, macvlan, ipvlan, host, null, and any plugin that implements NetworkDriver."""

from dockyard.network.drivers.bridge import BridgeDriver
from dockyard.network.drivers.macvlan import IpvlanDriver, MacvlanDriver
from dockyard.network.drivers.plain import LocalDriver
from dockyard.network.drivers.registry import DriverRegistry

__all__ = ["BridgeDriver", "DriverRegistry", "IpvlanDriver", "LocalDriver", "MacvlanDriver"]
