"""A disk that is full, told as what it is wherever a build meets it."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import CONTEXT_TOO_BIG, NO_SPACE

__all__ = ["build_of_full_disk", "context_of_full_disk", "room_for_context"]

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


def _is_full(error: OSError | sqlite3.OperationalError) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode == sqlite3.SQLITE_FULL
    return error.errno in FULL


@contextmanager
def context_of_full_disk() -> Iterator[None]:
    """Around writing what a client sends. Raises Exhausted."""
    try:
        yield
    except OSError as error:
        if not _is_full(error):
            raise
        raise CONTEXT_TOO_BIG(what="the content", limit="the free space of the disk") from None


@contextmanager
def build_of_full_disk() -> Iterator[None]:
    """Around a whole build: a directory, a script, a row of the cache that could not be written. Raises Exhausted."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if not _is_full(error):
            raise
        raise NO_SPACE() from error


def room_for_context(spool: int, limit: int) -> int:
    """Bytes that may come into ``spool`` now: an endless or hugely compressed context must not fill the disk for
    everybody else."""
    free = os.fstatvfs(spool)
    return min(limit, free.f_bavail * free.f_frsize * 9 // 10)
