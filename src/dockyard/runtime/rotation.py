"""Keeping a log small. On by default, because logs that fill the disk are one of Docker's oldest complaints.

The daemon renames, then tells conmon to open the log anew (``2 0 0`` on its control FIFO). Until it does, conmon writes
to the renamed file, so no line is lost; and the new file's coming says that the old one is complete.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from dockyard.runtime.logline import OVERHEAD
from dockyard.runtime.model import LogLimits


class Rotation:
    def __init__(self, path: str, limits: LogLimits, reopen: Callable[[], None]) -> None:
        self._path = path
        self._limits = limits
        self._reopen = reopen
        self._written = limits.max_size  # look at the file with the first output: it may be old and large
        self._discard = ""
        self._asked = False

    def count(self, data: bytes) -> None:
        """Hears of all output; looks at the file only when it can have grown enough."""
        if self._limits.max_size <= 0 or not self._path:
            return
        self._written += len(data) + OVERHEAD * (data.count(b"\n") + 1)
        if self._written >= self._limits.max_size:
            self._check()

    def _check(self) -> None:
        try:
            size = os.stat(self._path).st_size
        except FileNotFoundError:
            # conmon has not answered yet, or a daemon died before it asked. Never ask twice: the second opening would
            # replace the file of the first, with lines in it.
            if not self._asked:
                self._ask()
            return
        self._asked = False
        if self._discard:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._discard)
            self._discard = ""
        self._written = size
        if size >= self._limits.max_size:
            self._rotate()

    def _rotate(self) -> None:
        for number in range(self._limits.max_file - 1, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}.{number - 1}", f"{self._path}.{number}")
        os.replace(self._path, f"{self._path}.1")
        if self._limits.max_file <= 1:
            self._discard = f"{self._path}.1"
        self._written = 0
        self._ask()

    def _ask(self) -> None:
        self._asked = True
        self._reopen()
