"""The builder: what both doors call.

::

    door ── Request, Source, Session ──► Builder.build ──► events to the sink ... Result
                                              │
            parse ─► plan ─► solve (stages, steps, cache) ─► image config ─► register and tag
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from .model import Graph, Request
from .ports import Session, Source
from .progress import Sink

__all__ = ["Builder", "CacheRecord", "Pruned", "Result"]


@dataclass(frozen=True, slots=True)
class Result:
    """``image`` is the digest of ``config`` (the image config's exact bytes). ``metadata`` has buildx's keys
    (``containerimage.config.digest``, ``image.name``, ...)."""

    image: str
    config: bytes
    diff_ids: tuple[str, ...]
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """A row of ``docker system df -v`` and ``buildx du``. Times are nanoseconds since the epoch; sizes are bytes."""

    id: str
    kind: str  # regular, exec.cachemount, source.local
    description: str
    size: int
    created: int
    last_used: int
    uses: int
    in_use: bool = False
    shared: bool = False
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pruned:
    deleted: tuple[str, ...]
    freed: int


class Builder:
    async def build(
        self, request: Request, source: Source, session: Session, sink: Sink, *, register: bool = True
    ) -> Result:
        """Builds to the end. With ``register`` the image is recorded under ``request.tags``; without, only its layers
        are kept (by the cache). Cancelling the call stops what only this build waits for.

        Raises InvalidParameter (Dockerfile, options), NotFound (image, stage, file), System (a step failed),
        Cancelled."""
        raise NotImplementedError

    async def check(self, request: Request, source: Source) -> Graph:
        """Parses and plans, resolving base images, but runs nothing; raises as ``build``."""
        raise NotImplementedError

    def root(self, result: Result) -> AbstractAsyncContextManager[int]:
        """A descriptor of the image's root file system (read-only), for exports of files."""
        raise NotImplementedError

    def cancel(self, build_id: str) -> None:
        """Raises NotFound."""
        raise NotImplementedError

    def usage(self) -> list[CacheRecord]:
        raise NotImplementedError

    async def prune(
        self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None, reserved: int = 0,
        max_used: int = 0, min_free: int = 0,
    ) -> Pruned:  # fmt: skip
        """Removes cache, least recently used first. ``reserved`` bytes are kept, ``max_used`` is never exceeded."""
        raise NotImplementedError
