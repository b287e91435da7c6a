"""Following containers while they come, go and come again: their output, and how they ended.

One thread reads the engine's events, one each container's output. Output of a container that starts later is read from
its start on, so that no line is lost between the event and the reading.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from dockyard.client import Client
from dockyard.compose import labels, logs
from dockyard.compose.observe import Container, containers
from dockyard.errors import DockyardError

Json = dict[str, Any]
Fits = Callable[[Container], bool]


class Follower:
    """``write`` gets every line; it is called from several threads."""

    def __init__(self, client: Client, project: str, write: Callable[[logs.Line], None], query: Json) -> None:
        self._client, self._project, self._write, self._query = client, project, write, query
        self._threads: dict[str, threading.Thread] = {}
        self._streams: list[Any] = []
        self._alive: set[str] = set()
        self._fresh: set[str] = set()
        """Attached before their start, which the events will tell too."""
        self._changed = threading.Condition()
        self._ended = False

    def follow(self, item: Container, query: Json | None = None) -> None:
        """Reads the container's log on and on."""
        asked = {**self._query, "follow": True, **(query or {})}
        with self._changed:
            if item.running:
                self._alive.add(item.id)
        self._spawn(item.id, lambda: self._pump(logs.read(self._client, item, asked)))

    def attach(self, container: str, name: str, *, tty: bool) -> None:
        """Takes what the container writes from now on; called before its start."""
        stream, lines = logs.attached(self._client, container, name, tty=tty)
        with self._changed:
            self._streams.append(stream)
            self._alive.add(container)
            self._fresh.add(container)
        self._spawn(container, lambda: self._pump(lines))

    def _spawn(self, container: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True, name=f"follow {container[:12]}")
        self._threads[container] = thread
        thread.start()

    def _pump(self, lines: Any) -> None:
        # A container that goes while it is followed ends its lines, no more.
        with contextlib.suppress(DockyardError, OSError, ValueError):
            for line in lines:
                self._write(line)

    def watch(
        self, fits: Fits, on_exit: Callable[[str, int], None], on_new: Callable[[str], None] = lambda name: None
    ) -> None:
        """Begins to read events; returns when the engine has begun to send them."""
        filters = {"label": [f"{labels.PROJECT}={self._project}"], "type": ["container"], "event": ["start", "die"]}
        answer = self._client.open("GET", "/events", {"filters": filters})
        answer.settimeout(None)

        def read() -> None:
            with contextlib.suppress(DockyardError, OSError, ValueError):
                for row in answer.objects():
                    self._event(row, fits, on_exit, on_new)

        threading.Thread(target=read, daemon=True, name="events").start()

    def _event(self, row: Json, fits: Fits, on_exit: Callable[[str, int], None], on_new: Callable[[str], None]) -> None:
        actor = row.get("Actor") or {}
        identifier, attributes = actor.get("ID") or "", actor.get("Attributes") or {}
        if row.get("Action") == "die":
            thread = self._threads.get(identifier)
            if thread is None:
                return
            thread.join(5)  # its last lines come before the word of its end
            on_exit(attributes.get("name") or identifier[:12], int(attributes.get("exitCode") or 0))
            again = any(item.id == identifier and item.running for item in containers(self._client, self._project))
            if not again:  # a restart policy may have it running again
                self.forget(identifier)
            return
        with self._changed:
            if identifier in self._fresh:
                self._fresh.discard(identifier)
                return
        for item in containers(self._client, self._project):
            if item.id == identifier and fits(item):
                on_new(item.name)
                self.follow(item, {"since": f"{row.get('timeNano', 0) / 1e9:.9f}", "tail": None})

    def wait(self, more: Callable[[], bool] = lambda: False) -> None:
        """Until no followed container runs (and ``more`` agrees); Ctrl-C passes through."""
        with self._changed:
            while self._alive or more():
                self._changed.wait(0.5)

    def alive(self) -> set[str]:
        """IDs of followed containers that run."""
        with self._changed:
            return set(self._alive)

    def forget(self, container: str) -> None:
        with self._changed:
            self._alive.discard(container)
            self._changed.notify_all()
