"""Processes by handle: pidfd (pidfd_open(2), Linux 5.3) with start times against pid reuse.

A pid alone names whoever has the number now. A record keeps ``Identity(pid, start_time)``; it is turned into a pidfd
once, and everything afterwards goes through the descriptor.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass

_START_TIME = 19
"""Index of ``starttime`` (proc_pid_stat(5) field 22) in what follows the command's closing parenthesis."""


@dataclass(frozen=True, slots=True)
class Identity:
    """``start_time``: clock ticks since boot, as /proc tells it."""

    pid: int
    start_time: int


def identity(pid: int) -> Identity:
    """Raises ProcessLookupError if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    return Identity(pid, int(fields[_START_TIME]))


def open_pidfd(who: Identity) -> int:
    """A descriptor of exactly this process. Raises ProcessLookupError if it has gone, even if its pid lives again."""
    fd = os.pidfd_open(who.pid)
    try:
        if identity(who.pid) != who:
            raise ProcessLookupError(who.pid)
    except BaseException:
        os.close(fd)
        raise
    return fd


def send_signal(pidfd: int, number: int) -> None:
    """Raises ProcessLookupError when the process has ended."""
    signal.pidfd_send_signal(pidfd, number)


async def wait_gone(pidfd: int) -> None:
    """Returns when the process has ended (it may still be a zombie). Any number of waiters, each on its own duplicate:
    an event loop takes one reader per descriptor number."""
    loop = asyncio.get_running_loop()
    own = os.dup(pidfd)
    gone = asyncio.Event()
    loop.add_reader(own, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(own)
        os.close(own)


def exit_code(pidfd: int) -> int:
    """Reaps our ended child. The code is as a shell tells it: 128 + signal when killed. Raises ChildProcessError if it
    is not ours, BlockingIOError if it still runs."""
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    if ended is None:
        raise BlockingIOError("the process still runs")
    return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status
