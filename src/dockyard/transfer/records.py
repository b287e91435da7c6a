"""Which compressed blobs a layer is known by, and where: lets a push mount or skip instead of upload.

``transfer.db``, one table; only a cache of what registries have told, so losing it costs time and nothing else::

    known(diff_id, digest, size, media_type, repository, seen)     primary key (diff_id, digest, repository)
    repository = domain/path in full form       seen = serial number, newest first
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dockyard.oci import Digest

MAX_ROWS_PER_LAYER = 50
"""As dockerd's maxMetadataRecords: a base layer lives in any number of repositories."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS known (
  diff_id TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
  repository TEXT NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (diff_id, digest, repository)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Known:
    diff_id: Digest
    digest: Digest
    size: int
    media_type: str
    repository: str


class Records:
    """Safe in threads."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL").fetchone()
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def add(self, rows: Iterable[Known]) -> None:
        with self._lock, self._db:
            self._db.execute("BEGIN")
            serial = self._db.execute("SELECT coalesce(max(seen), 0) FROM known").fetchone()[0] + 1
            for row in rows:
                self._db.execute(
                    "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?)",
                    (row.diff_id, row.digest, row.size, row.media_type, row.repository, serial),
                )
                self._db.execute(
                    "DELETE FROM known WHERE diff_id = ?1 AND seen < (SELECT min(seen) FROM "
                    "(SELECT seen FROM known WHERE diff_id = ?1 ORDER BY seen DESC LIMIT ?2))",
                    (row.diff_id, MAX_ROWS_PER_LAYER),
                )

    def known(self, diff_id: Digest) -> list[Known]:
        """Newest first."""
        query = "SELECT diff_id, digest, size, media_type, repository FROM known WHERE diff_id = ? ORDER BY seen DESC"
        with self._lock:
            return [Known(*row) for row in self._db.execute(query, (diff_id,))]

    def forget(self, row: Known) -> None:
        with self._lock:
            self._db.execute(
                "DELETE FROM known WHERE diff_id = ? AND digest = ? AND repository = ?",
                (row.diff_id, row.digest, row.repository),
            )
