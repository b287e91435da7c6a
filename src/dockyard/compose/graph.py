"""Runs a graph of operations in parallel: each when what it needs is done; the first failure or Ctrl-C ends the rest.

What runs already is let finish (an engine finishes what it began anyway); what has not begun is not begun. Waits take
no place among the operations that load the engine.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from dockyard.compose.plan import Operation

PARALLEL = 8
"""Operations at once, waits not counted; COMPOSE_PARALLEL_LIMIT and --parallel change it."""


class Cancelled(Exception):
    """Another operation failed, or the user stopped the whole."""


class Stop:
    """Tells running waits that nobody wants them any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def pause(self, seconds: float) -> None:
        """Waits that long. Raises Cancelled when stopped meanwhile."""
        if self._event.wait(seconds):
            raise Cancelled


def run(operations: Sequence[Operation], work: Callable[[Operation, Stop], None], parallel: int = PARALLEL) -> None:
    """Raises what the first failed operation raised; KeyboardInterrupt passes through."""
    runner = _Runner(operations, work, max(1, parallel))
    try:
        runner.run()
    except KeyboardInterrupt:
        runner.stop.set()
        raise


class _Runner:
    def __init__(self, operations: Sequence[Operation], work: Callable[[Operation, Stop], None], parallel: int) -> None:
        self.stop = Stop()
        self._work = work
        self._slots = threading.BoundedSemaphore(parallel)
        self._finished: queue.SimpleQueue[tuple[Operation, BaseException | None]] = queue.SimpleQueue()
        self._operations = {one.key: one for one in operations}
        self._left = {one.key: {key for key in one.needs if key in self._operations} for one in operations}

    def run(self) -> None:
        ready = [key for key, needs in self._left.items() if not needs]
        running = 0
        first: BaseException | None = None
        while ready or running:
            for key in ready:
                del self._left[key]
                threading.Thread(target=self._task, args=(self._operations[key],), daemon=True, name=key).start()
            running += len(ready)
            ready = []
            done, failure = self._finished.get()
            running -= 1
            if failure is not None:
                self.stop.set()
                first = failure if first is None or isinstance(first, Cancelled) else first
            elif first is None:
                ready = self._freed(done.key)
        if first is not None:
            raise first

    def _freed(self, done: str) -> list[str]:
        found = []
        for key, needs in self._left.items():
            if done in needs:
                needs.discard(done)
                if not needs:
                    found.append(key)
        return found

    def _task(self, one: Operation) -> None:
        failure: BaseException | None = None
        try:
            if one.verb == "wait":
                self._work(one, self.stop)
            else:
                with self._slots:
                    if self.stop.is_set():
                        raise Cancelled
                    self._work(one, self.stop)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            failure = error
        self._finished.put((one, failure))
