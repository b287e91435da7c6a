"""Mirroring between registries: poll (remote -> here) and push (here -> remote), by tag pattern, repeated.

Only what differs is copied: tags by digest, blobs that are missing. A manifest is written after everything it refers
to, on either side.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from dockyard.errors import DockyardError, NotFound
from dockyard.registry.content import Content
from dockyard.registry.core import Actor, Core, repeat
from dockyard.registry.database import Tx
from dockyard.registry.errors import BLOB_UNKNOWN, THING_UNKNOWN, UPSTREAM_FAILED
from dockyard.registry.manifest import parse_manifest
from dockyard.registry.remote import Remote
from dockyard.registry.uploads import Uploads
from dockyard.registry.webhooks import Event, emit

log = logging.getLogger("dockyard.registry.mirror")

_LOOK_SECONDS = 5.0
_LANES = 4
_ACTOR = Actor("mirror")
_DEPTH_MAX = 4  # an index of indexes; deeper nesting is somebody's joke


@dataclass(frozen=True, slots=True)
class Mirror:
    id: int
    repository: str
    direction: str
    remote: str
    """Scheme, host and repository: https://registry.example/team/app."""
    tags: str
    username: str
    password: str
    every_seconds: float


class Mirrors:
    def __init__(self, core: Core, content: Content, uploads: Uploads) -> None:
        self.core = core
        self.content = content
        self.uploads = uploads
        self._lane = ThreadPoolExecutor(_LANES, thread_name_prefix="registry-mirror")

    async def run(self) -> None:
        await repeat(_LOOK_SECONDS, self.copy_due, "mirror")

    async def copy_due(self) -> None:
        """Side by side: a remote that hangs holds up nobody else's mirror (they share the lanes)."""
        await asyncio.gather(*(self.copy(mirror) for mirror in await self._due()))

    async def _due(self) -> list[Mirror]:
        """Due mirrors, each leased by moving `last`: of several replicas one gets it."""
        now = self.core.clock()
        due = "active = 1 AND (last IS NULL OR last + every_seconds <= ?)"
        ids = await self.core.db.read(lambda tx: tx.all(f"SELECT id FROM mirrors WHERE {due}", (now,)))
        if not ids:
            return []
        rows = await self.core.db.write(
            lambda tx: [
                row for (id_,) in ids
                for row in tx.all(
                    f"UPDATE mirrors SET last = ? WHERE id = ? AND {due} RETURNING id, repository, direction, remote,"
                    " tags, username, password, every_seconds",
                    (now, id_, now),
                )
            ]
        )  # fmt: skip
        return [Mirror(*row) for row in rows]

    async def get(self, id_: int) -> Mirror:
        row = await self.core.db.read(
            lambda tx: tx.one(
                "SELECT id, repository, direction, remote, tags, username, password, every_seconds FROM mirrors"
                " WHERE id = ?",
                (id_,),
            )
        )
        if row is None:
            raise THING_UNKNOWN(what="mirror", name=str(id_))
        return Mirror(*row)

    async def copy(self, mirror: Mirror) -> str:
        """Copy now; the outcome is a sentence, and is kept."""
        parts = urlsplit(mirror.remote)
        remote = Remote(f"{parts.scheme}://{parts.netloc}", mirror.username, mirror.password)
        theirs = parts.path.strip("/")
        try:
            if mirror.direction == "poll":
                count = await self._poll(mirror, remote, theirs)
            else:
                count = await self._push(mirror, remote, theirs)
            outcome = f"copied {count} tags"
        except UPSTREAM_FAILED.kind as error:
            outcome = f"failed: {error.evidence.get('reason', error)}"
        except DockyardError as error:
            outcome = f"failed: {error}"
        except Exception as error:
            log.exception("cannot mirror %s", mirror.remote)
            outcome = f"failed: {type(error).__name__}"
        finally:
            remote.close()
        now = self.core.clock()
        event = Event("POLL_MIRRORING" if mirror.direction == "poll" else "PUSH_MIRRORING", mirror.repository)

        def record(tx: Tx) -> None:
            tx.run("UPDATE mirrors SET outcome = ?, last = ? WHERE id = ?", (outcome[:500], now, mirror.id))
            emit(tx, now, event)

        await self.core.db.write(record)
        return outcome

    # ---- remote -> here

    async def _poll(self, mirror: Mirror, remote: Remote, theirs: str) -> int:
        loop = asyncio.get_running_loop()
        copied = 0
        for tag in await loop.run_in_executor(self._lane, remote.tags, theirs):
            if not fnmatch.fnmatchcase(tag, mirror.tags):
                continue
            digest = await loop.run_in_executor(self._lane, remote.head_manifest, theirs, tag)
            if digest and digest == await self._local_digest(mirror.repository, tag):
                continue
            await self._poll_manifest(mirror.repository, remote, theirs, tag, 0)
            copied += 1
        return copied

    async def _local_digest(self, name: str, reference: str) -> str:
        try:
            return (await self.content.manifest(name, reference)).digest
        except NotFound:
            return ""

    async def _poll_manifest(self, name: str, remote: Remote, theirs: str, reference: str, depth: int) -> None:
        got = await asyncio.get_running_loop().run_in_executor(self._lane, remote.get_manifest, theirs, reference)
        manifest = parse_manifest(got.content, got.media_type)
        if depth < _DEPTH_MAX:
            for child in manifest.children:
                if not await self._local_digest(name, child.digest):
                    await self._poll_manifest(name, remote, theirs, child.digest, depth + 1)
        for digest in manifest.blobs:
            await self._poll_blob(name, remote, theirs, digest)
        await self.content.put(name, reference, got.content, got.media_type, _ACTOR, [])

    async def _poll_blob(self, name: str, remote: Remote, theirs: str, digest: str) -> None:
        try:
            await self.uploads.blob(name, digest)
            return
        except BLOB_UNKNOWN.kind:
            pass
        begun = await self.uploads.begin(name, _ACTOR, digest.partition(":")[0])
        await self.uploads.append(name, begun.id, None, None, self._pieces(remote.blob(theirs, digest)))
        await self.uploads.finish(name, begun.id, digest, _ACTOR)

    async def _pieces(self, source: Iterator[bytes]) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while piece := await loop.run_in_executor(self._lane, next, source, b""):
            yield piece

    # ---- here -> remote

    async def _push(self, mirror: Mirror, remote: Remote, theirs: str) -> int:
        loop = asyncio.get_running_loop()
        copied = 0
        for tag in await self.content.tags(mirror.repository, "", None):
            if not fnmatch.fnmatchcase(tag, mirror.tags):
                continue
            digest = await self._local_digest(mirror.repository, tag)
            try:
                known = await loop.run_in_executor(self._lane, remote.head_manifest, theirs, tag)
            except UPSTREAM_FAILED.kind:
                known = ""
            if known != digest:
                await self._push_manifest(mirror.repository, remote, theirs, tag, digest, 0)
                copied += 1
        return copied

    async def _push_manifest(
        self, name: str, remote: Remote, theirs: str, reference: str, digest: str, depth: int
    ) -> None:
        loop = asyncio.get_running_loop()
        stored = await self.content.manifest(name, digest)
        manifest = parse_manifest(stored.content, stored.media_type)
        if depth < _DEPTH_MAX:
            for child in manifest.children:
                if await self._local_digest(name, child.digest):
                    await self._push_manifest(name, remote, theirs, child.digest, child.digest, depth + 1)
        for blob_digest in manifest.blobs:
            if await loop.run_in_executor(self._lane, remote.has_blob, theirs, blob_digest):
                continue
            blob = await self.uploads.blob(name, blob_digest)
            pieces = self._from_loop(self._blob_bytes(blob.content, blob.location, blob.size), loop)
            await loop.run_in_executor(self._lane, remote.put_blob, theirs, blob_digest, blob.size, pieces)
        await loop.run_in_executor(
            self._lane, remote.put_manifest, theirs, reference, stored.media_type, stored.content
        )

    async def _blob_bytes(self, content: bytes | None, location: str, size: int) -> AsyncIterator[bytes]:
        if content is not None:
            yield content
            return
        async for data in self.core.blobs.read(location, 0, size):
            yield data

    def _from_loop(self, source: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
        """An async source for a thread: each step is asked of the loop."""

        async def step() -> bytes:
            return await anext(source, b"")

        while piece := asyncio.run_coroutine_threadsafe(step(), loop).result():
            yield piece

    async def close(self) -> None:
        self._lane.shutdown(wait=False, cancel_futures=True)
