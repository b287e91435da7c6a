"""When a committed record must also be on the disk.

Every database here is SQLite in WAL mode with synchronous=FULL: what is committed survives a loss of power, for the price
of one fsync (0.3 ms on a quiet disk, 6 ms on a busy one). What goes with the boot anyway, a ``--rm`` container and all
that is recorded for it, needs to survive a killed daemon only, and that a commit without fsync does as well.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def commits(connection: sqlite3.Connection, *, durable: bool) -> Iterator[None]:
    """What is committed inside waits for the disk only if ``durable``. Not within a transaction."""
    if durable:
        yield
        return
    connection.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous=FULL")
