"""User namespaces: made by a child, because a process with threads can neither make nor enter one (user_namespaces(7)).

``create`` gives a descriptor; ``netns.keep`` gives it a name. The child is util-linux's ``unshare``, which waits until it
has been looked at: 4 ms measured, once per daemon, and once per network namespace, which is made ahead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
from collections.abc import Iterator, Sequence

from dockyard.kernel import process

__all__ = ["create", "create_netns"]

Line = tuple[int, int, int]
"""(first id inside, first id outside, how many): a line of uid_map."""
_WAIT = ("/bin/sh", "-c", "echo; read nothing")
_END_LIMIT = 5.0
"""Seconds that a child may take to end after its input has ended."""


def create(uids: Sequence[Line], gids: Sequence[Line]) -> int:
    """A descriptor of a new user namespace with these maps."""
    with _waiting([_program("unshare"), "--user", *_WAIT]) as pid:
        for name, lines in (("uid_map", uids), ("gid_map", gids)):
            text = "".join(f"{inside} {outside} {size}\n" for inside, outside, size in lines)
            with open(f"/proc/{pid}/{name}", "w") as file:  # one write, or the kernel refuses it
                file.write(text)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def create_netns(userns: str) -> int:
    """A descriptor of a new network namespace that belongs to the user namespace at the path ``userns``: who is root in
    there may configure it, open raw sockets and mount sysfs."""
    with _waiting([_program("nsenter"), f"--user={userns}", _program("unshare"), "--net", *_WAIT]) as pid:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _program(name: str) -> str:
    found = shutil.which(name, path=process.PATH)
    if not found:
        raise FileNotFoundError(errno.ENOENT, "program not found (package util-linux)", name)
    return found


@contextlib.contextmanager
def _waiting(words: Sequence[str]) -> Iterator[int]:
    """The process ID of ``words``, which say a line and then wait for the end of their input."""
    input_end, ours = os.pipe2(os.O_CLOEXEC)
    told, output_end = os.pipe2(os.O_CLOEXEC)
    try:
        child = process.spawn(words, env={"PATH": process.PATH}, fds={0: input_end, 1: output_end})
    except BaseException:
        os.close(ours)
        os.close(told)
        raise
    finally:
        os.close(input_end)
        os.close(output_end)
    try:
        if not os.read(told, 1):
            raise OSError(errno.EPERM, f"cannot make a namespace: {os.path.basename(words[0])} ended at once")
        yield child.pid
    finally:
        os.close(ours)
        os.close(told)
        ended = select.poll()
        ended.register(child.pidfd, select.POLLIN)
        if not ended.poll(_END_LIMIT * 1000):
            child.kill()
            ended.poll()
        child.reap()
        child.close()
