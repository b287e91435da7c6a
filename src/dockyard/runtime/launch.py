"""Starting conmon and hearing from it whether the container was made."""

from __future__ import annotations

import asyncio
import os

from dockyard.kernel import process
from dockyard.runtime import conmon, errors, messages

CREATE_LIMIT = 60.0
"""Seconds until conmon must have said whether the container exists; a cold disk under load needs some."""
_STDERR_LIMIT = 4096


async def launch(request: conmon.Launch) -> tuple[process.Child, int]:
    """conmon, which is our child and watches from now on, and the pid of the container's (waiting) process. Raises
    System with Docker's sentence; on every failure conmon is gone when this returns."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    complaints = os.memfd_create("conmon")
    child = None
    try:
        try:
            child = process.spawn(
                conmon.argv(request), env=conmon.ENV, fds={conmon.SYNC_FD: writer, 1: complaints, 2: complaints}
            )
        finally:
            os.close(writer)
        async with asyncio.timeout(CREATE_LIMIT):
            answer = conmon.read_answer(await read_line(reader))
        if answer.data < 0:
            told = os.pread(complaints, _STDERR_LIMIT, 0).decode(errors="replace")
            logged = conmon.last_error(f"{request.bundle}/{conmon.LOG}")
            cause = messages.translate(answer.message if answer.message.strip() else logged or told, request.program)
            raise errors.CREATE_FAILED(cause=cause, why="")
        return child, answer.data
    except BaseException as failure:
        if child is not None:
            child.kill()
            await asyncio.shield(child.wait())
            child.close()
        if isinstance(failure, TimeoutError):
            raise errors.TIMED_OUT(verb="create", id=request.id, limit=CREATE_LIMIT) from None
        raise
    finally:
        os.close(reader)
        os.close(complaints)


async def read_line(fd: int) -> bytes:
    """One line of a non-blocking pipe; what there is, at its end."""
    loop = asyncio.get_running_loop()
    line = bytearray()
    done: asyncio.Future[None] = loop.create_future()

    def read() -> None:
        try:
            piece = os.read(fd, 64 << 10)
        except BlockingIOError:
            return
        line.extend(piece)
        if (not piece or piece.endswith(b"\n")) and not done.done():
            done.set_result(None)

    loop.add_reader(fd, read)
    try:
        await done
    finally:
        loop.remove_reader(fd)
    return bytes(line)
