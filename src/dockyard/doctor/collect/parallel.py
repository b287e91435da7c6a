"""Bounded work in daemon threads (a ThreadPoolExecutor joins its threads at exit, so one hung file system would hang
the doctor)."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from dockyard.errors import DockyardError

K = TypeVar("K")
T = TypeVar("T")
WORKERS = 4


def each(items: Iterable[K], work: Callable[[K], T], seconds: float) -> tuple[dict[K, T], dict[K, str]]:
    """Results by item and errors by item; an item that has no result in ``seconds`` gets an error."""
    todo: queue.SimpleQueue[K] = queue.SimpleQueue()
    pending = list(items)
    for item in pending:
        todo.put(item)
    results: dict[K, T] = {}
    errors: dict[K, str] = {}
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                results[item] = work(item)
            except (DockyardError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
                errors[item] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(WORKERS, len(pending)))]
    end = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    stop.set()
    done, failed = dict(results), dict(errors)
    for item in pending:
        if item not in done and item not in failed:
            failed[item] = f"no answer within {seconds:.1f} s"
    return done, failed
