"""Garbage collection while everybody works: small transactions, each deciding again at the moment it deletes.

    uploads nobody continued -> [untagged manifests] -> links no manifest needs -> blobs no repository shows -> orphans
    -> old lines of the records

Safety. What was pushed or referred to within the grace window is left alone. Pushing takes the row's lock before it
relies on a link or blob (an UPDATE of `touched`), and every DELETE here repeats its conditions, so whoever is second
sees the first. Rows go before bytes: a crash between leaves an orphan file, which the last step finds; a location is
never used twice, so that step can never meet bytes that someone is about to record (they are younger than the grace).

One collection at a time for all replicas: the `jobs` row is the lease, `beat` its heart. It can be stopped between any
two batches and loses nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from dockyard.errors import DockyardError
from dockyard.registry.core import Actor, Core, audit, repeat
from dockyard.registry.database import Row, Tx
from dockyard.registry.errors import TOO_MANY
from dockyard.registry.retention import Retention
from dockyard.registry.settings import read_setting

log = logging.getLogger("dockyard.registry.gc")

BATCH = 500
LEASE_SECONDS = 120.0
_LOOK_SECONDS = 60.0
_DEFAULT_EVERY = 24 * 3600.0
_SCHEDULE = Actor("schedule")

_UNNEEDED_LINK = (
    "l.touched < ? AND NOT EXISTS (SELECT 1 FROM edges e WHERE e.repository = l.repository AND e.digest = l.digest"
    " AND e.kind = 'blob')"
)
_UNSHOWN_BLOB = "b.touched < ? AND NOT EXISTS (SELECT 1 FROM links l WHERE l.digest = b.digest)"
_UNTAGGED = (
    "m.touched < ? AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository = m.repository AND t.digest = m.digest)"
    " AND NOT EXISTS (SELECT 1 FROM edges e WHERE e.repository = m.repository AND e.digest = m.digest"
    " AND e.kind = 'manifest') AND (m.subject = '' OR NOT EXISTS (SELECT 1 FROM manifests s WHERE"
    " s.repository = m.repository AND s.digest = m.subject))"
)


@dataclass(slots=True)
class Progress:
    job: int
    dry_run: bool
    uploads: int = 0
    manifests: int = 0
    links: int = 0
    blobs: int = 0
    orphans: int = 0
    freed: int = 0

    def sentence(self) -> str:
        counts = (
            (self.uploads, "abandoned upload"), (self.manifests, "untagged manifest"), (self.links, "unneeded link"),
            (self.blobs, "blob"), (self.orphans, "orphan file"),
        )  # fmt: skip
        found = [f"{count:,} {word}{'' if count == 1 else 's'}" for count, word in counts if count]
        if not found:
            return "nothing to remove"
        return f"{'would remove' if self.dry_run else 'removed'} {', '.join(found)}: {self.freed:,} bytes"


class Stopped(Exception):
    """Somebody asked the job to stop, or its lease is gone."""


class Collector:
    def __init__(self, core: Core, retention: Retention) -> None:
        self.core = core
        self.retention = retention

    async def run(self) -> None:
        await repeat(_LOOK_SECONDS, self.by_schedule, "collect")

    async def by_schedule(self) -> None:
        """Retention, then collection; by the setting `gc_every_seconds` (0: never), counted from the last run of any
        replica."""

        def due(tx: Tx) -> bool:
            every = float(read_setting(tx, "gc_every_seconds", str(_DEFAULT_EVERY)))
            row = tx.one("SELECT MAX(started) FROM jobs WHERE kind = 'gc'")
            last = 0.0 if row is None or row[0] is None else float(row[0])
            return every > 0 and self.core.clock() - last >= every

        if await self.core.db.read(due):
            await self.retention.run_all(_SCHEDULE)
            progress = await self.begin(_SCHEDULE)
            untagged = await self.core.db.read(lambda tx: read_setting(tx, "untagged_seconds"))
            await self.collect(progress, untagged_seconds=float(untagged) if untagged else None)

    async def begin(self, actor: Actor, *, dry_run: bool = False) -> Progress:
        """Take the lease. Raises TOO_MANY while another collection runs."""
        now = self.core.clock()

        def insert(tx: Tx) -> int:
            tx.run("UPDATE jobs SET state = 'lost', finished = ? WHERE kind = 'gc' AND state = 'running' AND beat < ?",
                   (now, now - LEASE_SECONDS))  # fmt: skip
            if tx.one("SELECT 1 FROM jobs WHERE kind = 'gc' AND state = 'running'") is not None:
                raise TOO_MANY(what="collections at the same time")
            audit(tx, now, actor, "gc.start", "", "dry run" if dry_run else "")
            row = tx.one(
                "INSERT INTO jobs (kind, state, dry_run, actor, started, beat) VALUES ('gc', 'running', ?, ?, ?, ?)"
                " RETURNING id",
                (int(dry_run), actor.name, now, now),
            )
            assert row is not None
            return int(row[0])

        return Progress(await self.core.db.write(insert), dry_run)

    async def stop(self, job: int) -> None:
        await self.core.db.write(lambda tx: tx.run("UPDATE jobs SET stop = 1 WHERE id = ?", (job,)))

    async def collect(self, progress: Progress, *, untagged_seconds: float | None = None) -> Progress:
        """Do it all. The outcome stays in the job's row, also when it fails."""
        state = "failed"
        try:
            await self._uploads(progress)
            if untagged_seconds is not None:
                await self._manifests(progress, self.core.clock() - untagged_seconds)
            await self._links(progress)
            await self._blobs(progress)
            await self._orphans(progress)
            await self._records(progress)
            state = "done"
        except Stopped:
            state = "stopped"
        finally:
            now = self.core.clock()
            sentence = progress.sentence()
            with contextlib.suppress(DockyardError):
                await self.core.db.write(
                    lambda tx: tx.run(
                        "UPDATE jobs SET state = ?, finished = ?, freed = ?, log = ? WHERE id = ?",
                        (state, now, progress.freed, sentence, progress.job),
                    )
                )
            log.info("gc %s job=%d %s", state, progress.job, sentence)
        return progress

    async def _beat(self, progress: Progress) -> None:
        now = self.core.clock()

        def update(tx: Tx) -> bool:
            done = progress.uploads + progress.manifests + progress.links + progress.blobs + progress.orphans
            return tx.run(
                "UPDATE jobs SET beat = ?, done = ?, freed = ? WHERE id = ? AND stop = 0 AND state = 'running'",
                (now, done, progress.freed, progress.job),
            ) == 1  # fmt: skip

        if not await self.core.db.write(update):
            raise Stopped

    async def _batches(
        self, progress: Progress, query: Callable[[Tx, tuple[str, int]], list[tuple[str, int, int]]]
    ) -> AsyncIterator[list[tuple[str, int, int]]]:
        """Candidates as (digest, owner id, size), in key order, a batch at a time, with a heartbeat before each."""
        last = ("", -1)
        while True:
            await self._beat(progress)
            batch = await self.core.db.search(lambda tx, last=last: query(tx, last))  # type: ignore[misc]
            if not batch:
                return
            yield batch
            last = (batch[-1][0], batch[-1][1])

    async def _uploads(self, progress: Progress) -> None:
        before = self.core.clock() - self.core.config.upload_seconds
        rows = await self.core.db.search(
            lambda tx: tx.all("SELECT id, size FROM uploads WHERE touched < ? ORDER BY id", (before,))
        )
        for upload, size in rows:
            progress.uploads += 1
            progress.freed += size
            if progress.dry_run:
                continue
            gone = await self.core.db.write(
                lambda tx, upload=upload: tx.run(  # type: ignore[misc]
                    "DELETE FROM uploads WHERE id = ? AND touched < ?", (upload, before)
                )
            )
            if gone:
                await self.core.blobs.abandon(upload)

    async def _manifests(self, progress: Progress, before: float) -> None:
        def query(tx: Tx, last: tuple[str, int]) -> list[tuple[str, int, int]]:
            return [
                (r[0], r[1], r[2])
                for r in tx.all(
                    f"SELECT m.digest, m.id, m.size FROM manifests m WHERE {_UNTAGGED} AND (m.digest, m.id) > (?, ?)"
                    " ORDER BY m.digest, m.id LIMIT ?",
                    (before, *last, BATCH),
                )
            ]

        def delete(tx: Tx, batch: list[tuple[str, int, int]]) -> int:
            tx.changed()
            statement = f"DELETE FROM manifests AS m WHERE m.id = ? AND {_UNTAGGED}"
            return sum(tx.run(statement, (owner, before)) for _, owner, _ in batch)

        async for batch in self._batches(progress, query):
            progress.manifests += len(batch) if progress.dry_run else await self._write(delete, batch)

    async def _write(
        self, work: Callable[[Tx, list[tuple[str, int, int]]], int], batch: list[tuple[str, int, int]]
    ) -> int:
        return await self.core.db.write(lambda tx: work(tx, batch))

    async def _links(self, progress: Progress) -> None:
        before = self.core.clock() - self.core.config.grace_seconds

        def query(tx: Tx, last: tuple[str, int]) -> list[tuple[str, int, int]]:
            return [
                (r[0], r[1], 0)
                for r in tx.all(
                    f"SELECT l.digest, l.repository FROM links l WHERE {_UNNEEDED_LINK}"
                    " AND (l.digest, l.repository) > (?, ?) ORDER BY l.digest, l.repository LIMIT ?",
                    (before, *last, BATCH),
                )
            ]

        def delete(tx: Tx, batch: list[tuple[str, int, int]]) -> int:
            tx.changed()
            return sum(
                tx.run(f"DELETE FROM links AS l WHERE l.repository = ? AND l.digest = ? AND {_UNNEEDED_LINK}",
                       (owner, digest, before)) for digest, owner, _ in batch
            )  # fmt: skip

        async for batch in self._batches(progress, query):
            progress.links += len(batch) if progress.dry_run else await self._write(delete, batch)

    async def _blobs(self, progress: Progress) -> None:
        before = self.core.clock() - self.core.config.grace_seconds

        def query(tx: Tx, last: tuple[str, int]) -> list[tuple[str, int, int]]:
            return [
                (r[0], 0, r[1])
                for r in tx.all(
                    f"SELECT b.digest, b.size FROM blobs b WHERE {_UNSHOWN_BLOB} AND b.digest > ?"
                    " ORDER BY b.digest LIMIT ?",
                    (before, last[0], BATCH),
                )
            ]

        def delete(tx: Tx, digest: str) -> tuple[str, int] | None:
            row = tx.one(
                f"DELETE FROM blobs AS b WHERE b.digest = ? AND {_UNSHOWN_BLOB} RETURNING location, size",
                (digest, before),
            )
            return None if row is None else (row[0], row[1])

        async for batch in self._batches(progress, query):
            if progress.dry_run:
                progress.blobs += len(batch)
                progress.freed += sum(size for _, _, size in batch)
                continue
            rows = await self.core.db.write(lambda tx, batch=batch: [delete(tx, d) for d, _, _ in batch])  # type: ignore[misc]
            for row in rows:
                if row is None:
                    continue
                progress.blobs += 1
                progress.freed += row[1]
                if row[0]:
                    await self.core.blobs.delete(row[0])

    async def _orphans(self, progress: Progress) -> None:
        """Bytes that no row knows: what a crash left."""
        now = self.core.clock()
        checked = 0
        async for stored in self.core.blobs.list("blobs"):
            checked += 1
            if checked % BATCH == 0:
                await self._beat(progress)
            if stored.modified >= now - max(self.core.config.grace_seconds, 0):
                continue
            digest = _digest_in(stored.location)
            known = await self._one("SELECT location FROM blobs WHERE digest = ?", digest)
            if known is not None and known[0] == stored.location:
                continue
            progress.orphans += 1
            progress.freed += stored.size
            if not progress.dry_run:
                await self.core.blobs.delete(stored.location)
        async for stored in self.core.blobs.list("uploads"):
            if stored.modified >= now - self.core.config.upload_seconds:
                continue
            if await self._one("SELECT 1 FROM uploads WHERE id = ?", stored.location) is None:
                progress.orphans += 1
                progress.freed += stored.size
                if not progress.dry_run:
                    await self.core.blobs.abandon(stored.location)

    async def _records(self, progress: Progress) -> None:
        """Old lines of the audit log and of the history of deliveries."""

        def delete(tx: Tx) -> None:
            now = self.core.clock()
            for name, table, column in (("audit_days", "audit", "at"), ("deliveries_days", "deliveries", "finished")):
                days = read_setting(tx, name)
                if days:
                    tx.run(f"DELETE FROM {table} WHERE {column} < ?", (now - float(days) * 86400.0,))

        if not progress.dry_run:
            await self.core.db.write(delete)

    async def _one(self, sql: str, key: str) -> Row | None:
        return await self.core.db.search(lambda tx: tx.one(sql, (key,)))


def _digest_in(location: str) -> str:
    """`sha256/ab/<hex>-<nonce>` -> `sha256:<hex>`."""
    algorithm, _, rest = location.partition("/")
    return f"{algorithm}:{rest.rpartition('/')[2].partition('-')[0]}"
