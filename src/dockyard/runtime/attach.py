"""The attach hub: one connection to a container's conmon, any number of clients.

conmon writes to its attach clients with blocking writes, so one client that does not read freezes the container and its
log (measured: stuck at 151 kB). The daemon is therefore the only client, and always reads::

    container -> conmon -> [one SOCK_SEQPACKET connection] -> Hub -> Subscription (bounded) -> client
                                                               \\--> Subscription (bounded) -> client
    container <- conmon <-------------------- stdin <--------- Hub <- any attachment

A client that reads gets every byte: while its buffer is full the hub does not read, as a pipe would do. That grace is
bounded: a client that takes nothing for ``STALL_LIMIT`` is cut off (Overflow.CUT), or never waited for at all and loses
its oldest frames instead (Overflow.DROP). The log does not pass through here and misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from dockyard.errors import DockyardError
from dockyard.runtime import errors
from dockyard.runtime.model import STDERR, STDOUT, Frame

BUFFER_LIMIT = 1 << 20
"""Bytes that wait for one client."""
STALL_LIMIT = 2.0
"""Seconds that a full client may hold up the container."""
MERGE_LIMIT = 64 << 10
PACKET = (8 << 10) + 1
"""conmon's packets: one byte of type, up to 8 KiB of data."""
STDIN_PACKET = 8 << 10
_READS_AT_ONCE = 32


class Overflow(enum.Enum):
    CUT = "cut"
    DROP = "drop"


class Source(Protocol):
    """Where a subscription's frames come from."""

    def resume(self) -> None: ...
    def forget(self, subscription: Subscription) -> None: ...


class Subscription:
    """One client's view of the output. Iterate it to the end, or ``close`` it."""

    def __init__(self, hub: Source, streams: frozenset[int], overflow: Overflow) -> None:
        self.streams = streams
        self.overflow = overflow
        self._hub = hub
        self._frames: deque[Frame] = deque()
        self._size = 0
        self._ended = False
        self._failure: DockyardError | None = None
        self._wake = asyncio.Event()
        self.taken = 0
        """Frames taken so far, by which the hub sees whether a full client moves."""

    @property
    def full(self) -> bool:
        return self._size >= BUFFER_LIMIT and not self._ended

    def put(self, frame: Frame) -> None:
        if self._ended or frame.stream not in self.streams:
            return
        self._frames.append(frame)
        self._size += len(frame.data)
        while self.overflow is Overflow.DROP and self._size > BUFFER_LIMIT:
            self._size -= len(self._frames.popleft().data)
        self._wake.set()

    def end(self, failure: DockyardError | None = None) -> None:
        """No more frames will come; those that wait are still delivered, then ``failure`` is raised."""
        if not self._ended:
            self._ended = True
            self._failure = failure
            self._wake.set()

    def close(self) -> None:
        self.end()
        self._frames.clear()
        self._hub.forget(self)

    async def frames(self) -> AsyncIterator[Frame]:
        """Until the container's output ends. Raises System (DY-RUN-023) if this client was too slow."""
        try:
            while True:
                while self._frames:
                    yield self._take()
                if self._ended:
                    break
                self._wake.clear()
                await self._wake.wait()
            if self._failure is not None:
                raise self._failure
        finally:
            self.close()

    def _take(self) -> Frame:
        """The next frame, together with those of the same stream right behind it."""
        first = self._frames.popleft()
        pieces, size = [first.data], len(first.data)
        while self._frames and self._frames[0].stream == first.stream and size < MERGE_LIMIT:
            pieces.append(self._frames.popleft().data)
            size += len(pieces[-1])
        was_full = self.full
        self._size -= size
        self.taken += 1
        if was_full:
            self._hub.resume()
        return Frame(first.stream, b"".join(pieces)) if len(pieces) > 1 else first


class Hub:
    """``on_output`` hears of each packet before any client (log rotation counts with it)."""

    def __init__(self, *, stdin: bool, closes_stdin: bool, on_output: Callable[[bytes], None]) -> None:
        self._stdin = stdin
        self._closes_stdin = closes_stdin
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._reading = False
        self._subscriptions: set[Subscription] = set()
        self._stalled: asyncio.TimerHandle | None = None
        self._seen: dict[Subscription, int] = {}
        self._write_lock = asyncio.Lock()
        self._writable_again = asyncio.Event()
        self._eof = False
        self.ended = asyncio.Event()

    def connect(self, bundle: str) -> None:
        """Raises OSError when conmon is not there. The path is reached by descriptor: sun_path holds 108 bytes only."""
        directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(f"/proc/self/fd/{directory}/attach")
            connection.setblocking(False)
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(directory)
        self._socket = connection
        self.resume()

    def subscribe(self, *, stdout: bool, stderr: bool, overflow: Overflow = Overflow.CUT) -> Subscription:
        """Also before the container starts. After its end the subscription ends at once."""
        streams = frozenset(stream for stream, wanted in ((STDOUT, stdout), (STDERR, stderr)) if wanted)
        subscription = Subscription(self, streams, overflow)
        if self.ended.is_set():
            subscription.end()
        else:
            self._subscriptions.add(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        self._seen.pop(subscription, None)
        self.resume()

    # -- stdin --------------------------------------------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        """Waits while the container does not read. Raises BrokenPipeError when nobody ever will again."""
        async with self._write_lock:
            for at in range(0, len(data), STDIN_PACKET):
                await self._send(data[at : at + STDIN_PACKET])

    async def write_eof(self) -> None:
        """End of file, for a container whose stdin ends with its first client (StdinOnce, no terminal)."""
        async with self._write_lock:
            if self._closes_stdin and not self._eof and self._socket is not None:
                self._eof = True
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)

    async def _send(self, packet: bytes) -> None:
        while True:
            if self._socket is None or self._eof or not self._stdin:
                raise BrokenPipeError("the container's stdin is closed")
            try:
                self._socket.send(packet)
            except BlockingIOError:
                await self._writable(self._socket)
            else:
                return

    async def _writable(self, connection: socket.socket) -> None:
        self._writable_again.clear()
        self._loop.add_writer(connection, self._writable_again.set)
        try:
            await self._writable_again.wait()
        finally:
            if self._socket is connection:
                self._loop.remove_writer(connection)

    # -- output -------------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Reads on unless a client is full."""
        if self._socket is None or self._reading or any(map(self._waits_for, self._subscriptions)):
            return
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        self._reading = True
        self._loop.add_reader(self._socket, self._read)

    @staticmethod
    def _waits_for(subscription: Subscription) -> bool:
        return subscription.overflow is Overflow.CUT and subscription.full

    def _read(self) -> None:
        for _ in range(_READS_AT_ONCE):
            assert self._socket is not None
            try:
                packet = self._socket.recv(PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                return self.close()
            self._on_output(packet)
            if len(packet) > 1:
                frame = Frame(packet[0] - 1, packet[1:])  # conmon says 2 and 3 where Docker says 1 and 2
                for subscription in self._subscriptions:
                    subscription.put(frame)
                if any(map(self._waits_for, self._subscriptions)):
                    return self._pause()
        return None

    def _pause(self) -> None:
        assert self._socket is not None
        self._loop.remove_reader(self._socket)
        self._reading = False
        self._arm()

    def _arm(self) -> None:
        self._seen = {each: each.taken for each in self._subscriptions if self._waits_for(each)}
        self._stalled = self._loop.call_later(STALL_LIMIT, self._cut)

    def _cut(self) -> None:
        """The grace is over: those that took nothing in it go; those that moved get another one."""
        self._stalled = None
        for subscription, taken in list(self._seen.items()):
            if subscription.full and subscription.taken == taken:
                subscription.end(errors.CLIENT_TOO_SLOW(limit=STALL_LIMIT))
                self._subscriptions.discard(subscription)
        self.resume()
        if not self._reading and self._socket is not None:
            self._arm()

    def close(self) -> None:
        """The end of output, or of the daemon's interest. Clients get what waits for them."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
            self._reading = False
        self.ended.set()
        self._writable_again.set()
        for subscription in list(self._subscriptions):
            subscription.end()
        self._subscriptions.clear()


class Attachment:
    """Two-way stream of one client, in the form that the API takes."""

    def __init__(self, hub: Hub, subscription: Subscription, *, tty: bool, stdin: bool) -> None:
        self.tty = tty
        self._hub = hub
        self._subscription = subscription
        self._stdin = stdin

    def frames(self) -> AsyncIterator[Frame]:
        return self._subscription.frames()

    async def write(self, data: bytes) -> None:
        """Ignored without ``stdin``, as Docker does. Raises BrokenPipeError after the end."""
        if self._stdin:
            await self._hub.write(data)

    async def write_eof(self) -> None:
        if self._stdin:
            await self._hub.write_eof()

    async def close(self) -> None:
        """The client has gone: with StdinOnce the container's stdin goes with it."""
        self._subscription.close()
        await self.write_eof()

    def detach(self) -> None:
        """The client left by its detach keys: stdin stays open."""
        self._subscription.close()
