"""Published ports: from what was asked to host ports that are held for the container.

A held port is a bound socket of the daemon's: another program cannot take it, and a port taken by another program is an
error at start instead of silence (moby libnetwork/portallocator holds sockets as well).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dockyard.model import PortBinding
from dockyard.network.errors import BAD, IPV6_TARGET, PORT_TAKEN
from dockyard.network.model import Published

Row = tuple[int, str, str, range]
FIRST_DYNAMIC, LAST_DYNAMIC = 32768, 60999
_KINDS = {"tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP), "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP)}


def wanted(
    exposed: Iterable[str], bindings: Mapping[str, Sequence[PortBinding] | None], publish_all: bool
) -> list[Row]:
    """(container port, protocol, host address or "", host ports to try). Pure."""
    rows: list[Row] = []
    specs = dict(bindings)
    if publish_all:
        specs |= {port: [PortBinding()] for port in exposed if not specs.get(port)}
    for spec, choices in specs.items():
        number, _, protocol = spec.partition("/")
        for choice in choices or ():
            first, _, last = choice.host_port.partition("-")
            span = range(int(first), int(last or first) + 1) if first and int(first) else range(0)
            rows.append((int(number), protocol or "tcp", choice.host_ip, span))
    return rows


@dataclass(frozen=True, slots=True)
class Who:
    """Whom ports are published for."""

    name: str
    endpoint: str
    address: str
    address6: str

    def targets(self, host_ip: str, default_ip: str, port: int) -> list[tuple[str, str]]:
        """(host address, container's address): both families where nobody said which and the container has both."""
        at = host_ip or default_ip
        if ":" not in at:
            both = not host_ip and at == "0.0.0.0" and self.address6
            found = [(at, self.address)] if self.address else []
            return found + ([("::", self.address6)] if both else [])
        if not self.address6:
            raise IPV6_TARGET(host_ip=at, port=port)
        return [(at, self.address6)]


class Holder:
    """The sockets that hold the host's ports, by container."""

    def __init__(self) -> None:
        self._held: dict[str, list[socket.socket]] = {}
        self._next = FIRST_DYNAMIC

    def hold(self, container: str, who: Who, rows: Iterable[Row], default_ip: str) -> list[Published]:
        """All of them or none. Raises System with Docker's sentence naming address and port."""
        made: list[Published] = []
        sockets = self._held.setdefault(container, [])
        try:
            for port, protocol, host_ip, span in rows:
                targets = who.targets(host_ip, default_ip, port)
                host_port = self._hold_one(sockets, protocol, [at for at, _ in targets], span, who)
                made += [Published(port, protocol, at, host_port, address) for at, address in targets]
        except BaseException:
            self.release(container)
            raise
        return made

    def hold_again(self, container: str, ports: Iterable[Published]) -> None:
        """After a restart of the daemon; a port that somebody else took meanwhile stays published all the same."""
        sockets = self._held.setdefault(container, [])
        for item in ports:
            if not item.direct and (made := _bind(item.protocol, item.host_ip, item.host_port)) is not None:
                sockets.append(made)

    def release(self, container: str) -> None:
        for item in self._held.pop(container, ()):
            item.close()

    def _hold_one(
        self, sockets: list[socket.socket], protocol: str, at: Sequence[str], span: range, who: Who
    ) -> int:
        """One port that is free at all of the addresses."""
        for port in span or self._dynamic():
            made = [sock for host_ip in at if (sock := _bind(protocol, host_ip, port)) is not None]
            if len(made) == len(at):
                sockets += made
                return port
            for sock in made:
                sock.close()
        shown = span.start if span else 0
        raise PORT_TAKEN(name=who.name, endpoint=who.endpoint, address=at[0], port=shown)

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
        if ":" in host_ip:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host_ip, port))
        if kind == socket.SOCK_STREAM:
            # Listening makes the hold exclusive; nobody reaches it, for the rule takes the packets before.
            made.listen(0)
    except PermissionError:
        made.close()
        raise BAD(cause=f"cannot bind {host_ip}:{port}: permission denied") from None
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise BAD(cause=f"cannot bind {host_ip}:{port}: {host_ip} is no address of this host") from None
        return None
    return made
