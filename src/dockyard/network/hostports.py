"""Published ports: from what was asked to host ports that are held for the container.

A held port is a bound socket of the daemon's: another program cannot take it, and a port taken by another program is an
error at start instead of silence (moby libnetwork/portallocator holds sockets as well).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dockyard.kernel import sysctl
from dockyard.model import PortBinding
from dockyard.network.errors import BAD, IPV6_TARGET, PORT_BUSY, PORT_TAKEN
from dockyard.network.model import Published

Row = tuple[int, str, str, range]
DEFAULT_DYNAMIC = range(32768, 61000)
MAX_PORT = 65535
BACKLOG = 128
"""Where nobody accepts, nobody arrives either: the rules take the packets before."""
_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP), "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}  # fmt: skip
_ANY = frozenset({"0.0.0.0", "::"})


def wanted(
    exposed: Iterable[str], bindings: Mapping[str, Sequence[PortBinding] | None], publish_all: bool
) -> list[Row]:
    """(container port, protocol, host address or "", host ports to try; none: any free one). Raises InvalidParameter.

    A range of container ports takes the host's range one by one, if that has as many."""
    specs = dict(bindings)
    if publish_all:
        specs |= {port: [PortBinding()] for port in exposed if not specs.get(port)}
    rows: list[Row] = []
    for spec, choices in specs.items():
        numbers, _, protocol = spec.partition("/")
        ports = _span(numbers)
        for choice in choices or ():
            span = _span(choice.host_port)
            if span == range(1):
                span = range(0)
            for index, port in enumerate(ports):
                chosen = span[index : index + 1] if len(ports) > 1 and len(span) == len(ports) else span
                rows.append((port, protocol or "tcp", choice.host_ip, chosen))
    return rows


def _span(text: str) -> range:
    if not text:
        return range(0)
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first.isdigit() and last.isdigit() and int(first) <= int(last) <= MAX_PORT):
        raise BAD(cause=f'invalid port specification: "{text}"')
    return range(int(first), int(last) + 1)


def ipv6_listens() -> bool:
    """Whether programs of this host can be reached over IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as made:
            made.bind(("::", 0))
    except OSError:
        return False
    return True


def dynamic_range() -> range:
    """Where ports that nobody chose come from: the kernel's own for outgoing connections (moby portallocator)."""
    words = (sysctl.read("net.ipv4.ip_local_port_range") or "").split()
    return range(int(words[0]), int(words[1]) + 1) if len(words) == 2 else DEFAULT_DYNAMIC


def reserved_ports() -> frozenset[int]:
    found: set[int] = set()
    for part in (sysctl.read("net.ipv4.ip_local_reserved_ports") or "").split(","):
        found |= set(_span(part.strip()))
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Who:
    """Whom ports are published for."""

    name: str
    endpoint: str
    address: str
    address6: str
    proxy: bool = False
    """A process may carry what the kernel cannot: from the host's IPv6 to the container's IPv4."""

    def targets(self, host_ip: str, default_ip: str, port: int) -> list[tuple[str, str]]:
        """(host address, container's address): both families where nobody said which and the container has both."""
        at = host_ip or default_ip
        if ":" not in at:
            both = not host_ip and at == "0.0.0.0" and (self.address6 or self.proxy)
            found = [(at, self.address)] if self.address else []
            return found + ([("::", self.address6 or self.address)] if both else [])
        if self.address6:
            return [(at, self.address6)]
        if self.proxy and self.address:
            return [(at, self.address)]
        raise IPV6_TARGET(host_ip=at, port=port)


@dataclass(slots=True)
class _Held:
    """One container's name and ports: (protocol, address, port) with the socket that holds it, if there is one."""

    name: str
    ports: dict[tuple[str, str, int], socket.socket | None] = field(default_factory=dict)


class Holder:
    """The sockets that hold the host's ports, by container."""

    def __init__(self, *, listen6: bool) -> None:
        """``listen6``: a process accepts on the sockets for IPv6. Where none does they refuse, for ::1 comes here past
        the rules: the kernel cannot translate it."""
        self._listen6 = listen6
        self._held: dict[str, _Held] = {}
        self._owners: dict[tuple[str, bool, int], dict[str, str]] = {}
        """(protocol, IPv6?, port): host address to container."""
        self._next = 0

    def hold(self, container: str, who: Who, rows: Iterable[Row], default_ip: str) -> list[Published]:
        """All of them or none. Raises System with Docker's sentence naming address, port and who has it."""
        made: list[Published] = []
        held = self._held.setdefault(container, _Held(who.name))
        try:
            for port, protocol, host_ip, span in rows:
                targets = who.targets(host_ip, default_ip, port)
                host_port = self._hold_one(held, container, protocol, [at for at, _ in targets], span, who)
                made += [
                    Published(port, protocol, at, host_port, address, proxied=(":" in at) != (":" in address))
                    for at, address in targets
                ]
        except BaseException:
            self.release(container)
            raise
        return made

    def hold_again(self, container: str, name: str, ports: Iterable[Published]) -> None:
        """After a restart of the daemon; a port that somebody else took meanwhile stays published all the same."""
        held = self._held.setdefault(container, _Held(name))
        for item in ports:
            key = (item.protocol, item.host_ip, item.host_port)
            if not item.direct and key not in held.ports:
                try:
                    held.ports[key] = self._bind(*key)
                except OSError:
                    held.ports[key] = None
                self._own(key, container)

    def release(self, container: str) -> None:
        held = self._held.pop(container, None)
        for key, sock in held.ports.items() if held else ():
            self._disown(key)
            if sock is not None:
                sock.close()

    def close(self) -> None:
        """With the daemon. Rules and proxy go on."""
        for container in list(self._held):
            self.release(container)

    def holding(self, container: str, item: Published) -> socket.socket | None:
        """The socket that holds a port, if this process has it."""
        held = self._held.get(container)
        return held.ports.get((item.protocol, item.host_ip, item.host_port)) if held else None

    def _hold_one(
        self, held: _Held, container: str, protocol: str, at: Sequence[str], span: range, who: Who
    ) -> int:
        """One port that is free at all of the addresses."""
        for port in span or self._dynamic():
            if any(self._taken(protocol, host_ip, port) for host_ip in at):
                continue
            made: dict[tuple[str, str, int], socket.socket | None] = {}
            try:
                for host_ip in at:
                    made[(protocol, host_ip, port)] = self._bind(protocol, host_ip, port)
            except OSError as error:
                for sock in made.values():
                    if sock is not None:
                        sock.close()
                if error.errno != errno.EADDRINUSE:
                    raise _refusal(error, protocol, at, port) from None
                continue
            held.ports |= made
            for key in made:
                self._own(key, container)
            return port
        raise self._none_left(protocol, at, span, who)

    def _taken(self, protocol: str, host_ip: str, port: int) -> str:
        """The container that holds a port at that address, or at all addresses, or at any if all are asked for."""
        owners = self._owners.get((protocol, ":" in host_ip, port), {})
        for address, owner in owners.items():
            if address == host_ip or address in _ANY or host_ip in _ANY:
                return self._held[owner].name
        return ""

    def _bind(self, protocol: str, host_ip: str, port: int) -> socket.socket | None:
        return bind(protocol, host_ip, port, listen=self._listen6 or ":" not in host_ip)

    def _own(self, key: tuple[str, str, int], container: str) -> None:
        protocol, address, port = key
        self._owners.setdefault((protocol, ":" in address, port), {})[address] = container

    def _disown(self, key: tuple[str, str, int]) -> None:
        protocol, address, port = key
        place = (protocol, ":" in address, port)
        owners = self._owners.get(place, {})
        owners.pop(address, None)
        if not owners:
            self._owners.pop(place, None)

    def _none_left(self, protocol: str, at: Sequence[str], span: range, who: Who) -> Exception:
        shown = span.start if span else 0
        for host_ip in at:
            if holder := self._taken(protocol, host_ip, shown):
                return PORT_TAKEN(name=who.name, endpoint=who.endpoint, address=host_ip, port=shown, holder=holder)
        return PORT_BUSY(name=who.name, endpoint=who.endpoint, address=at[0], port=shown, protocol=protocol)

    def _dynamic(self) -> Iterable[int]:
        span, skip = dynamic_range(), reserved_ports()
        for step in range(len(span)):
            port = span[(self._next + step) % len(span)]
            if port not in skip:
                self._next = (port - span.start + 1) % len(span)
                yield port


def _refusal(error: OSError, protocol: str, at: Sequence[str], port: int) -> Exception:
    if error.errno == errno.EADDRNOTAVAIL:
        return BAD(cause=f"cannot bind {at[0]}:{port}/{protocol}: {at[0]} is no address of this host")
    return BAD(cause=f"cannot bind {at[0]}:{port}/{protocol}: {error.strerror}")


def bind(protocol: str, host_ip: str, port: int, *, listen: bool) -> socket.socket | None:
    """Raises OSError. None for a protocol whose sockets this kernel lacks (sctp): the engine's own book is all then."""
    kind, number = _KINDS[protocol]
    try:
        made = socket.socket(socket.AF_INET6 if ":" in host_ip else socket.AF_INET, kind, number)
    except OSError as error:
        if error.errno in {errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT}:
            return None
        raise
    try:
        if ":" in host_ip:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM and listen:
            # Connections that ended lately do not stand in the way; listening makes the hold exclusive.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host_ip, port))
        if kind == socket.SOCK_STREAM and listen:
            made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
