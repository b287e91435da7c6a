"""IPAM drivers: ours, ``null`` (no addresses: the driver or a DHCP server gives them), and plugins."""

from dockyard.network.ipams.own import DefaultIpam, NullIpam
from dockyard.network.ipams.registry import IpamRegistry

__all__ = ["DefaultIpam", "IpamRegistry", "NullIpam"]
