"""Proxy cache: repositories under an upstream's prefix are filled when they are asked for.

`registry/<prefix>/<name>` is `<upstream>/<name>`; containerd's `?ns=<host>` chooses the upstream without a prefix, so
one mirror entry serves any number of registries. A tag is asked again after `fresh_seconds`; an upstream that is away
never takes away what is cached. Blobs are stored (and their digest proven) before they are served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dockyard.errors import DockyardError, InvalidParameter, NotFound
from dockyard.registry.content import Content
from dockyard.registry.core import Actor, Core
from dockyard.registry.errors import BLOB_UNKNOWN, MANIFEST_UNKNOWN, UPSTREAM_FAILED
from dockyard.registry.names import looks_like_digest
from dockyard.registry.remote import Remote, netloc
from dockyard.registry.uploads import Blob, Uploads

_LANES = 8
_CHECKED_MAX = 100_000
_ACTOR = Actor("proxy")


@dataclass(frozen=True, slots=True)
class Upstream:
    host: str
    prefix: str
    url: str
    username: str
    password: str
    fresh_seconds: float


class Proxy:
    def __init__(self, core: Core, content: Content, uploads: Uploads) -> None:
        self.core = core
        self.content = content
        self.uploads = uploads
        self._lane = ThreadPoolExecutor(_LANES, thread_name_prefix="registry-upstream")
        self._epoch = -1
        self._upstreams: list[Upstream] = []
        self._remotes: dict[Upstream, Remote] = {}
        self._checked: dict[tuple[str, str], float] = {}
        self._flights: dict[tuple[str, str], asyncio.Lock] = {}

    async def _known(self) -> list[Upstream]:
        epoch = await self.core.db.epoch()
        if epoch != self._epoch:
            rows = await self.core.db.read(
                lambda tx: tx.all(
                    "SELECT host, prefix, url, username, password, fresh_seconds FROM upstreams WHERE active = 1"
                )
            )
            self._upstreams = [Upstream(*row) for row in rows]
            self._epoch = epoch
        return self._upstreams

    async def resolve(self, name: str, namespace: str) -> tuple[str, Upstream | None]:
        """The repository that is meant, and its upstream if it is a cache."""
        known = await self._known()
        if namespace:
            for upstream in known:
                if namespace == upstream.host:
                    return f"{upstream.prefix}/{name}", upstream
        return name, next((upstream for upstream in known if name.startswith(upstream.prefix + "/")), None)

    def _remote(self, upstream: Upstream) -> Remote:
        if upstream not in self._remotes:
            self._remotes[upstream] = Remote(upstream.url, upstream.username, upstream.password)
        return self._remotes[upstream]

    def _flight(self, key: tuple[str, str]) -> asyncio.Lock:
        """One fetch of a thing at a time; those who wait find it cached."""
        if len(self._flights) > _CHECKED_MAX:
            self._flights = {k: lock for k, lock in self._flights.items() if lock.locked()}
        return self._flights.setdefault(key, asyncio.Lock())

    async def freshen(self, upstream: Upstream, name: str, reference: str) -> None:
        """Make the local copy what the upstream has, unless it was looked at lately."""
        async with self._flight((name, reference)):
            try:
                local = (await self.content.manifest(name, reference)).digest
            except NotFound:
                local = ""
            now = self.core.clock()
            checked = self._checked.get((name, reference), 0.0)
            if local and (looks_like_digest(reference) or now - checked < upstream.fresh_seconds):
                return
            try:
                await self._fetch_manifest(upstream, name, reference, local)
            except UPSTREAM_FAILED.kind as error:
                if not local:
                    if getattr(error, "evidence", {}).get("answered") == 404:
                        raise MANIFEST_UNKNOWN(reference=reference) from error
                    raise
            if len(self._checked) > _CHECKED_MAX:
                self._checked.clear()
            self._checked[name, reference] = now

    async def _fetch_manifest(self, upstream: Upstream, name: str, reference: str, local: str) -> None:
        loop = asyncio.get_running_loop()
        remote, theirs = self._remote(upstream), name.removeprefix(upstream.prefix + "/")
        if local and await loop.run_in_executor(self._lane, remote.head_manifest, theirs, reference) == local:
            return
        got = await loop.run_in_executor(self._lane, remote.get_manifest, theirs, reference)
        try:
            await self.content.put(name, reference, got.content, got.media_type, _ACTOR, [], sparse=True)
        except InvalidParameter as error:  # the client's request was right; what came is not
            raise _wrong(upstream, error) from error

    async def fetch_blob(self, upstream: Upstream, name: str, digest: str) -> Blob:
        async with self._flight((name, digest)):
            try:
                return await self.uploads.blob(name, digest)
            except BLOB_UNKNOWN.kind:
                pass
            remote = self._remote(upstream)
            source = remote.blob(name.removeprefix(upstream.prefix + "/"), digest)
            begun = await self.uploads.begin(name, _ACTOR, digest.partition(":")[0])
            try:
                await self.uploads.append(name, begun.id, None, None, self._pieces(source))
                return await self.uploads.finish(name, begun.id, digest, _ACTOR)
            except InvalidParameter as error:
                await self.uploads.cancel(name, begun.id)
                raise _wrong(upstream, error) from error
            except UPSTREAM_FAILED.kind as error:
                await self.uploads.cancel(name, begun.id)
                if getattr(error, "evidence", {}).get("answered") == 404:
                    raise BLOB_UNKNOWN(digest=digest) from error
                raise

    async def _pieces(self, source: Iterator[bytes]) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while piece := await loop.run_in_executor(self._lane, next, source, b""):
            yield piece

    async def close(self) -> None:
        self._lane.shutdown(wait=False, cancel_futures=True)
        for remote in self._remotes.values():
            remote.close()


def _wrong(upstream: Upstream, error: DockyardError) -> DockyardError:
    return UPSTREAM_FAILED(upstream=netloc(upstream.url), reason=str(error), answered=0)
