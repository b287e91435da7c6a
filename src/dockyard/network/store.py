"""Records of networks, endpoints and sandboxes::

    network.db   networks(id PK, name UNIQUE, record)  endpoints(id PK, record)  sandboxes(container PK, record)
                 meta(key PK, value)
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from dockyard.lib.durable import Spare, commits, is_full, no_spare, removing
from dockyard.network.errors import STORE_FULL
from dockyard.network.model import Endpoint, Network, Sandbox

_SCHEMA = """
CREATE TABLE IF NOT EXISTS networks (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS endpoints (id TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS sandboxes (container TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""
_encode = msgspec.json.encode


class NetworkStore:
    def __init__(self, path: Path, spare: Spare = no_spare) -> None:
        """``spare``: room on the disk for records of what is removed."""
        self._spare = spare
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

    def meta(self, key: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def put_meta(self, key: str, value: str) -> None:
        with _translated():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def put_network(self, network: Network) -> None:
        row = (network.id, network.name, _encode(network))
        with _translated():
            self._db.execute("INSERT OR REPLACE INTO networks VALUES (?, ?, ?)", row)

    def delete_network(self, network_id: str) -> None:
        self._remove(lambda: self._db.execute("DELETE FROM networks WHERE id = ?", (network_id,)), durable=True)

    def put(self, endpoints: Iterable[Endpoint], sandbox: Sandbox | None = None, *, durable: bool = True) -> None:
        with _translated(), commits(self._db, durable=durable), self._transaction():
            self._write(endpoints)
            if sandbox is not None:
                row = (sandbox.container, _encode(sandbox))
                self._db.execute("INSERT OR REPLACE INTO sandboxes VALUES (?, ?)", row)

    def delete(self, endpoints: Iterable[Endpoint] = (), sandbox: str = "", *, durable: bool = True) -> None:
        rows = [(item.id,) for item in endpoints]

        def work() -> None:
            self._db.executemany("DELETE FROM endpoints WHERE id = ?", rows)
            if sandbox:
                self._db.execute("DELETE FROM sandboxes WHERE container = ?", (sandbox,))

        self._remove(work, durable=durable)

    def leave(self, container: str, endpoints: Iterable[Endpoint]) -> None:
        rows = list(endpoints)

        def work() -> None:
            self._write(rows)
            self._db.execute("DELETE FROM sandboxes WHERE container = ?", (container,))

        self._remove(work, durable=False)

    def _remove(self, work: Callable[[], object], *, durable: bool) -> None:
        """In one transaction, with the room that is kept for it."""

        def once() -> None:
            with commits(self._db, durable=durable), self._transaction():
                work()

        with _translated():
            removing(once, self._spare)

    def _write(self, endpoints: Iterable[Endpoint]) -> None:
        rows = [(item.id, _encode(item)) for item in endpoints]
        self._db.executemany("INSERT OR REPLACE INTO endpoints VALUES (?, ?)", rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # an error; SQLite has rolled back by itself when the disk is full
                self._db.execute("ROLLBACK")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raises Exhausted when the disk is full."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if is_full(error):
            raise STORE_FULL() from error
        raise
