"""Exec: one more process in a running container.

The runtime is called with ``--detach``, so it ends as soon as the process runs (or says why it does not), and the
process holds our pipes or terminal itself: no helper stays for it, no copying in between. Its exit code reaches us
because the daemon is a child subreaper: an orphan of its children becomes its own child (prctl(2)), reaped by pidfd.

    exec dir (state/execs/<container>/<id>, gone with the exec): process.json, pid, runtime.log, console (terminal only)
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import termios
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dockyard.kernel import pidfd as handles
from dockyard.kernel import process
from dockyard.runtime import conmon, errors, messages
from dockyard.runtime.attach import Overflow, Subscription
from dockyard.runtime.model import STDERR, STDOUT, Frame

EXEC_LIMIT = 30.0
OUTPUT_GRACE = 2.0
"""Seconds that output may still come after the process ended: a daemon that it started keeps the pipe open for ever."""
READ_SIZE = 32 << 10
UNKNOWN_CODE = 255
REAP_TRIES, REAP_PAUSE = 100, 0.01
STAGES = {"crun": "crun", "runc": "runc:["}
"""What a runtime's own processes on the way into a container are called, or begin with."""


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """``process`` is made by ``plan_process``. Streams that are not wanted are /dev/null."""

    container: str
    id: str
    process: Mapping[str, Any]
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True

    @property
    def tty(self) -> bool:
        return bool(self.process.get("terminal"))


class ExecSession:
    """One exec. Made by ``Runtime.exec_start``; ``close`` when its client has gone, which does not end the process."""

    def __init__(self, request: ExecRequest, directory: str) -> None:
        self.id = request.id
        self.tty = request.tty
        self._process = request.process
        self.pid = 0
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        self._pidfd = -1
        self.size: tuple[int, int] | None = None
        self._outputs: dict[int, int] = {}
        self._reading: set[int] = set()
        self._stdin = -1
        self._writable = asyncio.Event()
        self._writing = asyncio.Lock()
        self._grace: asyncio.TimerHandle | None = None
        self._subscription: Subscription | None = Subscription(self, frozenset((STDOUT, STDERR)), Overflow.CUT)
        self._frames = self._subscription.frames()

    # -- for the client -----------------------------------------------------------------------------------------------

    def frames(self) -> AsyncIterator[Frame]:
        """Until the process has ended and its output with it. One consumer."""
        return self._frames

    async def write(self, data: bytes) -> None:
        """Waits while the process does not read. Raises BrokenPipeError when it never will again."""
        async with self._writing:
            view = memoryview(data)
            while view:
                if self._stdin < 0:
                    raise BrokenPipeError("the process does not read its stdin")
                try:
                    view = view[os.write(self._stdin, view) :]
                except BlockingIOError:
                    await self._until_writable()
                except OSError:  # EPIPE of the pipe, EIO of the terminal
                    raise BrokenPipeError("the process does not read its stdin") from None

    async def _until_writable(self) -> None:
        self._writable.clear()
        self._loop.add_writer(self._stdin, self._writable.set)
        await self._writable.wait()
        if self._stdin >= 0:
            self._loop.remove_writer(self._stdin)

    async def write_eof(self) -> None:
        if not self.tty:
            async with self._writing:
                self._close_stdin()

    def resize(self, height: int, width: int) -> None:
        """Also before the process exists: the size waits for it."""
        self.size = (height, width)
        if self.tty and (master := self._outputs.get(STDOUT, -1)) >= 0:
            set_size(master, height, width)

    def spec(self) -> Mapping[str, Any]:
        """``process`` with the terminal's size, where one was told already."""
        if self.tty and self.size is not None:
            height, width = self.size
            return {**self._process, "consoleSize": {"height": height, "width": width}}
        return self._process

    def kill(self, number: int) -> None:
        """Raises Conflict when the process has ended."""
        try:
            if self._pidfd < 0:
                raise ProcessLookupError
            handles.send_signal(self._pidfd, number)
        except ProcessLookupError:
            raise errors.NOT_RUNNING(id=self.id) from None

    async def wait(self) -> int:
        return await asyncio.shield(self.code)

    async def close(self) -> None:
        """The client has gone: stdin ends, output is read and thrown away, the process goes on."""
        await self.write_eof()
        if self._subscription is not None:
            self._subscription.close()

    # -- for the subscription -----------------------------------------------------------------------------------------

    def resume(self) -> None:
        if self._subscription is not None and self._subscription.full:
            return
        for stream, fd in self._outputs.items():
            if stream not in self._reading:
                self._reading.add(stream)
                self._loop.add_reader(fd, self._read, stream, fd)

    def forget(self, subscription: Subscription) -> None:
        self._subscription = None
        self.resume()

    # -- life ---------------------------------------------------------------------------------------------------------

    def begin(self, pid: int, stdin: int, outputs: dict[int, int]) -> None:
        """Takes over the descriptors. The process exists and has become our child."""
        self.pid, self._stdin, self._outputs = pid, stdin, outputs
        for fd in {stdin, *outputs.values()} - {-1}:
            os.set_blocking(fd, False)
        if self.size is not None:
            self.resize(*self.size)
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._gone)
        self.resume()
        self._finish_output_if_done()

    def _read(self, stream: int, fd: int) -> None:
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last holder of the terminal has closed it
            data = b""
        if not data:
            self._close_output(stream)
            self._finish_output_if_done()
        elif self._subscription is not None:
            self._subscription.put(Frame(stream, data))
            if self._subscription.full:
                for each in list(self._reading):
                    self._loop.remove_reader(self._outputs[each])
                self._reading.clear()

    def _gone(self) -> None:
        self._loop.remove_reader(self._pidfd)
        try:
            code = handles.exit_code(self._pidfd)
        except ChildProcessError:
            code = UNKNOWN_CODE
        os.close(self._pidfd)
        self._pidfd = -1
        self._close_stdin()
        shutil.rmtree(self._directory, ignore_errors=True)
        if self._outputs:
            self._grace = self._loop.call_later(OUTPUT_GRACE, self._end_output)
        if not self.code.done():
            self.code.set_result(code)

    def _close_stdin(self) -> None:
        self._writable.set()
        if self._stdin >= 0:
            self._loop.remove_writer(self._stdin)
            if self._stdin not in self._outputs.values():  # a terminal is one descriptor for both ways
                os.close(self._stdin)
            self._stdin = -1

    def _close_output(self, stream: int) -> None:
        fd = self._outputs.pop(stream)
        if fd == self._stdin:
            self._loop.remove_writer(fd)
            self._stdin = -1
            self._writable.set()
        self._loop.remove_reader(fd)
        self._reading.discard(stream)
        os.close(fd)

    def _finish_output_if_done(self) -> None:
        if not self._outputs:
            if self._grace is not None:
                self._grace.cancel()
            if self._subscription is not None:
                self._subscription.end()

    def _end_output(self) -> None:
        for stream in list(self._outputs):
            self._close_output(stream)
        self._finish_output_if_done()

    def abandon(self) -> None:
        """The daemon closes; the process goes on."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._close_stdin()
        self._end_output()
        self.code.cancel()


async def reap_failed(name: str, known: Collection[int]) -> None:
    """The runtime's child of an exec that failed ends on its own, an orphan that comes to us. Not reaped it would keep its
    container from ever ending: the first process of a PID namespace waits until all others are gone. ``known``: those of
    execs that run."""
    for _ in range(REAP_TRIES):
        left = {pid: ended for pid, ended in process.strays(STAGES.get(name, name)).items() if pid not in known}
        for pid, ended in left.items():
            if ended:
                process.reap(pid)
        if all(left.values()):
            return
        await asyncio.sleep(REAP_PAUSE)


async def start_exec(
    runtime: Sequence[str], root: str, request: ExecRequest, session: ExecSession, directory: str
) -> None:
    """Runs the process and hands it to ``session``. Raises System in Docker's words if it cannot be run, and then
    nothing is left."""
    os.makedirs(directory, mode=0o700)
    ours: dict[int, int] = {}
    theirs: dict[int, int] = {}
    console = _Console(directory, session.size) if request.tty else None
    try:
        if console is None:
            _make_pipes(request, ours, theirs)
        pid = await _call_runtime(runtime, root, request, session.spec(), directory, theirs, console)
        if console is not None:
            ours[STDOUT] = console.receive()
            ours[0] = ours[STDOUT] if request.stdin else -1
        session.begin(pid, ours.pop(0, -1), ours)
    except BaseException:
        for fd in set(ours.values()) - {-1}:
            os.close(fd)
        shutil.rmtree(directory, ignore_errors=True)
        raise
    finally:
        for fd in theirs.values():
            os.close(fd)
        if console is not None:
            console.close()


def _make_pipes(request: ExecRequest, ours: dict[int, int], theirs: dict[int, int]) -> None:
    if request.stdin:
        theirs[0], ours[0] = os.pipe2(os.O_CLOEXEC)
    for stream, wanted in ((STDOUT, request.stdout), (STDERR, request.stderr)):
        if wanted:
            ours[stream], theirs[stream] = os.pipe2(os.O_CLOEXEC)


async def _call_runtime(
    runtime: Sequence[str], root: str, request: ExecRequest, spec: Mapping[str, Any], directory: str, fds: dict[int, int],
    console: _Console | None
) -> int:
    with open(f"{directory}/process.json", "wb") as file:
        file.write(msgspec.json.encode(spec))
    words = [*runtime, *conmon.runtime_globals(root, f"{directory}/{conmon.LOG}", runtime[-1]), "exec", "--detach"]
    words += ["--pid-file", f"{directory}/pid", "--process", f"{directory}/process.json"]
    words += ["--console-socket", console.path] if console is not None else []
    child = process.spawn([*words, request.container], env={"PATH": process.PATH}, fds=fds)
    try:
        async with asyncio.timeout(EXEC_LIMIT):
            code = await child.wait()
    except TimeoutError:
        raise errors.TIMED_OUT(verb="exec in", id=request.container, limit=EXEC_LIMIT) from None
    except asyncio.CancelledError:  # a health probe of a container that stops
        await _take_back(child, f"{directory}/pid")
        raise
    finally:
        await process.end(child)
    if code != 0:
        cause = conmon.last_error(f"{directory}/{conmon.LOG}") or f"exit code {code}"
        if "stopped container" in cause or "is not running" in cause:  # it ended, and we have not heard of it yet
            raise errors.NOT_RUNNING(id=request.container)
        cause = messages.translate(cause, request.process["args"][0])
        raise errors.EXEC_FAILED(cause=cause if cause.startswith("exec failed: ") else f"exec failed: {cause}")
    with open(f"{directory}/pid") as file:
        return int(file.read())


async def _take_back(child: process.Child, pid_file: str) -> None:
    """The runtime is let finish, since what it has begun inside the container has no other master; then the process is
    killed and reaped, for the reason that ``reap_failed`` gives."""
    with contextlib.suppress(TimeoutError, OSError, ValueError):
        async with asyncio.timeout(EXEC_LIMIT):
            if await child.wait() == 0:
                with open(pid_file) as file:
                    pidfd = os.pidfd_open(int(file.read()))
                try:
                    handles.send_signal(pidfd, signal.SIGKILL)
                    await handles.wait_gone(pidfd)
                    handles.exit_code(pidfd)
                finally:
                    os.close(pidfd)


class _Console:
    """Receives the terminal's master from the runtime. The socket's directory is named through our own descriptor,
    because a socket's path may have 108 bytes only."""

    def __init__(self, directory: str, size: tuple[int, int] | None) -> None:
        self._size = size
        self._master = -1
        self._connection: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(f"/proc/self/fd/{self._directory}/console")
        self._listener.listen(1)
        self.path = f"/proc/{os.getpid()}/fd/{self._directory}/console"
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        self._loop.remove_reader(self._listener)
        self._connection, _ = self._listener.accept()
        self._connection.setblocking(False)
        self._loop.add_reader(self._connection, self._read)

    def _read(self) -> None:
        """As soon as it comes, which is before the program runs: crun gives the terminal of an exec no size."""
        if self._connection is None or self._master >= 0:
            return
        self._loop.remove_reader(self._connection)
        _, fds, _, _ = socket.recv_fds(self._connection, 4096, 1)
        if fds:
            self._master = fds[0]
            os.set_inheritable(self._master, False)
            if self._size is not None:
                set_size(self._master, *self._size)

    def receive(self) -> int:
        """The runtime has ended well, so the message is there. The descriptor is the caller's."""
        if self._connection is None:
            self._accept()
        self._read()
        master, self._master = self._master, -1
        if master < 0:
            raise errors.EXEC_FAILED(cause="the runtime sent no terminal")
        return master

    def close(self) -> None:
        for sock in (self._listener, self._connection):
            if sock is not None:
                self._loop.remove_reader(sock)
                sock.close()
        if self._master >= 0:
            os.close(self._master)
        os.close(self._directory)


def set_size(master: int, height: int, width: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
