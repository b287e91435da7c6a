"""Builds as the Engine API sees them: the builder behind its doors, its cache in ``system df`` and ``builder prune``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from dockyard.build.doors.buildkit.door import BuildKitDoor
from dockyard.build.doors.classic import ClassicDoor
from dockyard.build.service import Builder, CacheRecord
from dockyard.engine.errors import BAD_REQUEST
from dockyard.engine.events import Events
from dockyard.errors import Code, NotImplementedYet
from dockyard.lib.clock import rfc3339

Json = dict[str, Any]
Query = Mapping[str, Sequence[str]]
Filters = Mapping[str, Sequence[str]]

NO_BUILDER = Code("DY-ENG-070", NotImplementedYet, "{what} is not implemented by Dockyard yet")


class Builds:
    def __init__(self, builder: Builder, events: Events, buildkit: BuildKitDoor) -> None:
        self.builder = builder
        self._events = events
        self._classic = ClassicDoor(builder)
        self._buildkit = buildkit

    async def build(self, query: Query, registry_auth: Json, context: AsyncIterator[bytes]) -> AsyncIterator[Json]:
        return await self._classic.build(query, registry_auth, context)

    async def cancel(self, build_id: str) -> None:
        if not build_id:
            raise BAD_REQUEST(cause="build ID not specified")
        self.builder.cancel(build_id)

    async def prune(self, query: Query, filters: Filters) -> Json:
        pruned = await self.builder.prune(
            all=_flag(query, "all"), filters=filters, reserved=_size(query, "reserved-space") or _size(query, "keep-storage"),
            max_used=_size(query, "max-used-space"), min_free=_size(query, "min-free-space"),
        )  # fmt: skip
        self._events.emit("builder", "prune", "", reclaimed=str(pruned.freed))
        return {"CachesDeleted": list(pruned.deleted) or None, "SpaceReclaimed": pruned.freed}

    async def mount(self, id: str) -> AsyncIterator[bytes]:
        """A cache mount as a tar. Raises NotFound, Conflict."""
        return self.builder.export_mount(id)

    async def fill_mount(self, id: str, chunks: AsyncIterator[bytes]) -> None:
        await self.builder.import_mount(id, chunks)

    async def usage(self) -> Json:
        rows = self.builder.usage()
        return {"BuildCache": [_row(record) for record in rows], "BuilderSize": sum(r.size for r in rows)}

    async def serve_grpc(self, stream: Any) -> None:
        await self._buildkit.serve_grpc(stream)

    def adopt_h2(self, transport: asyncio.Transport, early: bytes) -> None:
        self._buildkit.adopt(transport, early)

    async def serve_session(self, stream: Any, headers: Mapping[str, str]) -> None:
        methods = [name.strip() for name in headers.get("x-docker-expose-session-grpc-method", "").split(",")]
        await self._buildkit.serve_session(
            stream, headers.get("x-docker-expose-session-uuid", ""),
            shared_key=headers.get("x-docker-expose-session-sharedkey", ""), methods=list(filter(None, methods)),
        )  # fmt: skip

    async def close(self) -> None:
        self._buildkit.close()
        await self.builder.close()
        self._classic.close()


def _row(record: CacheRecord) -> Json:
    return {
        "ID": record.id, "Parents": list(record.parents) or None, "Type": record.kind,
        "Description": record.description, "InUse": record.in_use, "Shared": record.shared, "Size": record.size,
        "CreatedAt": rfc3339(record.created), "LastUsedAt": rfc3339(record.last_used), "UsageCount": record.uses,
    }  # fmt: skip


def _flag(query: Query, name: str) -> bool:
    return query.get(name, ["0"])[0].lower() in ("1", "true")


def _size(query: Query, name: str) -> int:
    text = query.get(name, [""])[0]
    if not text:
        return 0
    if not text.isdigit():
        raise BAD_REQUEST(cause=f"{name} is in bytes and expects an integer, got {text[:100]}")
    return int(text)


class NoBuilds:
    """``dockyard dryrun``: nothing is executed, so nothing can be built."""

    async def build(self, query: Any, registry_auth: Json, context: Any) -> AsyncIterator[Json]:
        raise NO_BUILDER(what="building images in a dry run")

    async def cancel(self, build_id: str) -> None:
        raise NO_BUILDER(what="building images in a dry run")

    async def mount(self, id: str) -> AsyncIterator[bytes]:
        raise NO_BUILDER(what="a cache mount in a dry run")

    async def fill_mount(self, id: str, chunks: AsyncIterator[bytes]) -> None:
        raise NO_BUILDER(what="a cache mount in a dry run")

    async def prune(self, query: Any, filters: Filters) -> Json:
        """There is no cache, which is the truth."""
        return {"CachesDeleted": None, "SpaceReclaimed": 0}

    def adopt_h2(self, transport: asyncio.Transport, early: bytes) -> None:
        transport.close()

    async def serve_grpc(self, stream: Any) -> None:
        raise NO_BUILDER(what="BuildKit's gRPC in a dry run")

    async def serve_session(self, stream: Any, headers: Mapping[str, str]) -> None:
        raise NO_BUILDER(what="BuildKit's session in a dry run")
