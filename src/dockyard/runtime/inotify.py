"""One inotify instance for the whole daemon (Linux allows only 128 instances a user, but many thousand watches).

The kernel keeps one watch per inode and instance, so watchers of one file share a descriptor and are told apart here.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable

MODIFY, CLOSE_WRITE, MOVED_TO, CREATE, DELETE_SELF, MOVE_SELF = 0x2, 0x8, 0x80, 0x100, 0x400, 0x800
_MASK_ADD = 0x20000000
_OVERFLOW = 0x4000
_HEADER = struct.Struct("iIII")
_READ_SIZE = 64 << 10

Callback = Callable[[str], None]
"""Called with the name inside the watched directory ("" for a watched file, and after an overflow: look at all)."""


class Watch:
    def __init__(self, owner: Inotify, wd: int, callback: Callback) -> None:
        self._owner, self._wd, self.callback = owner, wd, callback

    def close(self) -> None:
        self._owner.remove(self._wd, self)


class Inotify:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise _failure("inotify_init1")
        self._watches: dict[int, list[Watch]] = {}
        self._loop = loop
        loop.add_reader(self._fd, self._read)

    def watch(self, path: str, mask: int, callback: Callback) -> Watch:
        """Raises FileNotFoundError, or OSError ENOSPC when fs.inotify.max_user_watches is used up."""
        wd = self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask | _MASK_ADD)
        if wd < 0:
            raise _failure(path)
        watch = Watch(self, wd, callback)
        self._watches.setdefault(wd, []).append(watch)
        return watch

    def remove(self, wd: int, watch: Watch) -> None:
        watches = self._watches.get(wd, [])
        if watch in watches:
            watches.remove(watch)
            if not watches:
                del self._watches[wd]
                self._libc.inotify_rm_watch(self._fd, wd)  # EINVAL when the inode has gone: nothing left to remove

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._watches.clear()

    def _read(self) -> None:
        try:
            events = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return
        at = 0
        while at < len(events):
            wd, mask, _, size = _HEADER.unpack_from(events, at)
            at += _HEADER.size + size
            if mask & _OVERFLOW:
                self._tell([watch for watches in self._watches.values() for watch in watches], "")
            else:
                name = events[at - size : at].rstrip(b"\0")
                self._tell(list(self._watches.get(wd, ())), os.fsdecode(name))

    @staticmethod
    def _tell(watches: list[Watch], name: str) -> None:
        for watch in watches:
            watch.callback(name)


def _failure(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
