"""Files to sockets by the kernel. uvloop has no sendfile of its own, so the socket is lent to a bounded lane.

A thread calls sendfile(2) until the socket is full, waits a moment in poll(2) (a client on this machine or a fast
network takes more at once), and gives the rest back to the loop, which waits for room without holding a thread: a
thousand slow clients hold no thread at all. Disk waits happen in the thread, never on the loop.
"""

from __future__ import annotations

import asyncio
import os
import select
from concurrent.futures import ThreadPoolExecutor

_PIECE = 8 * 1024 * 1024  # one visit to the lane; keeps the lane fair among many readers
_POLL_MS = 20
_LANES = 4

_lane: ThreadPoolExecutor | None = None


def lane() -> ThreadPoolExecutor:
    global _lane
    if _lane is None:
        _lane = ThreadPoolExecutor(_LANES, thread_name_prefix="http-file")
    return _lane


def _push(sock: int, fd: int, offset: int, count: int) -> int:
    """Bytes sent by now; stops when the socket stays full. Raises OSError, EOFError when the file is too short."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    sent = 0
    while sent < count:
        try:
            n = os.sendfile(sock, fd, offset + sent, count - sent)
        except BlockingIOError:
            if not poll.poll(_POLL_MS):
                break
            continue
        if n == 0:
            raise EOFError("file is shorter than announced")
        sent += n
    return sent


async def _room(loop: asyncio.AbstractEventLoop, sock: int, gone: asyncio.Future[None]) -> None:
    ready = asyncio.Event()
    loop.add_writer(sock, ready.set)
    gone.add_done_callback(lambda _: ready.set())
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock)


async def send_file(sock_fd: int, fd: int, offset: int, count: int, gone: asyncio.Future[None]) -> None:
    """Send it all. The caller has flushed its transport and writes nothing meanwhile. Raises OSError, EOFError."""
    loop = asyncio.get_running_loop()
    sock = os.dup(sock_fd)  # the loop refuses a writer on a descriptor that a transport owns
    try:
        while count and not gone.done():
            piece = min(count, _PIECE)
            job = loop.run_in_executor(lane(), _push, sock, fd, offset, piece)
            try:
                sent = await asyncio.shield(job)
            except asyncio.CancelledError:
                await asyncio.wait({job})  # the thread uses both descriptors; it ends within _POLL_MS of a full socket
                raise
            offset += sent
            count -= sent
            if sent < piece:
                await _room(loop, sock, gone)
    finally:
        os.close(sock)
