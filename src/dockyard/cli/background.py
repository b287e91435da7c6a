"""A verb's work in a process of its own, which outlives the terminal: started when it serves, ended by name.

``work`` runs in the child of a fork, so it is for commands that have no thread yet. The file ``pid`` in the folder is
locked while the work goes on; a number whose lock is gone belongs to somebody else by now and is never signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from dockyard.errors import DockyardError

LOG, PID = "log", "pid"
STOP_LIMIT = 15.0
_LOOK = 0.05
_READY = b"\0"


def begin(folder: Path, work: Callable[[Callable[[], None]], None]) -> str:
    """"" once ``work`` has called what it is given; else the words it failed with (another one has the folder, too). Its
    output goes to ``folder/log``."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    theirs, ours = os.pipe()
    if os.fork() == 0:
        os.close(theirs)
        _work(folder, ours, work)
    os.close(ours)
    with open(theirs, "rb") as pipe:
        told = pipe.read()
    return "" if told == _READY else told.decode("utf-8", "replace") or f"it ended at once ({folder / LOG})"


def _work(folder: Path, pipe: int, work: Callable[[Callable[[], None]], None]) -> None:
    """In the child; does not return."""
    try:
        os.setsid()
        for path, flags, places in ((os.devnull, os.O_RDONLY, (0,)), (folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, (1, 2))):
            fd = os.open(path, flags, 0o600)
            for place in places:
                os.dup2(fd, place)
            os.close(fd)
        parent = _Parent(pipe)
        try:
            _lock(folder)
            work(lambda: parent.tell(_READY))
        except BlockingIOError:
            parent.tell(b"it runs in the background already")
        except DockyardError as error:
            parent.tell(str(error).encode())
            print(error, file=sys.stderr)
        except KeyboardInterrupt:
            pass
        except Exception:  # noqa: BLE001 - the log is all that hears of it
            traceback.print_exc()
    finally:
        os._exit(0)


class _Parent:
    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def tell(self, words: bytes) -> None:
        """Once: afterwards the number belongs to another file."""
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            with contextlib.suppress(OSError):  # Ctrl-C while it was waited for
                os.write(pipe, words)
            os.close(pipe)


def _lock(folder: Path) -> None:
    """This process does the folder's work until it ends. Raises BlockingIOError where another one does."""
    fd = os.open(folder / PID, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # never closed: the lock goes with us
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(fd, 0)
    os.write(fd, str(os.getpid()).encode())


def end(folder: Path) -> bool:
    """Ends the work by SIGTERM and waits for it; False where none goes on."""
    limit = time.monotonic() + STOP_LIMIT
    asked = False
    while True:
        try:
            with open(folder / PID, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not asked and (number := file.read()):  # it is written just behind the lock
                        os.kill(int(number), signal.SIGTERM)
                        asked = True
                else:
                    return asked
        except FileNotFoundError:
            return asked
        if time.monotonic() > limit:
            return False
        time.sleep(_LOOK)  # it closes its connections; bounded by STOP_LIMIT
