"""A connection taken over from HTTP: attach and exec with stdin, half-closable, multiplexed or raw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType

from dockyard.client.frames import RAW, STDOUT, Frame, decode
from dockyard.client.wire import READ_SIZE, Wire


class Hijacked:
    """Raw bytes in both directions. One thread may send while another reads."""

    def __init__(self, wire: Wire, content_type: str) -> None:
        self._wire = wire
        self.content_type = content_type
        wire.stream.settimeout(None)

    def __enter__(self) -> Hijacked:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def fileno(self) -> int:
        """For select; mind `pending` first: bytes may be read ahead already."""
        return self._wire.stream.fileno()

    @property
    def pending(self) -> bool:
        return bool(self._wire.buffer)

    def settimeout(self, seconds: float | None) -> None:
        self._wire.stream.settimeout(seconds)

    def send(self, data: bytes) -> None:
        self._wire.send(data)

    def close_write(self) -> None:
        """End of our input; the output goes on. Not an error when the daemon is gone already."""
        with contextlib.suppress(OSError):
            self._wire.stream.close_write()

    def abort(self) -> None:
        """End both directions now: a thread that waits in `recv` sees the end. `close` is still to be called."""
        with contextlib.suppress(OSError):
            self._wire.stream.abort()

    def recv(self, size: int = READ_SIZE) -> bytes:
        """Some bytes, empty at the end."""
        return self._wire.take(size)

    def frames(self, *, tty: bool | None = None) -> Iterator[Frame]:
        """The output. ``tty`` (the container's own setting) decides raw or multiplexed; None: by content type.

        Engines before API 1.42 answer `application/vnd.docker.raw-stream` in both cases, so callers that know give it.
        """
        pieces = iter(self.recv, b"")
        if tty if tty is not None else self.content_type == RAW:
            return (Frame(STDOUT, piece) for piece in pieces)
        return decode(pieces)

    def close(self) -> None:
        self._wire.close()
