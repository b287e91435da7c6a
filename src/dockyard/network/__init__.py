"""Network: the Container Network Model on one host.

Nouns (libnetwork's): *network*, *endpoint* (a container's place in a network; holds its addresses while it runs),
*sandbox* (a container's network namespace), *driver* (bridge, macvlan, ipvlan, host, null, or a plugin), *IPAM driver*
(pools and addresses: default, null, or a plugin), *firewall* (nftables, iptables or none), *controller* (all of them,
recorded in ``network.db``).

Invariants: a decision (``creation``, ``ipam``, ``firewall``, ``iptables``, ``routing``, ``files``, ``requests``) is pure;
doing is in ``controller`` and ``sandboxes``. A change of the firewall is one transaction in a table of our own; rules are
constant, endpoints and ports are elements. Other engines' bridges, tables and chains are never touched. Namespaces are
entered only by ``kernel.netns``'s own thread. A plugin is told of every endpoint's end, also after a crash.
"""

from dockyard.network.controller import Controller
from dockyard.network.model import Endpoint, Network, NetworkSettings, Sandbox, SandboxSpec

__all__ = ["Controller", "Endpoint", "Network", "NetworkSettings", "Sandbox", "SandboxSpec"]
