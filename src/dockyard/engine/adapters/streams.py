"""Attachments that may begin before their container does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from dockyard.model.exchange import Frame
from dockyard.runtime.attach import Attachment
from dockyard.runtime.execs import ExecSession


class PendingStream:
    """Subscribes when the container is created in the runtime, before its process runs: nothing of its output is lost.

    Input that comes earlier waits in the client's socket.
    """

    def __init__(self, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> None:
        self.tty = tty
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._ready: asyncio.Future[Attachment | None] = asyncio.get_running_loop().create_future()

    def begin(self, attachment: Attachment | None) -> None:
        """None: it will never come (the start failed)."""
        if not self._ready.done():
            self._ready.set_result(attachment)

    async def frames(self) -> AsyncIterator[Frame]:
        attachment = await asyncio.shield(self._ready)
        if attachment is not None:
            async for frame in attachment.frames():
                yield Frame(frame.stream, frame.data)

    async def write(self, data: bytes) -> None:
        attachment = await asyncio.shield(self._ready)
        if attachment is not None:
            with contextlib.suppress(BrokenPipeError):  # Nobody reads any more; the output goes on to its end.
                await attachment.write(data)

    async def write_eof(self) -> None:
        attachment = await asyncio.shield(self._ready)
        if attachment is not None:
            await attachment.write_eof()

    async def close(self) -> None:
        if self._ready.done():
            attachment = self._ready.result()
            if attachment is not None:
                await attachment.close()
        else:
            self._ready.set_result(None)


class ExecStream:
    """An exec's session in the shape of the port."""

    def __init__(self, session: ExecSession) -> None:
        self.tty = session.tty
        self._session = session

    async def frames(self) -> AsyncIterator[Frame]:
        async for frame in self._session.frames():
            yield Frame(frame.stream, frame.data)

    async def write(self, data: bytes) -> None:
        try:
            await self._session.write(data)
        except BrokenPipeError:
            return  # The process reads no more; what is typed is lost, as in a shell's pipe.

    async def write_eof(self) -> None:
        await self._session.write_eof()

    async def close(self) -> None:
        await self._session.close()
