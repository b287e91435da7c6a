"""gRPC: status, metadata, the side that serves and the side that asks. Messages are protobuf's.

A handler gets a *Call* and answers through it; what it raises becomes the status. Kinds of ours map to gRPC codes in
``CODES``; an exception nobody meant is told as "internal error" and logged.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, unquote

from google.protobuf.message import DecodeError, Message
from h2.errors import ErrorCodes

from dockyard.errors import (
    Cancelled,
    Conflict,
    DataLoss,
    DockyardError,
    Exhausted,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotImplementedYet,
    Unauthorized,
    Unavailable,
)  # fmt: skip

from ...proto import rpc_pb2
from .http2 import Connection, Headers, MessageTooLarge, Stream, StreamLost, Wire

__all__ = ["Call", "Channel", "Exchange", "Handler", "Routes", "RpcError", "serve", "streaming", "unary"]

log = logging.getLogger(__name__)

OK, CANCELLED, UNKNOWN, INVALID, NOT_FOUND, EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 1, 2, 3, 5, 8, 12, 13, 14
CODES: Mapping[type[DockyardError], int] = {
    Cancelled: CANCELLED, InvalidParameter: INVALID, NotFound: NOT_FOUND, Forbidden: 7, Exhausted: EXHAUSTED,
    Conflict: 9, NotImplementedYet: UNIMPLEMENTED, Unavailable: UNAVAILABLE, DataLoss: 15, Unauthorized: 16,
}  # fmt: skip
TIMEOUT = 60.0
"""Seconds for the answer to one question of ours to a client."""
MAX_TRAILER = 8 << 10


class RpcError(Exception):
    """A status that is not OK. ``details`` are (type URL, bytes) for grpc-status-details-bin."""

    def __init__(self, code: int, message: str, details: Sequence[tuple[str, bytes]] = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, tuple(details)


class ProtoType(Protocol):
    """A generated message class."""

    def __call__(self) -> Any: ...
    def FromString(self, data: bytes) -> Any: ...


M = TypeVar("M", bound=Message)


class Call:
    """Serving side. ``metadata`` by lower-case key."""

    def __init__(self, stream: Stream, metadata: Mapping[str, list[str]]) -> None:
        self.stream, self.metadata = stream, metadata
        self._begun = False

    async def recv(self) -> bytes | None:
        return await self.stream.recv()

    async def send(self, message: Message) -> None:
        self.begin()
        await self.stream.send(message.SerializeToString())

    def begin(self) -> None:
        if not self._begun:
            self._begun = True
            self.stream.send_headers([(":status", "200"), ("content-type", "application/grpc")])

    def finish(self, error: RpcError | None) -> None:
        status: Headers = [("grpc-status", str(error.code if error else OK))]
        if error is not None:
            status.append(("grpc-message", quote(error.message[:MAX_TRAILER], safe=" !#$&'()*+,/:;=?@[]~\"<>{}|\\^`")))
            if error.details:
                status.append(("grpc-status-details-bin", _details(error)))
        head = [] if self._begun else [(":status", "200"), ("content-type", "application/grpc")]
        self.stream.send_headers(head + status, end=True)
        if not self.stream.ended:
            self.stream.reset(ErrorCodes.NO_ERROR)  # as Go: the answer is whole, send no more


def _details(error: RpcError) -> str:
    status = rpc_pb2.Status(code=error.code, message=error.message)
    for url, value in error.details:
        status.details.add(type_url=url, value=value)
    return base64.b64encode(status.SerializeToString()).decode().rstrip("=")


Handler = Callable[[Call], Awaitable[None]]
Routes = Mapping[str, Handler]


def unary(kind: ProtoType, answer: Callable[[Call, Any], Awaitable[Message]]) -> Handler:
    async def handler(call: Call) -> None:
        await call.send(await answer(call, await _request(call, kind)))

    return handler


def streaming(kind: ProtoType, answer: Callable[[Call, Any], Awaitable[None]]) -> Handler:
    """One question, any number of answers, sent by the handler."""

    async def handler(call: Call) -> None:
        request = await _request(call, kind)
        call.begin()
        await answer(call, request)

    return handler


async def _request(call: Call, kind: ProtoType) -> Any:
    data = await call.recv()
    if data is None:
        raise RpcError(INVALID, "the request is missing")
    try:
        return kind.FromString(data)
    except DecodeError:
        raise RpcError(INVALID, "the request is not a protobuf message of its kind") from None


async def serve(wire: Wire, routes: Routes) -> None:
    """Until the wire ends. Handlers of a client that leaves are cancelled."""

    async def accept(stream: Stream) -> None:
        await _answer(stream, routes)

    connection = Connection(wire, accept=accept)
    connection.start()
    await connection.run()


async def _answer(stream: Stream, routes: Routes) -> None:
    path = next((value for name, value in stream.headers if name == ":path"), "")
    call = Call(stream, _metadata(stream.headers))
    error: RpcError | None = None
    try:
        handler = routes.get(path)
        if handler is None:
            raise RpcError(UNIMPLEMENTED, f"{path[:200]} is not implemented by Dockyard")
        await handler(call)
    except StreamLost:
        return
    except Exception as failure:  # noqa: BLE001 - the border: becomes a status
        error = as_status(failure, path)
    try:
        call.finish(error)
    except StreamLost:
        return


def as_status(failure: BaseException, where: str = "") -> RpcError:
    if isinstance(failure, RpcError):
        return failure
    if isinstance(failure, MessageTooLarge):
        return RpcError(EXHAUSTED, str(failure))
    if isinstance(failure, DockyardError):
        code = next((number for kind, number in CODES.items() if isinstance(failure, kind)), UNKNOWN)
        return RpcError(code, str(failure))
    log.error("%s failed", where, exc_info=failure)
    return RpcError(INTERNAL, "internal error")


def _metadata(headers: Headers) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if not name.startswith(":"):
            found.setdefault(name, []).append(value)
    return found


class Exchange:
    """Asking side: one call in progress. Leaving it early (``async with``) cancels it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    async def __aenter__(self) -> Exchange:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not (self.stream.ended and self.stream.finished):
            self.stream.reset()
        self.stream.connection.forget(self.stream)

    async def send(self, *messages: Message) -> None:
        await self.stream.send(*(message.SerializeToString() for message in messages))

    def end(self) -> None:
        self.stream.end()

    async def recv(self) -> bytes | None:
        """None at a good end. Raises RpcError."""
        try:
            message = await self.stream.recv()
        except StreamLost as lost:
            raise RpcError(UNAVAILABLE, str(lost)) from None
        except MessageTooLarge as large:
            raise RpcError(EXHAUSTED, str(large)) from None
        if message is None:
            self._check()
        return message

    def _check(self) -> None:
        status = dict((*self.stream.headers, *self.stream.trailers))
        code = status.get("grpc-status", "")
        if code != "0":
            told = unquote(status.get("grpc-message", "")) or f"the client answered {status.get(':status', 'nothing')}"
            raise RpcError(int(code) if code.isdigit() else UNKNOWN, told)


class Channel:
    """Asks over one wire. ``run`` it as a task; it ends with the wire."""

    def __init__(self, wire: Wire) -> None:
        self.connection = Connection(wire)
        self.connection.start()

    @property
    def closed(self) -> bool:
        return self.connection.closed

    async def run(self) -> None:
        await self.connection.run()

    def close(self) -> None:
        self.connection.close()

    def open(self, path: str, metadata: Headers = []) -> Exchange:  # noqa: B006 - never changed
        """Raises RpcError."""
        head = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
            ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "dockyard"),
        ]  # fmt: skip
        try:
            return Exchange(self.connection.open(head + metadata))
        except StreamLost as lost:
            raise RpcError(UNAVAILABLE, str(lost)) from None

    async def ask(
        self, path: str, question: Message, answer: type[M], metadata: Headers = [], timeout: float = TIMEOUT  # noqa: B006
    ) -> M:  # fmt: skip
        """Raises RpcError, TimeoutError."""
        async with asyncio.timeout(timeout), self.open(path, metadata) as exchange:
            with contextlib.suppress(StreamLost):  # the status says why
                await exchange.send(question)
            exchange.end()
            data = await exchange.recv()
            if data is None:
                raise RpcError(INTERNAL, "the client gave no answer")
            try:
                message = answer.FromString(data)
            except DecodeError:
                raise RpcError(INTERNAL, "the client's answer cannot be read") from None
            await exchange.recv()
            return message
