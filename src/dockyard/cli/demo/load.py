"""Users, all the time: threads that ask one URL on and on and count what was answered, by whom and how fast."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field

USERS = 3
THINK = 0.02
"""Seconds that a user waits between two requests."""
ANSWER_LIMIT = 10.0


@dataclass(slots=True, eq=False)
class Count:
    """``failed`` holds what was wrong, ``slowest`` is in seconds, ``servers`` who answered."""

    requests: int = 0
    failed: list[str] = field(default_factory=list)
    slowest: float = 0.0
    servers: set[str] = field(default_factory=set)

    def add(self, seconds: float, wrong: str, server: str) -> None:
        self.requests += 1
        self.slowest = max(self.slowest, seconds)
        if wrong:
            self.failed.append(wrong)
        if server:
            self.servers.add(server)

    def __str__(self) -> str:
        return f"{self.requests:,} requests, {len(self.failed)} failed"


class Load:
    """Asks from `__enter__` to `__exit__`; ``total`` counts all of it, `window` a part."""

    def __init__(self, url: str) -> None:
        self._parts = urllib.parse.urlsplit(url)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.total = Count()
        self._windows: list[Count] = [self.total]
        self._users = [threading.Thread(target=self._use, daemon=True) for _ in range(USERS)]

    def __enter__(self) -> Load:
        for user in self._users:
            user.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for user in self._users:
            user.join(ANSWER_LIMIT)

    @contextlib.contextmanager
    def window(self) -> Iterator[Count]:
        """What is answered while it is open."""
        count = Count()
        with self._lock:
            self._windows.append(count)
        try:
            yield count
        finally:
            with self._lock:
                self._windows.remove(count)

    def _use(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            wrong, server = self._ask()
            took = time.monotonic() - began
            with self._lock:
                for count in self._windows:
                    count.add(took, wrong, server)
            self._stop.wait(THINK)

    def _ask(self) -> tuple[str, str]:
        """What was wrong ("" is nothing), and who answered."""
        wire = http.client.HTTPConnection(self._parts.hostname or "", self._parts.port, timeout=ANSWER_LIMIT)
        try:
            wire.request("GET", self._parts.path or "/")
            answer = wire.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__, ""
        finally:
            wire.close()
        if answer.status != 200:
            return f"HTTP {answer.status}", ""
        try:
            return "", str(json.loads(body).get("server", ""))
        except (ValueError, AttributeError):
            return f"unexpected page: {body[:80]!r}", ""
