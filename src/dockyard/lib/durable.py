"""When a committed record must also be on the disk.

Every database here is SQLite in WAL mode with synchronous=FULL: what is committed survives a loss of power, for the price
of one fsync (0.3 ms on a quiet disk, 6 ms on a busy one). What goes with the boot anyway, a ``--rm`` container and all
that is recorded for it, needs to survive a killed daemon only, and that a commit without fsync does as well.

And how a full disk becomes empty again: that something goes must be recorded first, and a record takes room. ``removing``
asks for that room (``engine.reserve`` keeps some) when the disk has none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
Spare = Callable[[], bool]
"""Gives room on the disk away; False when there is none to give."""


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


def no_spare() -> bool:
    """For who keeps no room."""
    return False


def is_full(error: sqlite3.OperationalError) -> bool:
    """Whether the disk (or a quota) had no room for it."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL


def removing(work: Callable[[], T], spare: Spare) -> T:
    """``work`` records that something goes, all of it or nothing: on a full disk it is done again with the room that
    ``spare`` gives. Raises sqlite3.OperationalError as ``work`` does."""
    try:
        return work()
    except sqlite3.OperationalError as error:
        if not is_full(error) or not spare():
            raise
        return work()
