"""Builds: not served yet. The builder's language and planner exist (``dockyard.build``); its solver does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from dockyard.errors import Code, NotImplementedYet

Json = dict[str, Any]

NO_BUILDER = Code(
    "DY-ENG-070", NotImplementedYet, "{what} is not implemented by Dockyard yet",
    hint="make the image in a container: docker run, then docker commit",
)  # fmt: skip


class NoBuilds:
    async def build(self, query: Any, registry_auth: Json, context: Any) -> AsyncIterator[Json]:
        raise NO_BUILDER(what="building images")

    async def cancel(self, build_id: str) -> None:
        raise NO_BUILDER(what="building images")

    async def prune(self, query: Any, filters: Mapping[str, Sequence[str]]) -> Json:
        """There is no cache, which is the truth."""
        return {"CachesDeleted": None, "SpaceReclaimed": 0}

    async def serve_grpc(self, stream: Any) -> None:
        raise NO_BUILDER(what="BuildKit's gRPC")

    async def serve_session(self, stream: Any, headers: Mapping[str, str]) -> None:
        raise NO_BUILDER(what="BuildKit's session")
