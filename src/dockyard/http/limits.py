"""Bounds of the server, each with its name and the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """All waits are in seconds and are checked by one sweep a second, so they are exact to a second."""

    head_bytes: int = 64 * KIB
    """Request line and headers. Registry tokens with many scopes reach 16 KiB; above it the answer is 431."""
    line_bytes: int = 32 * KIB
    """Request target; docker's `filters` and `buildargs` travel in it. Above it the answer is 414."""
    body_bytes: int = 16 * 1024 * KIB
    """What `Request.body()` keeps in memory when the caller names no limit of its own."""
    read_ahead_bytes: int = 256 * KIB
    """Bytes that wait for their reader before the socket is no longer read."""
    write_ahead_bytes: int = 256 * KIB
    """Bytes that wait for the client before a stream is held up."""
    discard_bytes: int = 1024 * KIB
    """Body that nobody read: swallowed up to here to keep the connection, closed above."""
    head_seconds: float = 20.0
    """From the first byte of a head to its end."""
    idle_seconds: float = 180.0
    """Between requests; Go's client keeps an idle connection for 90 s, so the client closes first and sees no reset."""
    body_seconds: float = 60.0
    """Silence in the middle of a body that someone is reading."""
    write_seconds: float | None = None
    """Silence of a client that has bytes to take. None: for ever, as a `docker logs` stopped with Ctrl-S needs."""
    linger_seconds: float = 5.0
    """How long a refused client may still talk before the connection is cut."""
    close_seconds: float = 10.0
    """How long a closing server waits for requests in flight."""
