"""Listening, counting, sweeping, closing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

from dockyard.http.connection import Connection
from dockyard.http.errors import SOCKET_IN_USE
from dockyard.http.limits import Limits
from dockyard.http.request import Request
from dockyard.http.response import Answer, Response, header_block

Handler = Callable[[Request], Answer | Awaitable[Answer]]
OnError = Callable[[Request, Exception], Response]
OnH2 = Callable[[asyncio.Transport, bytes], None]

_SWEEP_SECONDS = 1.0
_BACKLOG = 4096
_REFUSALS = {400: "bad request", 414: "request target too long", 431: "request headers too large"}


@dataclass(frozen=True, slots=True)
class Statistics:
    connections: int
    requests: int
    tasks: int


class Server:
    """Serves one handler on any number of sockets, on the running loop.

    `on_error` turns an exception of the handler into an answer (and logs it). `on_h2` receives a connection whose
    client speaks HTTP/2 at once. `default_headers` go into every answer.
    """

    def __init__(
        self, handler: Handler, *, on_error: OnError | None = None, on_h2: OnH2 | None = None,
        default_headers: Mapping[str, str] | None = None, limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.handler = handler
        self.on_error = on_error
        self.on_h2 = on_h2
        self.limits = limits or Limits()
        self.requests = 0
        self.clock = 0.0
        self.common = b""
        self._defaults = header_block(default_headers or {})
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []
        self._sweeping: asyncio.TimerHandle | None = None

    # ---- listening

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> asyncio.Server:
        """Serve a bound stream socket, unix or TCP (`unix_socket` makes the former)."""
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        if sock.family == socket.AF_UNIX:
            server = await loop.create_unix_server(self._connection, sock=sock, ssl=tls, backlog=_BACKLOG)
        else:
            server = await loop.create_server(self._connection, sock=sock, ssl=tls, backlog=_BACKLOG)
        self._listeners.append(server)
        return server

    async def listen_tcp(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, *, reuse_port: bool = False
    ) -> int:
        """The port that was bound (for port 0)."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind((host, port))
        except (OSError, OverflowError):
            sock.close()
            raise
        await self.listen(sock, tls)
        return int(sock.getsockname()[1])

    async def listen_fd(self, fd: int, tls: ssl.SSLContext | None = None) -> asyncio.Server:
        """Adopt a listening descriptor (socket activation)."""
        return await self.listen(socket.socket(fileno=fd), tls)

    async def close(self, seconds: float | None = None) -> None:
        """Stop listening, let requests in flight finish within the bound, cut the rest."""
        bound = self.limits.close_seconds if seconds is None else seconds
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for connection in list(self._connections):
            connection.shut()
        if self._tasks and bound > 0:
            await asyncio.wait(self._tasks, timeout=bound)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.limits.close_seconds)
        for connection in list(self._connections):
            connection.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        await asyncio.sleep(0)  # connection_lost of what was aborted

    def statistics(self) -> Statistics:
        return Statistics(len(self._connections), self.requests, len(self._tasks))

    # ---- for connections

    def _connection(self) -> Connection:
        if self._sweeping is None:
            self._tick()
        return Connection(self)

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def failed(self, request: Request, error: Exception) -> Response:
        """The owner's answer to an exception, or a plain one: never a traceback."""
        if self.on_error is not None:
            with contextlib.suppress(Exception):
                return self.on_error(request, error)
        return Response(500, {"Content-Type": "text/plain"}, b"internal error\n")

    def refusal(self, status: int) -> Response:
        return Response(status, {"Content-Type": "text/plain"}, _REFUSALS[status].encode() + b"\n")

    def _tick(self) -> None:
        """Coarse clock and Date for all connections, and their sweep; rests while nobody is connected."""
        loop = asyncio.get_running_loop()
        self.clock = loop.time()
        self.common = b"Date: " + formatdate(usegmt=True).encode() + b"\r\n" + self._defaults
        for connection in list(self._connections):
            connection.sweep(self.clock)
        idle = self._sweeping is not None and not self._connections
        self._sweeping = None if idle else loop.call_later(_SWEEP_SECONDS, self._tick)


def unix_socket(path: str | os.PathLike[str], *, mode: int = 0o660, gid: int | None = None) -> socket.socket:
    """A bound unix socket. A dead one in its place is removed. Raises SOCKET_IN_USE when someone answers there."""
    place = Path(path)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(str(place))
        raise SOCKET_IN_USE(path=str(place))
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777)  # nobody may connect before owner and mode are right
    try:
        sock.bind(str(place))
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    if gid is not None:
        os.chown(place, -1, gid)
    place.chmod(mode)
    return sock
