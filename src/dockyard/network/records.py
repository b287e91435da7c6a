"""What the controller knows: every record in memory, indexed, and on disk before anything is done about it.

Invariant: memory and ``network.db`` change together here and nowhere else; a failed write changes neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dockyard.lib.durable import Spare, no_spare
from dockyard.network.directory import Directory
from dockyard.network.ipam import Ledger
from dockyard.network.model import Endpoint, Network, Sandbox
from dockyard.network.store import NetworkStore


class Records:
    def __init__(self, path: Path, spare: Spare = no_spare) -> None:
        self._store = NetworkStore(path, spare)
        self.networks = {network.id: network for network in self._store.networks()}
        self.sandboxes = {sandbox.container: sandbox for sandbox in self._store.sandboxes()}
        self.endpoints: dict[str, Endpoint] = {}
        self._of: dict[str, dict[str, Endpoint]] = {}
        self._in: dict[str, dict[str, Endpoint]] = {}
        self.ledger = Ledger()
        self._directory: Directory | None = None
        self.fleeting: set[str] = set()
        """Containers that go with the boot: their endpoints need not survive a loss of power."""
        for endpoint in self._store.endpoints():
            self._index(endpoint)

    def close(self) -> None:
        self._store.close()

    def of(self, container: str) -> list[Endpoint]:
        return list(self._of.get(container, {}).values())

    def within(self, network_id: str) -> list[Endpoint]:
        return list(self._in.get(network_id, {}).values())

    def pairs(self, container: str) -> list[tuple[Network, Endpoint]]:
        return [(self.networks[item.network], item) for item in self.of(container)]

    def directory(self) -> Directory:
        """The name service's index, made anew at the first question after a change."""
        if self._directory is None:
            self._directory = Directory(self.networks, self.endpoints.values(), self.sandboxes)
        return self._directory

    def put_network(self, network: Network) -> None:
        self._store.put_network(network)
        self.networks[network.id] = network
        self._directory = None

    def drop_network(self, network_id: str) -> None:
        self._store.delete_network(network_id)
        self.networks.pop(network_id, None)
        self._directory = None

    def put(self, endpoints: Iterable[Endpoint], sandbox: Sandbox | None = None) -> None:
        rows = list(endpoints)
        # A sandbox goes with the boot: what is known of its endpoints without it was recorded before.
        self._store.put(rows, sandbox, durable=sandbox is None and not self._all_fleeting(rows))
        for endpoint in rows:
            self._index(endpoint)
        if sandbox is not None:
            self.sandboxes[sandbox.container] = sandbox
        self._directory = None

    def drop(self, endpoints: Iterable[Endpoint] = (), sandbox: str = "") -> None:
        rows = list(endpoints)
        self._store.delete(rows, sandbox, durable=not self._all_fleeting(rows))
        for endpoint in rows:
            if (known := self.endpoints.pop(endpoint.id, None)) is not None:
                self.ledger.drop(known)
            self._of.get(endpoint.container, {}).pop(endpoint.id, None)
            self._in.get(endpoint.network, {}).pop(endpoint.id, None)
        self.sandboxes.pop(sandbox, None)
        self._directory = None

    def _all_fleeting(self, endpoints: Iterable[Endpoint]) -> bool:
        return all(endpoint.container in self.fleeting for endpoint in endpoints)

    def leave(self, container: str, endpoints: Iterable[Endpoint]) -> None:
        """The sandbox ends and its endpoints are as given, in one transaction."""
        rows = list(endpoints)
        self._store.leave(container, rows)
        for endpoint in rows:
            self._index(endpoint)
        self.sandboxes.pop(container, None)
        self._directory = None

    def meta(self, key: str) -> str:
        """A fact about the whole, e.g. the name of our firewall table; "" if not recorded."""
        return self._store.meta(key)

    def put_meta(self, key: str, value: str) -> None:
        self._store.put_meta(key, value)

    def _index(self, endpoint: Endpoint) -> None:
        if (known := self.endpoints.get(endpoint.id)) is not None:
            self.ledger.drop(known)
        self.ledger.add(endpoint)
        self.endpoints[endpoint.id] = endpoint
        self._of.setdefault(endpoint.container, {})[endpoint.id] = endpoint
        self._in.setdefault(endpoint.network, {})[endpoint.id] = endpoint
