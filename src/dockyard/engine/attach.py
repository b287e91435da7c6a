"""Attach: the live streams of a container, with its history before them where asked (``logs=1``)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dockyard.engine.kit import Kit
from dockyard.engine.model import Record
from dockyard.engine.ports import Stream
from dockyard.model.exchange import AttachQuery, Frame, LogQuery


async def attachment(kit: Kit, record: Record, query: AttachQuery) -> Stream:
    """The stream subscribes here and now: a container that is started next loses nothing. Without ``stream`` there is
    the history alone, and it ends."""
    if not query.stream:
        return _WithHistory(_Nothing(record.config.tty), _history(kit, record, query) if query.logs else None)
    live = kit.runtime.attach(
        record,
        stdin=query.stdin,
        stdout=query.stdout,
        stderr=query.stderr,
    )
    if not query.logs:
        return live
    return _WithHistory(live, _history(kit, record, query))


def _history(kit: Kit, record: Record, query: AttachQuery) -> AsyncIterator[Frame]:
    wish = LogQuery(stdout=query.stdout, stderr=query.stderr)
    return kit.runtime.logs(record, str(kit.directory(record.id)), wish)


class _Nothing:
    """The live part of an attach that wants none."""

    def __init__(self, tty: bool) -> None:
        self.tty = tty

    async def frames(self) -> AsyncIterator[Frame]:
        none: tuple[Frame, ...] = ()
        for frame in none:
            yield frame

    async def write(self, data: bytes) -> None:
        return None

    async def write_eof(self) -> None:
        return None

    async def close(self) -> None:
        return None


class _WithHistory:
    def __init__(self, live: Stream, history: AsyncIterator[Frame] | None) -> None:
        self.tty = live.tty
        self._live = live
        self._history = history

    async def frames(self) -> AsyncIterator[Frame]:
        if self._history is not None:
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
