"""``docker stats``: samples about a second apart, each with the one before it (moby daemon/stats)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from dockyard.engine.container import Container
from dockyard.engine.kit import Kit
from dockyard.errors import NotFound
from dockyard.lib import clock

INTERVAL = 1.0

Json = dict[str, Any]


async def samples(kit: Kit, container: Container, *, stream: bool, one_shot: bool) -> AsyncIterator[Json]:
    """One sample, or one a second until the container is removed. A stopped container gives a row of zeros, as the CLI
    draws it."""
    gone = container.wait("removed")
    try:
        previous = None if one_shot else await _sample(kit, container)
        while True:
            if previous is not None:
                await asyncio.wait({gone}, timeout=INTERVAL)
            if stream and gone.done():
                return
            current = await _sample(kit, container)
            before = previous or {}
            yield current | {
                "precpu_stats": before.get("cpu_stats", {"cpu_usage": {"total_usage": 0}, "throttling_data": {}}),
                "preread": before.get("read", clock.ZERO),
            }
            if not stream:
                return
            previous = current
    finally:
        gone.cancel()


async def _sample(kit: Kit, container: Container) -> Json:
    record = container.record
    named = {"name": f"/{record.name}", "id": record.id}
    if record.live:
        try:
            return named | await kit.runtime.stats(record)
        except NotFound:
            pass  # It ended between the look and the read.
    return named | {
        "read": clock.ZERO, "pids_stats": {}, "blkio_stats": {}, "num_procs": 0, "storage_stats": {},
        "cpu_stats": {"cpu_usage": {"total_usage": 0}, "throttling_data": {}}, "memory_stats": {},
    }  # fmt: skip
