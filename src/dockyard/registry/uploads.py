"""From bytes on a socket to a blob that a repository shows.

    begin -> row in `uploads`, size 0                     small (<= inline_max): its bytes are in the row
    append at offset = size -> size grows                 larger: its bytes are in the blob store
    finish: digest proven -> commit in the store -> one transaction: blob, link, upload gone
    a crash before the transaction leaves an upload that can be continued, or an orphan that the collector finds
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dockyard.errors import Cancelled, DockyardError
from dockyard.registry.core import Actor, Core, audit, check_quota, ensure_repository, repository_id
from dockyard.registry.database import LATER_SECONDS, Row, Tx
from dockyard.registry.errors import (
    BLOB_UNKNOWN,
    DIGEST_INVALID,
    OUT_OF_ORDER,
    TOO_MANY,
    UPLOAD_INVALID,
    UPLOAD_UNKNOWN,
)
from dockyard.registry.names import digest_of
from dockyard.registry.ports import Ingest
from dockyard.registry.webhooks import Event, emit

_RECEIVING_MAX = 256  # uploads that receive at the same time; each holds at most 2 MiB
_ID_BYTES, _ID_LENGTH = 18, 24
_INLINE_HASHED = 64 * 1024  # hashing more than this on the loop would be felt (0.1 ms)


@dataclass(frozen=True, slots=True)
class Upload:
    id: str
    repository: str
    algorithm: str
    size: int
    content: bytes | None
    """The bytes themselves while they are few."""


@dataclass(frozen=True, slots=True)
class Blob:
    digest: str
    size: int
    location: str
    content: bytes | None


class Uploads:
    def __init__(self, core: Core) -> None:
        self.core = core
        self._busy: set[str] = set()
        self._begun: dict[str, Upload] = {}
        """Uploads whose row is not on disk yet."""
        self._slots = asyncio.Semaphore(_RECEIVING_MAX)

    # ---- life of an upload

    async def begin(self, name: str, actor: Actor, algorithm: str = "sha256") -> Upload:
        """Raises QUOTA when the namespace is full already."""
        if algorithm not in {"sha256", "sha512"}:
            raise DIGEST_INVALID(reason=f"algorithm {algorithm[:40]!r} is not supported")
        self.core.blobs.check_room()
        upload = Upload(secrets.token_urlsafe(_ID_BYTES), name, algorithm, 0, b"")
        now = self.core.clock()

        def insert(tx: Tx) -> None:
            tx.run(
                "INSERT INTO uploads (id, repository, account, algorithm, size, content, started, touched)"
                " VALUES (?, ?, ?, ?, 0, ?, ?, ?)",
                (upload.id, name, actor.name, algorithm, b"", now, now),
            )

        await self.core.db.read(lambda tx: check_quota(tx, name, 1))
        # Nothing is acknowledged yet but a name: it need not wait for the disk. Half of a small push was this wait.
        self._begun[upload.id] = upload
        await self.core.db.write_later(insert, lambda: self._forget(upload.id))
        return upload

    def _forget(self, upload: str) -> None:
        self._begun.pop(upload, None)

    async def get(self, name: str, upload: str) -> Upload:
        """Raises UPLOAD_UNKNOWN, also for an upload of another repository."""
        begun = self._begun.get(upload)
        if begun is not None and begun.repository == name:
            return begun
        row = await self._find(upload)
        if row is None and len(upload) == _ID_LENGTH:  # another process on this file may have begun it just now
            await asyncio.sleep(2 * LATER_SECONDS)
            row = await self._find(upload)
        if row is None or row[0] != name:
            raise UPLOAD_UNKNOWN(upload=upload[:64])
        return Upload(upload, row[0], row[1], row[2], None if row[3] is None else bytes(row[3]))

    async def _find(self, upload: str) -> Row | None:
        return await self.core.db.read(
            lambda tx: tx.one("SELECT repository, algorithm, size, content FROM uploads WHERE id = ?", (upload,))
        )

    async def cancel(self, name: str, upload: str) -> None:
        await self.get(name, upload)
        await self.core.db.write(lambda tx: tx.run("DELETE FROM uploads WHERE id = ?", (upload,)))
        await self.core.blobs.abandon(upload)

    @contextlib.asynccontextmanager
    async def _receiving(self, upload: str) -> AsyncIterator[None]:
        if upload in self._busy:
            raise UPLOAD_INVALID(reason="another request is writing to this upload")
        if self._slots.locked():
            raise TOO_MANY(what="uploads")
        self._busy.add(upload)
        try:
            async with self._slots:
                yield
        finally:
            self._busy.discard(upload)

    async def append(self, name: str, upload: str, begin: int | None, end: int | None,
                     data: AsyncIterator[bytes]) -> Upload:  # fmt: skip
        """One chunk; what arrived of it is kept even when the client leaves. Raises OUT_OF_ORDER, UPLOAD_INVALID."""
        async with self._receiving(upload):
            row = await self.get(name, upload)
            if begin is not None and begin != row.size:
                raise OUT_OF_ORDER(begin=begin, offset=row.size)
            after = await self._receive(row, data)
            if begin is not None and end is not None and after.size != end + 1:
                raise UPLOAD_INVALID(reason=f"Content-Range says {end + 1 - begin} bytes, {after.size - row.size} came")
            return after

    async def _receive(self, row: Upload, data: AsyncIterator[bytes]) -> Upload:
        limit = self.core.config.inline_max
        held = bytearray(row.content or b"")
        left: Cancelled | None = None
        if row.content is not None:
            left = await self._collect(held, data, limit)
            if len(held) <= limit:
                after = Upload(row.id, row.repository, row.algorithm, len(held), bytes(held))
                await self._record(row, after)
                if left is not None:
                    raise left
                return after
        ingest = await self.core.blobs.begin(row.id, 0 if row.content is not None else row.size, row.algorithm)
        try:
            if await self._moved(row):
                raise UPLOAD_INVALID(reason="another replica is writing to this upload")
            if row.content is not None:
                await ingest.write(bytes(held))
            size, left = await self._spill(ingest, data, left)
        except DockyardError:
            with contextlib.suppress(DockyardError):
                await ingest.drop()
            raise
        finally:
            await ingest.close()
        after = Upload(row.id, row.repository, row.algorithm, size, None)
        await self._record(row, after)
        if left is not None:
            raise left
        return after

    async def _moved(self, row: Upload) -> bool:
        """Another replica went on with it before we held the store's lock: nothing that it acknowledged may be touched."""
        if row.id in self._begun:  # not on disk yet: nobody else can know it
            return False
        now = await self._find(row.id)
        return now is None or now[2] != row.size

    async def _collect(self, held: bytearray, data: AsyncIterator[bytes], limit: int) -> Cancelled | None:
        """Take bytes until the end or just beyond the limit."""
        try:
            async for piece in data:
                held += piece
                if len(held) > limit:
                    break
        except Cancelled as error:
            return error
        return None

    async def _spill(
        self, ingest: Ingest, data: AsyncIterator[bytes], left: Cancelled | None
    ) -> tuple[int, Cancelled | None]:
        if left is None:
            try:
                async for piece in data:
                    await ingest.write(piece)
            except Cancelled as error:
                left = error
        return await ingest.sync(), left

    async def _record(self, before: Upload, after: Upload) -> None:
        now = self.core.clock()
        changed = await self.core.db.write(
            lambda tx: tx.run(
                "UPDATE uploads SET size = ?, content = ?, touched = ? WHERE id = ? AND size = ?",
                (after.size, after.content, now, before.id, before.size),
            )
        )
        if changed != 1:
            raise UPLOAD_INVALID(reason="another replica is writing to this upload")

    # ---- the end of an upload

    async def finish(self, name: str, upload: str, digest: str, actor: Actor) -> Blob:
        """Raises DIGEST_INVALID when the bytes are not what the digest says; the upload can be continued then."""
        async with self._receiving(upload):
            row = await self.get(name, upload)
            if row.content is not None:
                await self._check_inline(row.content, digest)
                blob = Blob(digest, row.size, "", row.content)
            else:
                algorithm = digest.partition(":")[0]
                actual = await self.core.blobs.digest(upload, algorithm, row.size)
                if actual != digest:
                    raise DIGEST_INVALID(reason=f"content is {actual}, not {digest}")
                blob = Blob(digest, row.size, await self.core.blobs.commit(upload, digest), None)
            return await self._publish(name, blob, actor, upload)

    async def put_whole(
        self, name: str, digest: str, data: bytes, actor: Actor, upload: str | None = None
    ) -> Blob:
        """A small blob in one request, at the end of an empty upload or without any. For up to inline_max bytes."""
        self.core.blobs.check_room()
        await self._check_inline(data, digest)
        return await self._publish(name, Blob(digest, len(data), "", data), actor, upload)

    async def _check_inline(self, data: bytes, digest: str) -> None:
        algorithm = digest.partition(":")[0]
        if len(data) <= _INLINE_HASHED:
            actual = digest_of(data, algorithm)
        else:
            hasher = await asyncio.to_thread(hashlib.new, algorithm, data)
            actual = f"{algorithm}:{hasher.hexdigest()}"
        if actual != digest:
            raise DIGEST_INVALID(reason=f"content is {actual}, not {digest}")

    async def _publish(self, name: str, blob: Blob, actor: Actor, upload: str | None) -> Blob:
        now = self.core.clock()

        def insert(tx: Tx) -> str:
            repository, made = ensure_repository(tx, name, now, public=self.core.config.public)
            check_quota(tx, name, 0 if _linked(tx, name, blob.digest) else blob.size)
            row = tx.one(
                "INSERT INTO blobs (digest, size, location, content, created, touched) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (digest) DO UPDATE SET touched = excluded.touched RETURNING location",
                (blob.digest, blob.size, blob.location, blob.content, now, now),
            )
            link(tx, repository, blob.digest, now)
            if upload is not None:
                tx.run("DELETE FROM uploads WHERE id = ?", (upload,))
            if made:
                emit(tx, now, Event("REPO_CREATED", name, actor=actor.name))
                tx.changed()
            assert row is not None
            return str(row[0])

        try:
            kept = await self.core.db.write(insert)
        except Exception:
            if blob.location:
                await self.core.blobs.delete(blob.location)
            raise
        if blob.location and kept != blob.location:  # someone else's bytes of this digest were first
            await self.core.blobs.delete(blob.location)
        return blob

    # ---- blobs of a repository

    async def blob(self, name: str, digest: str) -> Blob:
        """Raises BLOB_UNKNOWN unless the repository shows it."""
        blob = await self.core.db.read(lambda tx: find_blob(tx, name, digest))
        if blob is None:
            raise BLOB_UNKNOWN(digest=digest)
        return blob

    async def mount(self, name: str, digest: str, sources: list[str], actor: Actor) -> Blob | None:
        """Show a blob that one of the source repositories shows. None: an ordinary upload has to begin."""
        now = self.core.clock()

        def insert(tx: Tx) -> Blob | None:
            for source in sources:
                blob = find_blob(tx, source, digest)
                if blob is None or not _touch(tx, digest, now):
                    continue
                repository, made = ensure_repository(tx, name, now, public=self.core.config.public)
                check_quota(tx, name, 0 if _linked(tx, name, digest) else blob.size)
                link(tx, repository, digest, now)
                if made:
                    emit(tx, now, Event("REPO_CREATED", name, actor=actor.name))
                    tx.changed()
                return blob
            return None

        return await self.core.db.write(insert)

    async def unlink(self, name: str, digest: str, actor: Actor) -> None:
        """The repository no longer shows it; the collector frees its bytes when nobody does."""
        now = self.core.clock()

        def delete(tx: Tx) -> None:
            repository = repository_id(tx, name)
            if tx.run("DELETE FROM links WHERE repository = ? AND digest = ?", (repository, digest)) == 0:
                raise BLOB_UNKNOWN(digest=digest)
            audit(tx, now, actor, "blob.delete", name, digest)
            tx.changed()

        await self.core.db.write(delete)


def find_blob(tx: Tx, name: str, digest: str) -> Blob | None:
    row = tx.one(
        "SELECT b.size, b.location, b.content FROM repositories r JOIN links l ON l.repository = r.id"
        " JOIN blobs b ON b.digest = l.digest WHERE r.name = ? AND l.digest = ?",
        (name, digest),
    )
    return None if row is None else Blob(digest, row[0], row[1], None if row[2] is None else bytes(row[2]))


def _touch(tx: Tx, digest: str, now: float) -> bool:
    """Take the row's lock and renew its grace; False when the collector was first."""
    return tx.run("UPDATE blobs SET touched = ? WHERE digest = ?", (now, digest)) == 1


def link(tx: Tx, repository: int, digest: str, now: float) -> None:
    tx.run(
        "INSERT INTO links (repository, digest, touched) VALUES (?, ?, ?)"
        " ON CONFLICT (repository, digest) DO UPDATE SET touched = excluded.touched",
        (repository, digest, now),
    )


def _linked(tx: Tx, name: str, digest: str) -> bool:
    """Does the namespace pay for it already?"""
    return tx.one(
        "SELECT 1 FROM links l JOIN repositories r ON r.id = l.repository JOIN repositories m"
        " ON m.namespace = r.namespace WHERE m.name = ? AND l.digest = ?",
        (name, digest),
    ) is not None  # fmt: skip
