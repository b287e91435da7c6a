"""Stores of blobs that a client attaches to its session (containerd's Content service): directories of its machine that
hold caches and image layouts. Which one is meant is said in a header."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

from ...errors import NO_CACHE_PLACE, SESSION_LOST
from ...proto import content_pb2
from .http2 import Headers, StreamLost
from .rpc import NOT_FOUND, UNIMPLEMENTED, Exchange, RpcError
from .session import ClientSession

__all__ = ["SessionStore", "content_store"]

PREFIX = "/containerd.services.content.v1.Content/"
STORE_ID = "buildkit-attachable-store-id"
ALREADY_EXISTS = 6
PIECE = 1 << 20


async def content_store(session: ClientSession, name: str) -> SessionStore | None:
    return SessionStore(session, name) if session.offers(f"{PREFIX}Read") else None


class SessionStore:
    """Implements ``ports.ContentStore``."""

    def __init__(self, session: ClientSession, name: str) -> None:
        self.session, self.name = session, name

    def _header(self) -> Headers:
        return [(STORE_ID, self.name)]

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        try:
            async with self.session.channel.open(f"{PREFIX}Read", self._header()) as exchange:
                await exchange.send(content_pb2.ReadContentRequest(digest=digest))
                exchange.end()
                while (data := await exchange.recv()) is not None:
                    yield content_pb2.ReadContentResponse.FromString(data).data
        except RpcError as error:
            raise self._failure(error) from None
        except StreamLost as lost:
            raise SESSION_LOST(id=self.session.id, cause=str(lost)) from None

    async def write(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """A blob that is there already is as good as written. Each upload has a name of its own: one that was cut would be
        gone on with."""
        name = f"{name}-{secrets.token_hex(8)}"
        try:
            async with self.session.channel.open(f"{PREFIX}Write", self._header()) as exchange:
                offset = 0
                await _ask(exchange, content_pb2.WriteContentRequest(action=content_pb2.STAT, ref=name))
                async for chunk in chunks:
                    for start in range(0, len(chunk), PIECE):
                        data = chunk[start : start + PIECE]
                        await _ask(exchange, content_pb2.WriteContentRequest(
                            action=content_pb2.WRITE, ref=name, offset=offset, data=data
                        ))  # fmt: skip
                        offset += len(data)
                await _ask(exchange, content_pb2.WriteContentRequest(
                    action=content_pb2.COMMIT, ref=name, offset=offset, total=offset
                ))  # fmt: skip
                exchange.end()
        except RpcError as error:
            if error.code != ALREADY_EXISTS:
                raise self._failure(error) from None
        except StreamLost as lost:
            raise SESSION_LOST(id=self.session.id, cause=str(lost)) from None

    def _failure(self, error: RpcError) -> Exception:
        if error.code in (NOT_FOUND, UNIMPLEMENTED):
            return NO_CACHE_PLACE(place=self.name.partition(":")[2], cause=error.message)
        return SESSION_LOST(id=self.session.id, cause=error.message)


async def _ask(exchange: Exchange, question: content_pb2.WriteContentRequest) -> None:
    """One step of a write, answered."""
    await exchange.send(question)
    if await exchange.recv() is None:
        raise RpcError(UNIMPLEMENTED, "the client ended the transfer early")
