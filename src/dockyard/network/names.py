"""The embedded name service at 127.0.0.11 of every sandbox on a user-defined network.

One process serves all: a UDP and a TCP socket are opened inside each sandbox and read on the daemon's loop. They have
ports of the kernel's choosing, and a table in the sandbox leads port 53 there, so that a name server in the container
can have 0.0.0.0:53 to itself::

    application -> 127.0.0.11:53 --lo ingress (table netdev dockyard_dns)--> 127.0.0.11:PORT = our socket

Known names are answered here (A, AAAA, PTR; another type of a known name is an empty answer, never forwarded). The rest
goes to the container's or the host's servers, from inside the sandbox, so that its routes and address count; servers on
the host's loopback are asked from the host (libnetwork#2187). From internal networks nothing goes out (CVE-2024-29018).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dockyard.kernel.netlink import NetlinkSocket
from dockyard.kernel.netlink_nft import NETLINK_NETFILTER, Redirect, make_redirects, redirects
from dockyard.network import dnswire
from dockyard.network.files import EMBEDDED_DNS

UPSTREAM_TIMEOUT = 4.0
CLIENT_TIMEOUT = 10.0
"""Seconds that a TCP client may be silent."""
IN_FLIGHT = 1024
MAX_UPSTREAMS = 3
TCP_CLIENTS = 256
MAX_MESSAGE = 65535
BURST = 64
"""Packets taken from one socket before others get their turn."""
KNOWN_QUESTIONS, KNOWN_SIZE = 128, 320
"""Questions of one sandbox whose answers are kept, and the longest such question in bytes: a container that makes up
spellings costs the daemon 100 KiB."""

TABLE = "dockyard_dns"
DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class Upstream:
    server: str
    from_host: bool
    """Asked from the daemon's namespace, as only it can reach its loopback."""


class Book(Protocol):
    """What the service asks of the controller."""

    def edition(self) -> object:
        """Another object after each change of anybody's name or address."""
        ...

    def addresses(self, container: str, name: str) -> list[str] | None: ...
    def owner(self, container: str, address: str) -> str | None: ...
    def upstreams(self, container: str) -> Sequence[Upstream]: ...
    def keeps(self, container: str, name: str) -> bool:
        """Whether a name that nobody here has is not forwarded either."""
        ...

    def dial(self, container: str, upstream: Upstream, kind: socket.SocketKind) -> Awaitable[socket.socket]:
        """A new socket in the sandbox, or the host where ``upstream`` says so."""
        ...


@dataclass(frozen=True, slots=True)
class Doors:
    """The sockets of one sandbox."""

    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


def open_doors(*, again: bool = False) -> Doors:
    """Call inside the sandbox's namespace. Where nf_tables is missing the sockets take port 53 itself.

    ``again``: a daemon before us left its table there. Its ports are taken again, so that the table stays: the kernel
    takes 3 to 27 ms to replace one (it waits for a grace period), where reading it costs 0.1 ms."""
    try:
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            if again and (found := _former_doors(netlink)) is not None:
                return found
            made = _bound(0, 0)
            try:
                doors = (("udp", made.udp), ("tcp", made.tcp))
                rows = [Redirect(kind, EMBEDDED_DNS, DNS_PORT, sock.getsockname()[1]) for kind, sock in doors]
                make_redirects(netlink, TABLE, rows, anew=again)
            except OSError:
                made.close()
                raise
            return made
    except OSError:
        return _bound(DNS_PORT, DNS_PORT)


def _former_doors(netlink: NetlinkSocket) -> Doors | None:
    """Sockets at the ports that the table in this sandbox leads to; None if that cannot be."""
    ports = redirects(netlink, TABLE)
    try:
        return _bound(ports["udp"], ports["tcp"])
    except (KeyError, OSError):
        return None


def _bound(udp_port: int, tcp_port: int) -> Doors:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((EMBEDDED_DNS, udp_port))
        tcp.bind((EMBEDDED_DNS, tcp_port))
        tcp.listen(64)
    except OSError:
        udp.close()
        tcp.close()
        raise
    return Doors(udp, tcp)


Answer = tuple[dnswire.Question, list[bytes]]
"""A question and the records that answer it, in no order."""


class NameService:
    """Most questions were asked before (a client asks at every connection), so an answer's bytes are kept under the
    question's, both without their first two, the ID. Measured: 2 of 13 microseconds are left to Python that way; the
    rest is the kernel's. What is kept is forgotten with the edition of the book."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._edition: object = None
        self._known: dict[str, dict[bytes, bytes | Answer]] = {}
        self._doors: dict[str, Doors] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, container: str, doors: Doors) -> None:
        self.drop(container)
        self._doors[container] = doors
        loop = asyncio.get_running_loop()
        loop.add_reader(doors.udp.fileno(), self._readable, container, doors.udp)
        loop.add_reader(doors.tcp.fileno(), self._acceptable, container, doors.tcp)

    def drop(self, container: str) -> None:
        self._known.pop(container, None)
        doors = self._doors.pop(container, None)
        if doors is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(doors.udp.fileno())
            loop.remove_reader(doors.tcp.fileno())
            doors.close()

    def close(self) -> None:
        for container in list(self._doors):
            self.drop(container)
        for task in self._tasks:
            task.cancel()

    def answer(self, container: str, data: bytes, *, stream: bool = False) -> bytes | None:
        """The answer to a query, or None to forward it."""
        if stream:
            found = self._look_up(container, data, MAX_MESSAGE)
            return found if found is None or isinstance(found, bytes) else _shuffled(found, MAX_MESSAGE)
        known = self._known_to(container)
        kept = known.get(data[2:])
        if kept is None:
            kept = self._look_up(container, data)
            if kept is None:
                return None
            if len(known) < KNOWN_QUESTIONS and len(data) <= KNOWN_SIZE:
                known[data[2:]] = kept
        return data[:2] + (kept[2:] if isinstance(kept, bytes) else _shuffled(kept, kept[0].size)[2:])

    def _known_to(self, container: str) -> dict[bytes, bytes | Answer]:
        edition = self._book.edition()
        if edition is not self._edition:
            self._edition = edition
            self._known.clear()
        return self._known.setdefault(container, {})

    def _look_up(self, container: str, data: bytes, limit: int = 0) -> bytes | Answer | None:
        """The whole answer, or its records where their order is to change; None to forward the question."""
        asked = dnswire.question(data)
        if asked is None:
            return None
        limit = limit or asked.size
        if asked.kind == dnswire.PTR:
            address = dnswire.reversed_address(asked.name)
            owner = self._book.owner(container, address) if address else None
            return dnswire.reply(asked, [dnswire.pointer(owner)], limit=limit) if owner else None
        found = self._book.addresses(container, asked.name)
        if found is None:
            kept = self._book.keeps(container, asked.name)
            return dnswire.refusal(data, dnswire.NXDOMAIN) if kept else None
        wanted = [item for item in found if asked.kind in {dnswire.AAAA if ":" in item else dnswire.A, dnswire.ANY}]
        records = [dnswire.address(item) for item in wanted]
        return (asked, records) if len(records) > 1 else dnswire.reply(asked, records, limit=limit)

    def _readable(self, container: str, door: socket.socket) -> None:
        for _ in range(BURST):
            try:
                data, client = door.recvfrom(4096)
            except OSError:
                return
            answer = self.answer(container, data)
            if answer is not None:
                _send(door, answer, client)
            elif len(self._tasks) < IN_FLIGHT:
                self._begin(self._forward_datagram(container, door, data, client))
            else:
                _send(door, dnswire.refusal(data, dnswire.SERVFAIL), client)

    def _acceptable(self, container: str, door: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = door.accept()
            if len(self._tasks) < TCP_CLIENTS:
                connection.setblocking(False)
                self._begin(self._serve_stream(container, connection))
            else:
                connection.close()

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward_datagram(
        self, container: str, door: socket.socket, data: bytes, client: tuple[str, int]
    ) -> None:
        _send(door, await self._forward(container, data, socket.SOCK_DGRAM), client)

    async def _serve_stream(self, container: str, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection, contextlib.suppress(OSError, TimeoutError, EOFError):
            while True:
                async with asyncio.timeout(CLIENT_TIMEOUT):
                    data = await _message(connection)
                answer = self.answer(container, data, stream=True)
                if answer is None:
                    answer = await self._forward(container, data, socket.SOCK_STREAM)
                async with asyncio.timeout(CLIENT_TIMEOUT):
                    await loop.sock_sendall(connection, struct.pack("!H", len(answer)) + answer)

    async def _forward(self, container: str, data: bytes, kind: socket.SocketKind) -> bytes:
        """The first usable answer of the servers in their order; a refusal if there is none."""
        for upstream in list(self._book.upstreams(container))[:MAX_UPSTREAMS]:
            try:
                async with asyncio.timeout(UPSTREAM_TIMEOUT):
                    answer = await self._ask(container, upstream, data, kind)
            except (TimeoutError, OSError, EOFError):
                continue
            refused, failed = 5, dnswire.SERVFAIL
            if len(answer) >= 12 and answer[3] & 0xF not in {refused, failed}:
                return answer
        return dnswire.refusal(data, dnswire.SERVFAIL)

    async def _ask(self, container: str, upstream: Upstream, data: bytes, kind: socket.SocketKind) -> bytes:
        loop = asyncio.get_running_loop()
        with await self._book.dial(container, upstream, kind) as sock:
            await loop.sock_connect(sock, (upstream.server, 53))
            if kind == socket.SOCK_STREAM:
                await loop.sock_sendall(sock, struct.pack("!H", len(data)) + data)
                return await _message(sock)
            await loop.sock_sendall(sock, data)
            while True:
                answer = await loop.sock_recv(sock, MAX_MESSAGE)
                if answer[:2] == data[:2]:
                    return answer


def _shuffled(answer: Answer, limit: int) -> bytes:
    """Another order at each question: clients take the first, so the load is spread."""
    asked, records = answer
    random.shuffle(records)
    return dnswire.reply(asked, records, limit=limit)


async def _message(sock: socket.socket) -> bytes:
    """One DNS message from a stream. Raises EOFError at its end."""
    size = struct.unpack("!H", await _exactly(sock, 2))[0]
    return await _exactly(sock, size)


async def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _send(door: socket.socket, answer: bytes, client: tuple[str, int]) -> None:
    if answer:
        with contextlib.suppress(OSError):  # the sandbox has gone, or its buffer is full: DNS clients ask again
            door.sendto(answer, client)
