"""``--publish`` and ``--expose``: exposed ports and port bindings (docker/go-connections nat.ParsePortSpec)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dockyard.cli.flags import UsageError
from dockyard.cli.request.values import csv_fields

Json = dict[str, Any]
_PROTOCOLS = ("tcp", "udp", "sctp")


def exposed(words: Iterable[str]) -> Json:
    """``{"80/tcp": {}}`` of ports and ranges."""
    found: Json = {}
    for word in words:
        if ":" in word:
            raise UsageError(f"invalid port format for --expose: {word}")
        text, protocol = _protocol(word)
        first, last = _range(text, f"invalid range format for --expose: {word}, error")
        found |= {f"{port}/{protocol}": {} for port in range(first, last + 1)}
    return found


def published(words: Iterable[str]) -> tuple[Json, Json]:
    """(exposed ports, port bindings)."""
    ports: Json = {}
    bindings: Json = {}
    for word in words:
        for port, binding in _spec(_long(word) if "=" in word else word):
            ports[port] = {}
            bindings.setdefault(port, []).append(binding)
    return ports, bindings


def _long(word: str) -> str:
    """``published=8080,target=80,protocol=udp`` in the short form."""
    known = {"target": "", "published": "", "protocol": "tcp", "mode": ""}
    for field in csv_fields(word):
        key, equals, value = field.partition("=")
        if not equals or key not in known:
            raise UsageError(f'invalid argument "{word}" for "-p, --publish" flag: invalid field {field}')
        known[key] = value
    if not known["target"]:
        raise UsageError(f'invalid argument "{word}" for "-p, --publish" flag: target is required')
    host = f"{known['published']}:" if known["published"] else ""
    return f"{host}{known['target']}/{known['protocol']}"


def _spec(word: str) -> list[tuple[str, Json]]:
    parts = word.split(":")
    target = parts.pop()
    host = parts.pop() if parts else ""
    address = ":".join(parts)
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    text, protocol = _protocol(target)
    if not text:
        raise _wrong(word, f"no port specified: {word}<empty>")
    if address and not _is_address(address):
        raise _wrong(word, f"invalid IP address: {address}")
    first, last = _range(text, f'invalid argument "{word}" for "-p, --publish" flag: invalid containerPort: {text}')
    if not host:
        return [(f"{port}/{protocol}", _binding(address, "")) for port in range(first, last + 1)]
    low, high = _range(host, f'invalid argument "{word}" for "-p, --publish" flag: invalid hostPort: {host}')
    if high - low == last - first:
        return [
            (f"{port}/{protocol}", _binding(address, str(low + port - first))) for port in range(first, last + 1)
        ]
    if first != last:
        raise _wrong(word, f"invalid ranges specified for container and host Ports: {text} and {host}")
    return [(f"{first}/{protocol}", _binding(address, host))]


def _binding(address: str, port: str) -> Json:
    return {"HostIp": address, "HostPort": port}


def _protocol(word: str) -> tuple[str, str]:
    text, _, protocol = word.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise UsageError(f"invalid proto: {protocol}")
    return text, protocol


def _range(text: str, told: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = [part for part in (first, last if dash else first) if part.isascii() and part.isdigit()]
    if len(numbers) < 2 or not 0 <= int(first) <= int(numbers[1]) < 65536:
        raise UsageError(told)
    return int(first), int(numbers[1])


def _is_address(text: str) -> bool:
    import socket

    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


def _wrong(word: str, told: str) -> UsageError:
    return UsageError(f'invalid argument "{word}" for "-p, --publish" flag: {told}')
