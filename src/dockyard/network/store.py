"""Records of networks, endpoints and sandboxes::

    network.db   networks(id PK, name UNIQUE, record)  endpoints(id PK, record)  sandboxes(container PK, record)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dockyard.network.model import Endpoint, Network, Sandbox

_SCHEMA = """
CREATE TABLE IF NOT EXISTS networks (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS endpoints (id TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS sandboxes (container TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT;
"""
_encode = msgspec.json.encode


class NetworkStore:
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def networks(self) -> list[Network]:
        return [msgspec.json.decode(row[0], type=Network) for row in self._db.execute("SELECT record FROM networks ORDER BY rowid")]

    def endpoints(self) -> list[Endpoint]:
        return [msgspec.json.decode(row[0], type=Endpoint) for row in self._db.execute("SELECT record FROM endpoints ORDER BY rowid")]

    def sandboxes(self) -> list[Sandbox]:
        return [msgspec.json.decode(row[0], type=Sandbox) for row in self._db.execute("SELECT record FROM sandboxes")]

    def put_network(self, network: Network) -> None:
        self._db.execute("INSERT OR REPLACE INTO networks VALUES (?, ?, ?)", (network.id, network.name, _encode(network)))

    def delete_network(self, network_id: str) -> None:
        self._db.execute("DELETE FROM networks WHERE id = ?", (network_id,))

    def put(self, endpoints: Iterable[Endpoint], sandbox: Sandbox | None = None) -> None:
        """Endpoints and their sandbox in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(
            "INSERT OR REPLACE INTO endpoints VALUES (?, ?)", [(item.id, _encode(item)) for item in endpoints]
        )
        if sandbox is not None:
            self._db.execute("INSERT OR REPLACE INTO sandboxes VALUES (?, ?)", (sandbox.container, _encode(sandbox)))
        self._db.execute("COMMIT")

    def delete(self, endpoints: Iterable[Endpoint] = (), sandbox: str = "") -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("DELETE FROM endpoints WHERE id = ?", [(item.id,) for item in endpoints])
        if sandbox:
            self._db.execute("DELETE FROM sandboxes WHERE container = ?", (sandbox,))
        self._db.execute("COMMIT")
