"""Network: the Container Network Model on one host.

Nouns (libnetwork's): *network*, *endpoint* (a container's place in a network; keeps its address while it exists),
*sandbox* (a container's network namespace), *driver* (bridge, host, null), *IPAM* (pools and addresses), *controller*
(all of them, recorded in ``network.db``).

Invariants: a decision (``ipam``, ``firewall``, ``files``, ``names``) is pure; doing is in ``controller``. A change of the
firewall is one nft transaction in a table of our own; rules are constant, endpoints and ports are elements. Other
engines' bridges, tables and chains are never touched. Namespaces are entered only by ``kernel.netns``'s own thread.
"""

from dockyard.network.controller import Controller
from dockyard.network.model import Endpoint, Network, NetworkSettings, Sandbox, SandboxSpec

__all__ = ["Controller", "Endpoint", "Network", "NetworkSettings", "Sandbox", "SandboxSpec"]
