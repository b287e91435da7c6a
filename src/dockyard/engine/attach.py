"""Attach: the live streams of a container, with its history before them where asked (``logs=1``)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dockyard.engine.kit import Kit
from dockyard.engine.model import Record
from dockyard.engine.ports import Stream
from dockyard.model.exchange import AttachQuery, Frame, LogQuery


async def attachment(kit: Kit, record: Record, query: AttachQuery) -> Stream:
    """The stream subscribes here and now: a container that is started next loses nothing."""
    live = kit.runtime.attach(
        record,
        stdin=query.stdin and query.stream,
        stdout=query.stdout and query.stream,
        stderr=query.stderr and query.stream,
    )
    if not query.logs:
        return live
    history = kit.runtime.logs(
        record, str(kit.directory(record.id)), LogQuery(stdout=query.stdout, stderr=query.stderr)
    )
    return _WithHistory(live, history)


class _WithHistory:
    def __init__(self, live: Stream, history: AsyncIterator[Frame]) -> None:
        self.tty = live.tty
        self._live = live
        self._history = history

    async def frames(self) -> AsyncIterator[Frame]:
        async for frame in self._history:
            yield frame
        async for frame in self._live.frames():
            yield frame

    async def write(self, data: bytes) -> None:
        await self._live.write(data)

    async def write_eof(self) -> None:
        await self._live.write_eof()

    async def close(self) -> None:
        await self._live.close()
