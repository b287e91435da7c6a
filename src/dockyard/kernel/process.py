"""Child processes for an event loop that must not fork itself: posix_spawn, pidfd, no thread per child.

``posix_spawn`` clones with CLONE_VM|CLONE_VFORK, so the price does not grow with the daemon (0.3 ms measured, whatever
its size); ``subprocess`` with asyncio's default watcher costs a thread for each child. Descriptors are never made
inheritable in this process: the child gets duplicates, so a spawn in another thread cannot leak them (CVE-2024-21626).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dockyard.kernel import pidfd as handles

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Host programs are looked up here and never in a container's PATH."""
OUTPUT_LIMIT = 8 << 20
REAP_LIMIT = 5.0
"""Seconds a killed child may take to go."""
_PR_SET_CHILD_SUBREAPER = 36
_ABOVE = 64
"""Sources are moved above this number, so that no target number of the child hits a source still needed."""


@dataclass(frozen=True, slots=True)
class Completed:
    """``code`` as a shell tells it (128 + signal)."""

    code: int
    stdout: bytes
    stderr: bytes


_spawned: set[int] = set()
"""Children that somebody here will reap by their handle."""


class Child:
    """A direct child. ``wait`` may be called by many and reaps once; ``close`` belongs to the owner."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        _spawned.add(pid)
        self.pidfd = os.pidfd_open(pid)  # cannot be reused yet: nobody but us reaps it
        self.code: int | None = None

    async def wait(self) -> int:
        if self.code is None:
            await handles.wait_gone(self.pidfd)
        return self.reap()

    def reap(self) -> int:
        """After the end only. Raises BlockingIOError before."""
        if self.code is None:
            self.code = handles.exit_code(self.pidfd)
            _spawned.discard(self.pid)
        return self.code

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.code is None:
            handles.send_signal(self.pidfd, number)

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def spawn(argv: Sequence[str], *, env: Mapping[str, str], fds: Mapping[int, int] | None = None) -> Child:
    """Starts ``argv[0]`` (an absolute path). ``fds`` maps the child's numbers to ours; 0, 1, 2 are /dev/null unless
    given. The child gets default signal handling: Python ignores SIGPIPE, and an ignored signal survives exec."""
    fds = fds or {}
    moved = {target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for target, source in fds.items()}
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in range(3) if number not in fds
    ]
    actions += [(os.POSIX_SPAWN_DUP2, source, target) for target, source in moved.items()]
    try:
        pid = os.posix_spawn(
            argv[0], list(argv), env, file_actions=actions, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ], setsigmask=[]
        )
    finally:
        for source in moved.values():
            os.close(source)
    return Child(pid)


async def run(
    argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
) -> Completed:
    """Runs to the end and returns what was written (at most ``OUTPUT_LIMIT`` of each stream). On timeout or
    cancellation the child is killed and reaped. Streams are memory files: no pump, no pipe that can fill up."""
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    child = None
    try:
        if stdin:
            os.write(files[0], stdin)
            os.lseek(files[0], 0, os.SEEK_SET)
        child = spawn(argv, env=env or {"PATH": PATH, "LC_ALL": "C"}, fds=dict(enumerate(files)))
        async with asyncio.timeout(timeout):
            code = await child.wait()
        return Completed(code, _content(files[1]), _content(files[2]))
    finally:
        if child is not None:
            await end(child)
        for file in files:
            os.close(file)


async def end(child: Child) -> None:
    """Kills a child that still runs, reaps it, closes its handle."""
    if child.code is None:
        child.kill()
        with contextlib.suppress(TimeoutError):  # a process in uninterruptible sleep; its zombie is reaped by nobody
            await asyncio.wait_for(asyncio.shield(child.wait()), REAP_LIMIT)
    child.close()


def _content(file: int) -> bytes:
    return os.pread(file, OUTPUT_LIMIT, 0)


def strays(name: str = "") -> dict[int, bool]:
    """Children that nobody here spawned (orphans that came to a subreaper) and whose name begins with ``name``: pid ->
    whether it has ended and waits to be reaped."""
    found = {}
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children") as children:
            for pid in set(map(int, children.read().split())) - _spawned:
                with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat:
                    text = stat.read()
                    if text[text.index("(") + 1 :].startswith(name):
                        found[pid] = text[text.rindex(")") + 2] == "Z"
    return found


def reap(pid: int) -> None:
    """Takes away a child that has ended; anything else is left alone. Never waits."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def become_subreaper() -> None:
    """From now on orphans of our children become our children (PR_SET_CHILD_SUBREAPER), so that their exit codes reach
    us. Processes in a PID namespace of their own stay with that namespace's init."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def write_atomically(path: str, data: bytes, mode: int = 0o600) -> None:
    """Readers see the old content or the new one. No fsync: for files that only matter until the next boot."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        os.write(handle, data)
        os.fchmod(handle, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(handle)
