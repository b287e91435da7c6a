"""Answers that were given before, by request target. An entry is good for the epoch it was made in, and no longer:
whoever looks compares it with the database's, so replicas need not tell each other anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from dockyard.http import Response

CACHE_BYTES = 128 * 1024 * 1024
ENTRY_BYTES = 256 * 1024
_OVERHEAD = 1024


@dataclass(slots=True)
class Entry:
    epoch: int
    name: str
    digest: str
    response: Response | None
    """None: the bytes are in the file `path`."""
    path: str = ""
    manifest: bool = False
    tag: str = ""


class Cache:
    """Bounded; the oldest entries go first. Insertion order is age: a hit that is renewed is inserted again."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._entries: dict[str, Entry] = {}
        self._bytes = 0
        self.pulled: dict[tuple[str, str, str], int] = {}
        """(repository, tag or "", digest) -> pulls to be counted."""

    def count(self, entry: Entry) -> None:
        """Somebody pulled that manifest."""
        key = (entry.name, entry.tag, entry.digest)
        self.pulled[key] = self.pulled.get(key, 0) + 1

    def get(self, target: str) -> Entry | None:
        return self._entries.get(target)

    def put(self, target: str, entry: Entry) -> None:
        self.drop(target)
        self._entries[target] = entry
        self._bytes += _weight(entry)
        while self._bytes > self._limit:
            self.drop(next(iter(self._entries)))

    def drop(self, target: str) -> None:
        entry = self._entries.pop(target, None)
        if entry is not None:
            self._bytes -= _weight(entry)

    def __len__(self) -> int:
        return len(self._entries)


def _weight(entry: Entry) -> int:
    return _OVERHEAD + (len(entry.response.body) if entry.response is not None else 0)
