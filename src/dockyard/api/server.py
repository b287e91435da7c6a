"""From a request to its handler: version, route, authorisation hook, call. And the listeners."""

from __future__ import annotations

import importlib
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from dockyard.api.authz import Authorizer
from dockyard.api.call import Call
from dockyard.api.failure import failure, plain
from dockyard.api.handlers.system import ping_responses
from dockyard.api.ports import Engine
from dockyard.api.routes import NEWEST, OLDEST, ROUTES, Route, find, split_version
from dockyard.api.shape import seen_by, shaped
from dockyard.errors import Code, InvalidParameter, NotFound, NotImplementedYet
from dockyard.http import Answer, Request, Response, Server, unix_socket

NOT_SERVED = Code(
    "DY-API-030", NotImplementedYet, "{method} {path} is not implemented by Dockyard yet",
    hint="docs/api-coverage.md lists what is",
)  # fmt: skip
CANNOT_LISTEN = Code(
    "DY-API-031", InvalidParameter, "cannot listen on {host}: {cause}",
    hint="dockyard engine -H unix:///run/dockyard/dockyard.sock, or -H tcp://ADDRESS:PORT",
)  # fmt: skip

Handler = Callable[[Call], Awaitable[Answer]]

_log = logging.getLogger("dockyard.api")


def _handlers() -> dict[Route, Handler]:
    found: dict[Route, Handler] = {}
    for route in ROUTES:
        if route.handler:
            module, name = route.handler.split(".")
            found[route] = getattr(importlib.import_module(f"dockyard.api.handlers.{module}"), name)
    return found


class Api:
    """The handler that ``http.Server`` calls."""

    def __init__(
        self, engine: Engine, *, builder_version: str = "1", authorizer: Authorizer | None = None,
        oldest: tuple[int, int] = OLDEST, experimental: bool = False,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._authorizer = authorizer
        self._oldest = oldest
        self._handlers = _handlers()
        self._pings = {"/_ping"} | {f"/v1.{minor}/_ping" for minor in range(oldest[1], NEWEST[1] + 1)}
        self._ping, self._ping_head = ping_responses(builder_version, experimental=experimental)

    def __call__(self, request: Request) -> Answer | Awaitable[Answer]:
        if request.target in self._pings and self._authorizer is None:
            if request.method == "GET":
                return self._ping
            if request.method == "HEAD":
                return self._ping_head
        return self._dispatch(request)

    async def _dispatch(self, request: Request) -> Answer:
        if request.method == "OPTIONS":
            return Response(200)
        asked, path = split_version(request.path)
        if asked is not None and not self._oldest <= asked <= NEWEST:
            return _version_refused(asked, self._oldest)
        version = asked or NEWEST
        found = find(request.method, path)
        if found is None or version < found[0].since:
            return plain(404, "page not found")
        route, params = found
        call = Call(request, self._engine, route, params, version)
        handler = self._handlers.get(route)
        if handler is None:
            raise NOT_SERVED(method=route.method, path=route.path)
        if self._authorizer is not None:
            call = await self._authorizer.request(call)
        answer = await handler(call)
        seen = seen_by(request.headers.get("user-agent") or "", version)
        answer = answer if seen == NEWEST else shaped(route, seen, answer)
        return answer if self._authorizer is None else await self._authorizer.answered(call, answer)


def _version_refused(asked: tuple[int, int], least: tuple[int, int]) -> Response:
    """Docker's wording; clients older than 1.24 read plain text."""
    text = f"{asked[0]}.{asked[1]}"
    newest, oldest = (f"{major}.{minor}" for major, minor in (NEWEST, least))
    if asked > NEWEST:
        return plain(400, f"client version {text} is too new. Maximum supported API version is {newest}")
    message = (
        f"client version {text} is too old. Minimum supported API version is {oldest}, please upgrade your client to a "
        "newer version"
    )
    return Response(400, {"Content-Type": "text/plain; charset=utf-8"}, message.encode() + b"\n")


def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, NotFound) and request.method == "HEAD":
        return Response(404, {"Content-Length": "0"})
    return failure(request, error)


def make_server(engine: Engine, *, server_name: str, builder_version: str = "1", authorizer: Authorizer | None = None,
                on_h2: Any = None, oldest: tuple[int, int] = OLDEST, experimental: bool = False) -> Server:  # fmt: skip
    return Server(
        Api(
            engine, builder_version=builder_version, authorizer=authorizer, oldest=oldest, experimental=experimental
        ),
        on_error=_failed,
        on_h2=on_h2,
        default_headers={
            "Api-Version": f"{NEWEST[0]}.{NEWEST[1]}", "Ostype": "linux", "Server": server_name,
        },
    )  # fmt: skip


async def listen(server: Server, hosts: Sequence[str], *, group: int | None, tls: ssl.SSLContext | None) -> list[str]:
    """Opens ``unix://PATH``, ``tcp://HOST:PORT`` and ``fd://N``. Returns the addresses that are served.

    The unix socket has mode 0660 and the group given, or root's alone. TCP without TLS is served as asked, with a
    warning: whoever reaches it owns the host.
    """
    opened: list[str] = []
    try:
        for host in hosts:
            opened.append(await _listen(server, host, group, tls))
    except (OSError, OverflowError, ValueError) as error:
        remove_sockets(opened)
        cause = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise CANNOT_LISTEN(host=host, cause=cause) from error
    except BaseException:
        remove_sockets(opened)
        raise
    return opened


async def _listen(server: Server, host: str, group: int | None, tls: ssl.SSLContext | None) -> str:
    scheme, _, rest = host.partition("://")
    if scheme == "unix":
        os.makedirs(os.path.dirname(rest), mode=0o755, exist_ok=True)
        await server.listen(unix_socket(rest, mode=0o660, gid=group))
        return host
    if scheme == "tcp":
        address, _, port = rest.rpartition(":")
        if not port.isdigit():
            raise ValueError("the port is missing")
        if tls is None:
            _log.warning("serving %s without TLS: everyone who reaches it has root on this host", host)
        bound = await server.listen_tcp(address.strip("[]") or "0.0.0.0", int(port), tls)
        return f"tcp://{address or '0.0.0.0'}:{bound}"
    if scheme == "fd":
        await server.listen_fd(int(rest) if rest.isdigit() else 3)
        return host
    raise ValueError("expected unix://PATH, tcp://ADDRESS:PORT or fd://")


def remove_sockets(hosts: Sequence[str]) -> None:
    """Of ours only: at an address that we could not open another server may answer."""
    for host in hosts:
        if host.startswith("unix://"):
            Path(host.removeprefix("unix://")).unlink(missing_ok=True)
