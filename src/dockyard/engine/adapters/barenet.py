"""Networking without a network: the modes host and none, until the network room is wired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dockyard.engine.model import Record
from dockyard.model import NetworkingConfig

Json = dict[str, Any]


class BareNetwork:
    def __init__(self) -> None:
        self._mode: dict[str, str] = {}

    async def connect(self, record: Record, network: NetworkingConfig) -> None:
        self._mode[record.id] = record.host.network_mode

    async def forget(self, container_id: str) -> None:
        self._mode.pop(container_id, None)

    async def setup(self, record: Record, directory: str) -> str:
        Path(directory, "hostname").write_text(record.config.hostname + "\n")
        Path(directory, "hosts").write_text("127.0.0.1 localhost\n")
        return "host" if record.host.network_mode == "host" else ""

    async def teardown(self, container_id: str) -> None:
        return None

    async def recover(self, live: Mapping[str, int]) -> None:
        return None

    def settings(self, container_id: str) -> Json:
        return {"Ports": {}, "Networks": {self._mode.get(container_id, "none"): {}}}

    def networks_of(self, container_id: str) -> Sequence[str]:
        return [self._mode.get(container_id, "none")]

    async def renamed(self, record: Record) -> None:
        return None
