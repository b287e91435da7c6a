"""Published ports: from what was asked to host ports that are held for the container.

A held port is a bound socket of the daemon's: another program cannot take it, and a port taken by another program is an
error at start instead of silence (moby libnetwork/portallocator holds sockets as well).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence

from dockyard.model import PortBinding
from dockyard.network.errors import BAD, PORT_TAKEN
from dockyard.network.model import Published

FIRST_DYNAMIC, LAST_DYNAMIC = 32768, 60999
_KINDS = {"tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP), "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP)}


def wanted(
    exposed: Iterable[str], bindings: Mapping[str, Sequence[PortBinding] | None], publish_all: bool, default_ip: str
) -> list[tuple[int, str, str, range]]:
    """(container port, protocol, host address, host ports to try). Pure."""
    rows: list[tuple[int, str, str, range]] = []
    specs = dict(bindings)
    if publish_all:
        specs |= {port: [PortBinding()] for port in exposed if not specs.get(port)}
    for spec, choices in specs.items():
        number, _, protocol = spec.partition("/")
        for choice in choices or ():
            first, _, last = choice.host_port.partition("-")
            span = range(int(first), int(last or first) + 1) if first and int(first) else range(0)
            rows.append((int(number), protocol or "tcp", choice.host_ip or default_ip, span))
    return rows


class Holder:
    """The sockets that hold the host's ports, by container."""

    def __init__(self) -> None:
        self._held: dict[str, list[socket.socket]] = {}
        self._next = FIRST_DYNAMIC

    def hold(
        self, container: str, name: str, endpoint: str, rows: Iterable[tuple[int, str, str, range]], address: str
    ) -> list[Published]:
        """All of them or none. Raises System with Docker's sentence naming address and port."""
        made: list[Published] = []
        sockets = self._held.setdefault(container, [])
        try:
            for port, protocol, host_ip, span in rows:
                host_port = self._hold_one(sockets, protocol, host_ip, span, name, endpoint)
                made.append(Published(port, protocol, host_ip, host_port, address))
        except BaseException:
            self.release(container)
            raise
        return made

    def hold_again(self, container: str, ports: Iterable[Published]) -> None:
        """After a restart of the daemon; a port that somebody else took meanwhile stays published all the same."""
        sockets = self._held.setdefault(container, [])
        for item in ports:
            if (made := _bind(item.protocol, item.host_ip, item.host_port)) is not None:
                sockets.append(made)

    def release(self, container: str) -> None:
        for item in self._held.pop(container, ()):
            item.close()

    def _hold_one(
        self, sockets: list[socket.socket], protocol: str, host_ip: str, span: range, name: str, endpoint: str
    ) -> int:
        for port in span or self._dynamic():
            if (made := _bind(protocol, host_ip, port)) is not None:
                sockets.append(made)
                return port
        shown = span.start if span else 0
        raise PORT_TAKEN(name=name, endpoint=endpoint, address=host_ip, port=shown)

    def _dynamic(self) -> Iterable[int]:
        span = LAST_DYNAMIC - FIRST_DYNAMIC + 1
        for step in range(span):
            port = FIRST_DYNAMIC + (self._next - FIRST_DYNAMIC + step) % span
            self._next = port + 1
            yield port


def _bind(protocol: str, host_ip: str, port: int) -> socket.socket | None:
    if protocol not in _KINDS:  # sctp: the kernel may lack its sockets; the rule alone is made
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    kind, number = _KINDS[protocol]
    made = socket.socket(socket.AF_INET6 if ":" in host_ip else socket.AF_INET, kind, number)
    try:
        made.bind((host_ip, port))
        if kind == socket.SOCK_STREAM:
            # Listening makes the hold exclusive; nobody reaches it, for the rule takes the packets before.
            made.listen(0)
    except PermissionError:
        made.close()
        raise BAD(cause=f"cannot bind {host_ip}:{port}: permission denied") from None
    except OSError:
        made.close()
        return None
    return made
