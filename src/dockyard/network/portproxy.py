"""The port proxy: a process that carries published ports where the kernel does not (dockerd's docker-proxy, one for all).

That is: from the host's IPv6 to a container's IPv4, from ``::1``, and all ports with --iptables=false. It lives apart
from the daemon, so that connections and ports outlive it. ``python -m dockyard.network.portproxy CONTROL`` listens on
the unix socket CONTROL for one JSON message at a time::

    {"add": CONTAINER, "rows": [{"protocol", "address", "port"}, ...]} with one bound socket per row
    {"drop": CONTAINER}    {"keep": [CONTAINER, ...]}                           answer: ok, or what is wrong

It ends when nothing is left to carry and no daemon is connected, or its socket's path is gone (the engine's directory
was removed). Bounds: ``CONNECTIONS`` at once, ``UDP_CLIENTS`` per
port for ``UDP_IDLE`` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from typing import Any

CONNECTIONS = 4096
LOOK_AROUND = 10.0
"""Seconds between two looks at whether the engine's directory is still there."""
CONNECT_LIMIT = 10.0
BUFFER = 1 << 16
UDP_CLIENTS = 1024
UDP_IDLE = 90.0
MESSAGE = 1 << 22
DESCRIPTORS = 128


class Port:
    """One published port: a bound socket and where it leads."""

    def __init__(self, sock: socket.socket, address: str, port: int, crowd: asyncio.Semaphore) -> None:
        self._sock = sock
        self._target = (address, port)
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._crowd = crowd
        self._tasks: set[asyncio.Task[Any]] = set()
        sock.setblocking(False)
        self._begin(self._datagrams() if sock.type == socket.SOCK_DGRAM else self._connections())

    def close(self) -> None:
        """Connections that are there end, too: their container has gone."""
        for task in self._tasks:
            task.cancel()
        self._sock.close()

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connections(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._crowd.acquire()
            try:
                client, _ = await loop.sock_accept(self._sock)
            except OSError:
                self._crowd.release()
                await asyncio.sleep(0.1)  # out of descriptors: those that are served go on
                continue
            self._begin(self._carry(client))

    async def _carry(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        server = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            with client, server:
                for sock in (client, server):
                    sock.setblocking(False)
                async with asyncio.timeout(CONNECT_LIMIT):
                    await loop.sock_connect(server, self._target)
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                async with asyncio.TaskGroup() as group:
                    group.create_task(_copy(client, server))
                    group.create_task(_copy(server, client))
        except* (OSError, TimeoutError):
            pass
        finally:
            self._crowd.release()

    async def _datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        peers: dict[Any, socket.socket] = {}
        while True:
            try:
                data, client = await loop.sock_recvfrom(self._sock, BUFFER)
            except OSError:
                await asyncio.sleep(0.01)  # an ICMP error of somebody's; the socket stays good
                continue
            server = peers.get(client)
            if server is None:
                if len(peers) >= UDP_CLIENTS:
                    continue
                server = peers[client] = socket.socket(self._family, socket.SOCK_DGRAM)
                server.setblocking(False)
                server.connect(self._target)
                self._begin(self._answers(peers, client, server))
            with contextlib.suppress(OSError):
                server.send(data)

    async def _answers(self, peers: dict[Any, socket.socket], client: Any, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            with server, contextlib.suppress(OSError, TimeoutError):
                while True:
                    async with asyncio.timeout(UDP_IDLE):
                        data = await loop.sock_recv(server, BUFFER)
                    self._sock.sendto(data, client)
        finally:
            peers.pop(client, None)


async def _copy(source: socket.socket, sink: socket.socket) -> None:
    """To the end of the stream, which is passed on as a half close."""
    loop = asyncio.get_running_loop()
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)
    while size := await loop.sock_recv_into(source, buffer):
        await loop.sock_sendall(sink, view[:size])
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class Control:
    def __init__(self) -> None:
        self._ports: dict[str, list[Port]] = {}
        self._daemons = 0
        self._crowd = asyncio.Semaphore(CONNECTIONS)
        self.idle = asyncio.Event()

    async def serve(self, daemon: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._daemons += 1
        ready, number = asyncio.Event(), daemon.fileno()
        loop.add_reader(number, ready.set)
        try:
            while True:
                await ready.wait()
                ready.clear()
                try:
                    data, descriptors, _, _ = socket.recv_fds(daemon, MESSAGE, DESCRIPTORS)
                except BlockingIOError:
                    continue  # the loop told twice of what was read once
                if not data:
                    return
                daemon.send(self._answer(data, descriptors))
        except OSError:
            return
        finally:
            loop.remove_reader(number)
            daemon.close()
            self._daemons -= 1
            if not self._daemons and not self._ports:
                self.idle.set()

    def _answer(self, data: bytes, descriptors: list[int]) -> bytes:
        socks = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        try:
            request = json.loads(data)
            if "drop" in request:
                self._drop(request["drop"])
            elif "keep" in request:
                for name in set(self._ports) - set(request["keep"]):
                    self._drop(name)
            else:
                for row, sock in zip(request["rows"], socks, strict=True):
                    port = Port(sock, row["address"], int(row["port"]), self._crowd)
                    self._ports.setdefault(request["add"], []).append(port)
                socks = []
        except (ValueError, KeyError, TypeError) as error:
            return f"cannot read the request: {error}".encode()
        finally:
            for sock in socks:
                sock.close()
        return b"ok"

    def _drop(self, name: str) -> None:
        for port in self._ports.pop(name, ()):
            port.close()


def listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    part = f"{path}.{os.getpid()}"
    listener.bind(part)
    os.chmod(part, 0o600)
    listener.listen(8)
    listener.setblocking(False)
    os.rename(part, path)
    return listener


async def serve(listener: socket.socket, path: str) -> None:
    control, loop = Control(), asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        while True:
            daemon, _ = await loop.sock_accept(listener)
            daemon.setblocking(False)
            task = loop.create_task(control.serve(daemon))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    accepting = loop.create_task(accept())
    while not control.idle.is_set() and os.path.exists(path):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AROUND):
                await control.idle.wait()
    accepting.cancel()


def main(path: str) -> None:
    """The caller waits for this process only until it listens; a child goes on, whose parent is init."""
    listener = listen(path)
    if os.fork():
        os._exit(0)
    asyncio.run(serve(listener, path))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


if __name__ == "__main__":
    main(sys.argv[1])
