"""The network's twin: endpoints with addresses that no packet reaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dockyard.engine.model import Record
from dockyard.model import NetworkingConfig

Json = dict[str, Any]


class FakeNetwork:
    """``identify`` gives a network's ID for its name, where somebody knows networks."""

    def __init__(self, identify: Callable[[str], str] = str) -> None:
        self.identify = identify
        self._endpoints: dict[str, dict[str, Json]] = {}
        self._ports: dict[str, Json] = {}
        self.up: set[str] = set()
        self._next = 2

    async def connect(self, record: Record, network: NetworkingConfig) -> None:
        mode = record.host.network_mode
        names = list(network.endpoints_config or {}) or ([] if mode.startswith("container:") else [mode])
        self._endpoints[record.id] = {name: {"IPAddress": "", "NetworkID": self.identify(name)} for name in names}

    async def forget(self, container_id: str) -> None:
        self._endpoints.pop(container_id, None)
        self._ports.pop(container_id, None)

    async def setup(self, record: Record, directory: str) -> str:
        for endpoint in self._endpoints.get(record.id, {}).values():
            endpoint["IPAddress"] = f"172.17.{self._next >> 8}.{self._next & 255}"
            self._next += 1
        bindings = record.host.port_bindings or {}
        self._ports[record.id] = {
            port: [
                {"HostIp": item.host_ip or "0.0.0.0", "HostPort": item.host_port or "49153"} for item in wanted or []
            ]
            for port, wanted in bindings.items()
        } | {port: None for port in record.config.exposed_ports or {} if port not in bindings}
        self.up.add(record.id)
        return f"/nowhere/netns/{record.id}"

    async def wired(self, container_id: str) -> None:
        return None

    async def teardown(self, container_id: str) -> None:
        self.up.discard(container_id)
        self._ports.pop(container_id, None)
        for endpoint in self._endpoints.get(container_id, {}).values():
            endpoint["IPAddress"] = ""

    async def recover(self, live: Mapping[str, int]) -> None:
        self.up &= set(live)

    def settings(self, container_id: str) -> Json:
        networks = self._endpoints.get(container_id, {})
        first = next(iter(networks.values()), {})
        return {
            "Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": self._ports.get(container_id, {}),
            "IPAddress": first.get("IPAddress", ""), "Networks": networks,
        }  # fmt: skip

    def networks_of(self, container_id: str) -> Sequence[str]:
        return list(self._endpoints.get(container_id, {}))

    async def renamed(self, record: Record) -> None:
        return None
