"""A little room on the disk that only the engine's records may take: what is freed by removing must be recorded first.

A container that fills the disk ends, and its end cannot be written down: then the reserve is spent. It comes back with
the next end that finds room.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SIZE = 1 << 20
"""Bytes: a hundred commits of each database."""


class Reserve:
    def __init__(self, path: Path, size: int = SIZE) -> None:
        self._path = path
        self._size = size

    def hold(self) -> None:
        """Takes the room if it is not held; without room there is none, and nothing is raised."""
        if self._path.exists():
            return
        part = self._path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
            part.rename(self._path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def spend(self) -> bool:
        """Gives the room away; False when there was none to give."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
