"""A way out of a private engine's network namespace: a TCP port inside it that leads to one host of the outside.

The listening socket is made inside the namespace, connections go out from here; nothing is added to the host's network.
apt takes it as an HTTP proxy: ``http://GATEWAY:PORT``.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from dockyard.kernel import netns
from dockyard.testing.engines import PrivateEngine

__all__ = ["uplink"]

PIECE = 1 << 16
BACKLOG = 64


@contextlib.contextmanager
def uplink(engine: PrivateEngine, host: str, port: int = 80) -> Iterator[int]:
    """The number of a port, on every address of the engine's namespace, whose connections end at ``host:port``."""
    made: list[socket.socket] = []

    def listen() -> None:
        with netns.entered(f"/proc/{engine.process.pid}/ns/net"):
            sock = socket.create_server(("0.0.0.0", 0), backlog=BACKLOG)
        made.append(sock)

    maker = threading.Thread(target=listen)  # a thread of its own: the namespace is the thread's
    maker.start()
    maker.join()
    listener = made[0]
    accepting = threading.Thread(target=_accept, args=(listener, host, port), daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(10)


def _accept(listener: socket.socket, host: str, port: int) -> None:
    while True:
        try:
            inner, _ = listener.accept()
        except OSError:
            return
        try:
            outer = socket.create_connection((host, port), timeout=30)
        except OSError:
            inner.close()
            continue
        outer.settimeout(None)
        threading.Thread(target=_join, args=(inner, outer), daemon=True).start()


def _join(inner: socket.socket, outer: socket.socket) -> None:
    with inner, outer:
        sending = threading.Thread(target=_pump, args=(inner, outer), daemon=True)
        sending.start()
        _pump(outer, inner)
        sending.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(PIECE):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        source.shutdown(socket.SHUT_RD)
