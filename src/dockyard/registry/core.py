"""What all services of the registry share, and the few queries that all of them need."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from dockyard.errors import DockyardError
from dockyard.registry.database import Database, Tx
from dockyard.registry.errors import NAME_UNKNOWN, QUOTA
from dockyard.registry.names import namespace_of
from dockyard.registry.ports import BlobStore

log = logging.getLogger("dockyard.registry")

MANIFEST_MAX = 4 * 1024 * 1024  # the least that the specification allows a registry to refuse
INLINE_MAX = 16 * 1024
"""Blobs up to this size rest in the database: no file, no fsync of their own, no request to a bucket. 16 KiB holds
nearly every image configuration; SQLite reads rows of that size faster than files (measured by its authors too)."""
UPLOAD_SECONDS = 24 * 3600.0
GRACE_SECONDS = 2 * 3600.0
"""What a client has pushed but not yet referred to is safe for so long. Harbor's window is the same."""


@dataclass(frozen=True, slots=True)
class Config:
    """Fixed while a daemon runs. What administrators change at run time is in the `settings` table."""

    service: str = "dockyard-registry"
    realm: str = ""
    """URL of the token endpoint as clients see it; empty: from the request's Host."""
    auth: str = "accounts"
    """``accounts``, or ``none``: everybody may do everything (loopback and tests)."""
    public: bool = False
    """Visibility of a repository that a push creates."""
    delete: bool = True
    grace_seconds: float = GRACE_SECONDS
    upload_seconds: float = UPLOAD_SECONDS
    token_seconds: int = 300
    inline_max: int = INLINE_MAX


@dataclass(slots=True)
class Core:
    db: Database
    blobs: BlobStore
    config: Config = field(default_factory=Config)
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does it, for records."""

    name: str = ""
    address: str = ""


async def repeat(seconds: float, work: Callable[[], Awaitable[object]], what: str) -> None:
    """Do it every so often, for ever. What fails is logged and tried again: a worker of the registry never ends by an
    error, whatever somebody wrote into a row that it reads."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except DockyardError as error:
            log.warning("cannot %s: %s", what, error)
        except Exception:
            log.exception("cannot %s", what)


def repository_id(tx: Tx, name: str) -> int:
    """Raises NAME_UNKNOWN."""
    row = tx.one("SELECT id FROM repositories WHERE name = ?", (name,))
    if row is None:
        raise NAME_UNKNOWN(name=name)
    return int(row[0])


def ensure_repository(tx: Tx, name: str, now: float, *, public: bool) -> tuple[int, bool]:
    """(id, made now). Pushing creates, as on Docker Hub."""
    row = tx.one("SELECT id FROM repositories WHERE name = ?", (name,))
    if row is not None:
        return int(row[0]), False
    row = tx.one(
        "INSERT INTO repositories (name, namespace, public, created, updated) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET updated = excluded.updated RETURNING id",
        (name, namespace_of(name), int(public), now, now),
    )
    assert row is not None
    return int(row[0]), True


def used_bytes(tx: Tx, namespace: str) -> int:
    """Every blob once, however many repositories of the namespace show it."""
    row = tx.one(
        "SELECT COALESCE(SUM(size), 0) FROM blobs WHERE digest IN (SELECT l.digest FROM links l"
        " JOIN repositories r ON r.id = l.repository WHERE r.namespace = ?)",
        (namespace,),
    )
    return 0 if row is None else int(row[0])


def check_quota(tx: Tx, name: str, size: int) -> None:
    """Raises QUOTA when `size` more bytes do not fit into the namespace of `name`."""
    namespace = namespace_of(name)
    row = tx.one("SELECT quota FROM accounts WHERE name = ?", (namespace,))
    if row is None or row[0] is None:
        return
    used = used_bytes(tx, namespace)
    if used + size > row[0]:
        raise QUOTA(repository=name, namespace=namespace, used=used, quota=row[0], size=size)


def audit(
    tx: Tx, now: float, actor: Actor, action: str, object_: str, detail: str = "", *, refused: bool = False
) -> None:
    tx.run(
        "INSERT INTO audit (at, actor, address, action, object, detail, refused) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (now, actor.name, actor.address, action, object_, detail[:2000], int(refused)),
    )
