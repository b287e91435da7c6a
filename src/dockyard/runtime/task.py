"""One supervised container: its handles and how its end is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from dockyard.kernel import pidfd as handles
from dockyard.kernel.process import Child
from dockyard.runtime import errors
from dockyard.runtime.attach import Hub
from dockyard.runtime.model import Exit, Supervised
from dockyard.runtime.rotation import Rotation

CONMON_DIED = 255


def read_exit(bundle: str) -> Exit | None:
    """What conmon left in the bundle; None while the container lives."""
    try:
        with open(f"{bundle}/exit") as file:
            code = int(file.read())
            at = os.fstat(file.fileno()).st_mtime_ns
    except (FileNotFoundError, ValueError):
        return None
    return Exit(code, at, oom_killed=os.path.exists(f"{bundle}/oom"))


class Task:
    """``exit`` is set once. ``child`` is conmon when this daemon started it, and must be reaped then."""

    def __init__(self, record: Supervised, bundle: str, pidfd: int, conmon_fd: int, child: Child | None) -> None:
        self.record = record
        self.bundle = bundle
        self.pidfd = pidfd
        self.started = False
        self.exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._conmon_fd = conmon_fd
        self._child = child
        self._watching = False
        self.hub = Hub(
            stdin=record.open_stdin,
            closes_stdin=record.stdin_once and not record.tty,
            on_output=Rotation(record.log_path, record.log_limits, self._reopen_log).count,
        )

    def watch(self) -> None:
        with contextlib.suppress(OSError):  # conmon has gone already: the exit file tells
            self.hub.connect(self.bundle)
        self._loop.add_reader(self._conmon_fd, self._conmon_gone)
        self._watching = True
        self.settle()  # the exit file may have come before anybody looked

    def _reopen_log(self) -> None:
        with contextlib.suppress(errors.NOT_RUNNING.kind):
            self.control("2 0 0\n")

    def settle(self) -> None:
        """Called on a sign that there may be an exit file."""
        if not self.exit.done() and (ended := read_exit(self.bundle)) is not None:
            self.exit.set_result(ended)

    def control(self, line: str) -> None:
        """Tells conmon: ``1 H W`` resizes the terminal, ``2 0 0`` opens the log anew. Raises Conflict after the end."""
        try:
            fd = os.open(f"{self.bundle}/ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            raise errors.NOT_RUNNING(id=self.record.id) from None
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)

    def _conmon_gone(self) -> None:
        self._unwatch()
        if self._child is not None:
            self._child.reap()
        if self.pidfd < 0:  # closed meanwhile; only the reaping was left to do
            self._drop_conmon()
            return
        self.settle()
        if not self.exit.done():
            # Without conmon nobody holds the container's stdio: it cannot go on. Its init is our child now.
            with contextlib.suppress(ProcessLookupError):
                handles.send_signal(self.pidfd, signal.SIGKILL)
            self._loop.add_reader(self.pidfd, self._orphan_gone)

    def _orphan_gone(self) -> None:
        self._loop.remove_reader(self.pidfd)
        with contextlib.suppress(ChildProcessError):
            handles.exit_code(self.pidfd)
        self.exit.set_result(Exit(CONMON_DIED, time.time_ns(), error="conmon ended unexpectedly"))

    async def wait_conmon(self) -> None:
        if self._conmon_fd >= 0:
            await handles.wait_gone(self._conmon_fd)

    def _unwatch(self) -> None:
        if self._watching:
            self._loop.remove_reader(self._conmon_fd)
            self._watching = False

    def _drop_conmon(self) -> None:
        self._unwatch()
        if self._conmon_fd >= 0:
            os.close(self._conmon_fd)
            self._conmon_fd = -1

    def close(self, *, reap: bool = False) -> None:
        """With ``reap`` a conmon that is still busy with its exit command stays watched until it can be reaped."""
        if self.pidfd >= 0:
            self._loop.remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1
        self.hub.close()
        if not (reap and self._watching and self._child is not None):
            self._drop_conmon()
        self.exit.cancel()
