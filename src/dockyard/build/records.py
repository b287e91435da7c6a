"""The build cache's records: one SQLite file, read whole at open, written through.

::

    steps(key, layer, size, kind, text, created, used, uses, slot, parts, content)
        layer: diff ID, "" where the step changed no file; slot: where in which Dockerfile it stood, to explain a miss;
        content: of a record that is found by a definition, the key by what it read
    mounts(number, name, text, size, created, used, uses)       cache mounts; the directory is named by the number

Only steps that ran here to their end are written (no poisoning by pulled images, CVE-2024-24557). WAL with
synchronous=NORMAL: a power cut may lose the newest rows, which costs a run, and never leaves a wrong one; a row whose
layer is gone counts as none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from dockyard.lib.durable import Spare, is_full, no_spare, removing

__all__ = ["MountRecord", "Records", "StepRecord"]

SCHEMA_VERSION = 2
_SCHEMA = """
DROP TABLE IF EXISTS steps;
DROP TABLE IF EXISTS mounts;
CREATE TABLE steps (key TEXT PRIMARY KEY, layer TEXT NOT NULL, size INTEGER NOT NULL, kind TEXT NOT NULL,
    text TEXT NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL, uses INTEGER NOT NULL, slot TEXT NOT NULL,
    parts TEXT NOT NULL, content TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE mounts (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, text TEXT NOT NULL,
    size INTEGER NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL, uses INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """``kind``: regular (made by RUN, COPY, WORKDIR), source.local (context files), meta (config only)."""

    key: str
    layer: str
    size: int
    kind: str
    text: str
    created: int
    used: int
    uses: int = 0
    slot: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    content: str = ""


@dataclass(frozen=True, slots=True)
class MountRecord:
    number: int
    name: str
    text: str
    size: int
    created: int
    used: int
    uses: int = 0


class Records:
    """Owned by the event loop's thread."""

    def __init__(self, path: Path, spare: Spare = no_spare) -> None:
        """``spare``: room on the disk for records of what is removed."""
        self._spare = spare
        path.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        if self._db.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:  # a cache: what is old goes
            self._db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        self.steps: dict[str, StepRecord] = {}
        self.mounts: dict[int, MountRecord] = {}
        self._slots: dict[str, str] = {}
        for row in self._db.execute("SELECT * FROM steps ORDER BY used"):
            key, layer, size, kind, text, created, used, uses, slot, parts, content = row
            values = msgspec.json.decode(parts)
            record = StepRecord(key, layer, size, kind, text, created, used, uses, slot, values, content)
            self.steps[record.key] = record
            if slot:
                self._slots[slot] = key
        for row in self._db.execute("SELECT * FROM mounts"):
            self.mounts[row[0]] = MountRecord(*row)
        self._touched: set[str] = set()

    def layers(self) -> set[str]:
        """Layers that the cache keeps."""
        return {record.layer for record in self.steps.values() if record.layer}

    def get(self, key: str) -> StepRecord | None:
        return self.steps.get(key)

    def last(self, slot: str) -> StepRecord | None:
        """What was made at this place of this Dockerfile before."""
        return self.steps.get(self._slots.get(slot, ""))

    def put(self, record: StepRecord) -> None:
        """``parts`` are kept for the newest record of a place only: they may name thousands of files."""
        changed = [record]
        if not record.slot:
            changed = [replace(record, parts={})]
        elif (before := self.last(record.slot)) is not None and before.key != record.key:
            changed.append(replace(before, parts={}))
        for each in changed:
            self.steps[each.key] = each
            self._touched.discard(each.key)
        if record.slot:
            self._slots[record.slot] = record.key
        self._write(changed)

    def _write(self, records: Iterable[StepRecord]) -> None:
        """A record that the disk has no room for is known until the engine ends, and then costs a run."""
        rows = [
            (r.key, r.layer, r.size, r.kind, r.text, r.created, r.used, r.uses, r.slot,
             msgspec.json.encode(r.parts).decode(), r.content)
            for r in records
        ]  # fmt: skip
        with _unless_full():
            self._whole("INSERT OR REPLACE INTO steps VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows)

    def _whole(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """All rows or none."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(sql, rows)
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # an error; SQLite has rolled back by itself when the disk is full
                self._db.execute("ROLLBACK")

    def touch(self, key: str, at: int) -> None:
        """Used now; on disk with the next ``flush``."""
        record = self.steps[key]
        self.steps[key] = replace(record, used=at, uses=record.uses + 1)
        self._touched.add(key)

    def flush(self) -> None:
        rows = [(self.steps[key].used, self.steps[key].uses, key) for key in self._touched if key in self.steps]
        self._touched.clear()
        if rows:
            with _unless_full():
                self._whole("UPDATE steps SET used=?, uses=? WHERE key=?", rows)

    def drop(self, keys: Iterable[str]) -> None:
        gone = [self.steps[key] for key in dict.fromkeys(keys) if key in self.steps]
        rows = [(record.key,) for record in gone]
        removing(lambda: self._whole("DELETE FROM steps WHERE key=?", rows), self._spare)
        for record in gone:
            del self.steps[record.key]
            if self._slots.get(record.slot) == record.key:
                del self._slots[record.slot]

    # -- cache mounts ---------------------------------------------------------------------------------------------

    def mounts_named(self, name: str) -> Iterator[MountRecord]:
        return (record for record in list(self.mounts.values()) if record.name == name)

    def add_mount(self, name: str, text: str, at: int) -> MountRecord:
        cursor = self._db.execute(
            "INSERT INTO mounts(name, text, size, created, used, uses) VALUES (?,?,0,?,?,0)", (name, text, at, at)
        )
        assert cursor.lastrowid is not None
        record = MountRecord(cursor.lastrowid, name, text, 0, at, at)
        self.mounts[record.number] = record
        return record

    def used_mount(self, number: int, size: int, at: int) -> None:
        record = self.mounts.get(number)
        if record is not None:
            self.mounts[number] = replace(record, size=size, used=at, uses=record.uses + 1)
            with _unless_full():
                self._db.execute("UPDATE mounts SET size=?, used=?, uses=uses+1 WHERE number=?", (size, at, number))

    def drop_mount(self, number: int) -> None:
        removing(lambda: self._db.execute("DELETE FROM mounts WHERE number=?", (number,)), self._spare)
        self.mounts.pop(number, None)

    def close(self) -> None:
        self.flush()
        self._db.close()


@contextmanager
def _unless_full() -> Iterator[None]:
    """What may be lost: the cache is right without it."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if not is_full(error):
            raise
