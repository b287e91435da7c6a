"""Listening until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import signal
import sys

from dockyard.compose.desk import Desk
from dockyard.errors import InvalidParameter
from dockyard.http import Limits, Server
from dockyard.web.dash.pages import Pages


def serve(desk: Desk, address: str, token: str = "") -> int:
    """The exit status. ``address``: PORT or HOST:PORT. Raises InvalidParameter and OSError."""
    host, port = read_address(address)
    desk.start()
    try:
        asyncio.run(_serve(Pages(desk, token or secrets.token_urlsafe(18)), token, host, port))
    finally:
        desk.close()
    return 0


def read_address(address: str) -> tuple[str, int]:
    """Raises InvalidParameter."""
    host, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidParameter(f"cannot listen on {address!r}: expected PORT or HOST:PORT", hint="dockyard dash --web 127.0.0.1:8900")
    return host.strip("[]") or "127.0.0.1", int(port)


async def _serve(pages: Pages, given: str, host: str, port: int) -> None:
    server = Server(pages.handle, limits=Limits())
    try:
        pages.port = await server.listen_tcp(host, port)
    except OSError as error:
        raise InvalidParameter(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="dockyard dash --web 127.0.0.1:0 takes a free port"
        ) from None
    secret = "" if given else f"?token={pages.secret}"
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{pages.port}/{secret}", flush=True)
    if not _loopback(host):
        print("The page travels in the clear: put TLS before it, or use ssh -L and loopback.", file=sys.stderr, flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    pages.feed.closing = True
    pages.desk.close()
    await server.close(0.5)


def _loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
