"""docker cp. (Opened with the storage room's safe paths.)"""

from __future__ import annotations

from collections.abc import AsyncIterator

from dockyard.engine.kit import Kit
from dockyard.engine.model import Record
from dockyard.errors import NotImplementedYet
from dockyard.model.exchange import PathStat


async def stat(kit: Kit, record: Record, path: str) -> PathStat:
    raise NotImplementedYet("archive")


async def get(kit: Kit, record: Record, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
    raise NotImplementedYet("archive")


async def put(
    kit: Kit, record: Record, path: str, tar: AsyncIterator[bytes], *, keep_kind: bool, copy_owner: bool
) -> None:
    raise NotImplementedYet("archive")
