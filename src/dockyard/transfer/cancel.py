"""Cancellation of work in threads: an event that also cuts the responses being read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from urllib3 import BaseHTTPResponse

from .errors import CANCELLED


class Cancel:
    """One per operation. ``cancel`` may be called from any thread, more than once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._reading: set[BaseHTTPResponse] = set()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        self._event.set()
        with self._lock:
            for response in self._reading:
                # Closing would not wake a thread that sits in recv(2); a shutdown does. ValueError: already closed.
                with contextlib.suppress(ValueError, OSError):
                    response.shutdown()

    def check(self) -> None:
        if self._event.is_set():
            raise CANCELLED()

    def wait(self, seconds: float) -> None:
        """Sleep unless cancelled. Raises Cancelled."""
        if self._event.wait(seconds):
            raise CANCELLED()

    @contextlib.contextmanager
    def reading(self, response: BaseHTTPResponse) -> Iterator[None]:
        with self._lock:
            self._reading.add(response)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._reading.discard(response)
