"""A little room on the disk that only the engine's records may take: what is freed by removing must be recorded first.

A container that fills the disk ends, and its end cannot be written down: then the reserve is spent. It comes back with
the next end or removal that finds room. An engine that starts has a smaller one of its own, so that it comes up where the
other has been spent: else nobody could remove anything.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SIZE = 1 << 20
"""Bytes: a hundred commits of each database."""
START_SIZE = SIZE // 2
"""Bytes: the trial of the file system, and a first commit of each database."""


class Reserve:
    def __init__(self, path: Path, size: int = SIZE) -> None:
        self._path = path
        self._size = size

    def hold(self) -> None:
        """Takes the room if it is not held, or half of it, or a quarter; without room there is none, and nothing is
        raised."""
        if self._path.exists():
            return
        part = self._path.with_name(self._path.name + ".part")
        for size in (self._size, self._size // 2, self._size // 4):
            try:
                with part.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, size)
                part.rename(self._path)
                return
            except OSError:
                with suppress(OSError):
                    part.unlink(missing_ok=True)

    def spend_if_full(self) -> bool:
        """Gives the room away where there is less than it left for others."""
        seen = os.statvfs(self._path.parent)
        return seen.f_bavail * seen.f_frsize < self._size and self.spend()

    def spend(self) -> bool:
        """Gives the room away; False when there was none to give."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
