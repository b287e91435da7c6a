"""The room's records: one SQLite file, written before what they describe is relied on.

::

    meta(key, value)                                  boot id of the last open
    layers(number, diff_id, size, entries,            plain tars; ``synced`` = known to be on the disk: until then a
           content_size, synced)                      reboot makes open() read the tar again (0.7 ms a megabyte)
    images(id, config, parent, added)                 config bytes; the id is their digest
    image_layers(image, position, diff_id)
    tags(ref, image)                                  full form, name:tag
    repo_digests(ref, image)                          full form, name@digest
    blobs(digest, media_type, data, image)            manifests, indexes, attestations: small, kept whole
    fetched(digest, diff_id, media_type, size)        under which digest a registry knows a layer
    snapshots(key, diff_ids, parent, labels)
    volumes(name, labels, options, created)

One connection, used by the thread that opened the store (the event loop's): a commit costs 0.3 ms on ext4 here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dockyard.lib.durable import Spare, commits, is_full, no_spare, removing

from .errors import DISK_FULL

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE layers (number INTEGER PRIMARY KEY AUTOINCREMENT, diff_id TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
    entries INTEGER NOT NULL, content_size INTEGER NOT NULL, synced INTEGER NOT NULL DEFAULT 0);
CREATE TABLE images (id TEXT PRIMARY KEY, config BLOB NOT NULL, parent TEXT, added REAL NOT NULL);
CREATE TABLE image_layers (image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, position INTEGER NOT NULL,
    diff_id TEXT NOT NULL REFERENCES layers(diff_id), PRIMARY KEY (image, position)) WITHOUT ROWID;
CREATE TABLE tags (ref TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE) WITHOUT ROWID;
CREATE TABLE repo_digests (ref TEXT NOT NULL, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    PRIMARY KEY (ref, image)) WITHOUT ROWID;
CREATE TABLE blobs (digest TEXT NOT NULL, media_type TEXT NOT NULL, data BLOB NOT NULL,
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, PRIMARY KEY (digest, image)) WITHOUT ROWID;
CREATE TABLE fetched (digest TEXT PRIMARY KEY, diff_id TEXT NOT NULL REFERENCES layers(diff_id) ON DELETE CASCADE,
    media_type TEXT NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE snapshots (key TEXT PRIMARY KEY, diff_ids TEXT NOT NULL, parent TEXT, labels TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE volumes (name TEXT PRIMARY KEY, labels TEXT NOT NULL, options TEXT NOT NULL, created TEXT NOT NULL)
    WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers(diff_id);
CREATE INDEX tags_by_image ON tags(image);
CREATE INDEX fetched_by_layer ON fetched(diff_id);
"""


def _translated(error: sqlite3.OperationalError) -> Exception:
    if is_full(error):
        return DISK_FULL(what="record")
    return error


class Database:
    def __init__(self, path: Path, spare: Spare = no_spare) -> None:
        self._spare = spare
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        if self._connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            self._connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Nested use joins the outer one."""
        if self._connection.in_transaction:
            yield self._connection
            return
        try:
            with self._whole():
                yield self._connection
        except sqlite3.OperationalError as error:
            raise _translated(error) from None

    @contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:  # an error; SQLite has rolled back by itself when the disk is full
                self._connection.execute("ROLLBACK")

    def remove(self, *statements: tuple[str, Sequence[object]], durable: bool = True) -> None:
        """Statements that delete rows, all or nothing; on a full disk with the room that is kept for them."""

        def work() -> None:
            with commits(self._connection, durable=durable), self._whole():
                for sql, values in statements:
                    self._connection.execute(sql, values)

        try:
            removing(work, self._spare)
        except sqlite3.OperationalError as error:
            raise _translated(error) from None

    def rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def execute(self, sql: str, *values: object, durable: bool = True) -> int:
        """One statement, committed by itself outside a transaction; the number of rows it changed."""
        try:
            with commits(self._connection, durable=durable):
                return self._connection.execute(sql, values).rowcount
        except sqlite3.OperationalError as error:
            raise _translated(error) from None

    def close(self) -> None:
        self._connection.close()
