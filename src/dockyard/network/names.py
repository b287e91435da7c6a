"""The embedded name service at 127.0.0.11 of every sandbox on a user-defined network.

One process serves all: a UDP socket is opened inside each sandbox and read on the daemon's loop. Names of the sandbox's
networks are answered here (A and PTR; another type of a known name is an empty answer, never forwarded); the rest goes
to the host's or the container's servers, and nowhere from internal networks (CVE-2024-29018).
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Sequence

import dnslib

from dockyard.network.files import EMBEDDED_DNS

TTL = 600
UPSTREAM_TIMEOUT = 4.0
IN_FLIGHT = 1024
MAX_UPSTREAMS = 3

Lookup = Callable[[str, str], list[str] | None]
"""(container, lower-case name without the last dot) -> addresses; None if the name is not known here."""


class NameService:
    def __init__(self, lookup: Lookup, reverse: Callable[[str, str], str | None], upstreams: Callable[[str], Sequence[str]]) -> None:
        self._lookup = lookup
        self._reverse = reverse
        self._upstreams = upstreams
        self._sockets: dict[str, socket.socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @staticmethod
    def open_socket() -> socket.socket:
        """Call inside the sandbox's namespace."""
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((EMBEDDED_DNS, 53))
        return made

    def serve(self, container: str, sock: socket.socket) -> None:
        self.drop(container)
        self._sockets[container] = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable, container, sock)

    def drop(self, container: str) -> None:
        sock = self._sockets.pop(container, None)
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()

    def close(self) -> None:
        for container in list(self._sockets):
            self.drop(container)
        for task in self._tasks:
            task.cancel()

    def _readable(self, container: str, sock: socket.socket) -> None:
        for _ in range(32):
            try:
                data, client = sock.recvfrom(4096)
            except (BlockingIOError, OSError):
                return
            answer = self.answer(container, data)
            if answer is not None:
                _send(sock, answer, client)
            elif len(self._tasks) < IN_FLIGHT:
                task = asyncio.get_running_loop().create_task(self._forward(container, sock, data, client))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def answer(self, container: str, data: bytes) -> bytes | None:
        """The answer to a query, or None to forward it. A packet that is no query gets an empty reply."""
        try:
            query = dnslib.DNSRecord.parse(data)
            question = query.q
            name = str(question.qname).rstrip(".").lower()
        except (dnslib.DNSError, ValueError, IndexError):
            return b""
        reply = query.reply(ra=1, aa=0)
        if question.qtype == dnslib.QTYPE.PTR and name.endswith(".in-addr.arpa"):
            address = ".".join(reversed(name.removesuffix(".in-addr.arpa").split(".")))
            owner = self._reverse(container, address)
            if owner is None:
                return None
            reply.add_answer(dnslib.RR(question.qname, dnslib.QTYPE.PTR, rdata=dnslib.PTR(owner), ttl=TTL))
            return bytes(reply.pack())
        addresses = self._lookup(container, name)
        if addresses is None:
            return None
        if question.qtype in {dnslib.QTYPE.A, dnslib.QTYPE.ANY}:
            for address in random.sample(addresses, len(addresses)):
                reply.add_answer(dnslib.RR(question.qname, dnslib.QTYPE.A, rdata=dnslib.A(address), ttl=TTL))
        return bytes(reply.pack())

    async def _forward(self, container: str, sock: socket.socket, data: bytes, client: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        for server in list(self._upstreams(container))[:MAX_UPSTREAMS]:
            with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as upstream:
                upstream.setblocking(False)
                try:
                    async with asyncio.timeout(UPSTREAM_TIMEOUT):
                        await loop.sock_connect(upstream, (server, 53))
                        await loop.sock_sendall(upstream, data)
                        answer = await loop.sock_recv(upstream, 4096)
                except (TimeoutError, OSError):
                    continue
            _send(sock, answer, client)
            return
        _send(sock, bytes(_refusal(data)), client)


def _refusal(data: bytes) -> bytes:
    try:
        reply = dnslib.DNSRecord.parse(data).reply(ra=1)
    except (dnslib.DNSError, ValueError, IndexError):
        return b""
    reply.header.rcode = dnslib.RCODE.SERVFAIL
    return bytes(reply.pack())


def _send(sock: socket.socket, answer: bytes, client: tuple[str, int]) -> None:
    if answer:
        try:
            sock.sendto(answer, client)
        except OSError:
            return  # The sandbox has gone.
