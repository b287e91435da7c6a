import sqlite3
from pathlib import Path

import pytest

from dockyard.lib.durable import commits

NORMAL, FULL = 1, 2


def mode(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("PRAGMA synchronous").fetchone()[0]
    return found


def test_only_what_is_fleeting_skips_the_sync(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    with commits(connection, durable=True):
        assert mode(connection) == FULL
    with commits(connection, durable=False):
        assert mode(connection) == NORMAL
    assert mode(connection) == FULL
    with pytest.raises(sqlite3.OperationalError), commits(connection, durable=False):
        connection.execute("no such statement")
    assert mode(connection) == FULL
    connection.close()
