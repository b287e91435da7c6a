"""The engine's records in SQLite: what must exist, written before the kernel is asked for it.

::

    engine.db   containers(id TEXT PK, name TEXT UNIQUE, record BLOB)     one JSON record each (engine.model.Record)
                meta(key TEXT PK, value TEXT)                             engine id, boot id of the last start

WAL with synchronous=FULL: a committed record survives power loss, unless the container goes with the boot anyway
(``--rm``, ADR 205). A commit costs about 0.3 ms on the reference machine, so it is done inline on the event loop rather
than behind a thread hop of the same price.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dockyard.engine.errors import NAME_IN_USE, STORE_FULL
from dockyard.engine.model import Record
from dockyard.lib.durable import commits

BUSY_TIMEOUT_MS = 5_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""


def _translated(error: sqlite3.OperationalError, record: Record) -> Exception:
    return STORE_FULL(name=record.name) if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL else error


class Store:
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Record)

    def close(self) -> None:
        self._db.close()

    def records(self) -> Iterator[Record]:
        for (blob,) in self._db.execute("SELECT record FROM containers"):
            yield self._decoder.decode(blob)

    def put(self, record: Record) -> None:
        """Inserts or replaces. Raises Conflict (Docker's sentence) when another container has the name, Exhausted when the
        disk is full."""
        blob = self._encoder.encode(record)
        try:
            with commits(self._db, durable=not record.host.auto_remove):
                self._db.execute(
                    "INSERT INTO containers VALUES (?, ?, ?) ON CONFLICT(id) DO UPDATE SET name=excluded.name, "
                    "record=excluded.record",
                    (record.id, record.name, blob),
                )
        except sqlite3.IntegrityError:
            row = self._db.execute("SELECT id FROM containers WHERE name = ?", (record.name,)).fetchone()
            raise NAME_IN_USE(name=record.name, id=row[0] if row else "?") from None
        except sqlite3.OperationalError as error:
            raise _translated(error, record) from error

    def delete(self, record: Record) -> None:
        try:
            with commits(self._db, durable=not record.host.auto_remove):
                self._db.execute("DELETE FROM containers WHERE id = ?", (record.id,))
        except sqlite3.OperationalError as error:
            raise _translated(error, record) from error

    def meta(self, key: str, default: str = "") -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else default

    def set_meta(self, key: str, value: str) -> None:
        self._db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value=excluded.value", (key, value)
        )
