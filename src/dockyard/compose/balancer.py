"""A project's balancer at work: instances into slots as they come and go, and the judge's verdicts carried out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from dockyard.compose import layout
from dockyard.compose.circuit import Judge, counted
from dockyard.compose.errors import BALANCER_FAILED, BALANCER_RUNS
from dockyard.compose.haproxy import Process, RuntimeSocket
from dockyard.compose.layout import Layout
from dockyard.compose.observe import Container

LOOK_SECONDS = 0.5
Slots = dict[tuple[str, int], tuple[str, int]]


class Balancer:
    """``tell`` gets a sentence for each change, from several threads."""

    def __init__(self, made: Layout, control: RuntimeSocket, tell: Callable[[str], None]) -> None:
        self.layout, self.control, self._tell = made, control, tell
        self.judge = Judge(made)
        self._filled: Slots = {}
        self._lock = threading.Lock()
        self._over = threading.Event()

    @property
    def states_file(self) -> Path:
        return Path(self.control.path).with_name("states.map")

    def check_alone(self) -> None:
        """Raises Conflict where the project has a balancer."""
        with contextlib.suppress(BALANCER_FAILED.kind):
            self.control.ask("show info")
            raise BALANCER_RUNS(project=self.layout.project)

    def start(self, metrics: str = "") -> Process:
        """HAProxy running and answering; close it at the end. Raises Unavailable, Conflict."""
        self.check_alone()
        self.states_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.states_file.write_text("".join(f"{key} {value}\n" for key, value in self.judge.states().items()))
        config = layout.render(self.layout, self.control.path, metrics, str(self.states_file))
        process = Process(self.states_file.parent, config)
        try:
            process.wait_ready(self.control)
        except BaseException:
            process.close()
            raise
        return process

    def fill(self, found: Iterable[Container]) -> None:
        """Makes the slots hold what runs. Raises Unavailable."""
        with self._lock:
            before, after = self._filled, layout.wanted(self.layout, found)
            changed = [place for place in sorted({*before, *after}) if before.get(place) != after.get(place)]
            for place in changed:
                self.judge.forget(*place)
            lines = layout.commands(before, after)
            if lines:
                self.control.ask(*lines)
            self._filled = after
        for place in changed:
            word = "gone" if place not in after else "in" if place not in before else "moved"
            self._tell(f"{place[0].removeprefix('b_')}-{place[1]} {word}")

    def look(self, now: float) -> None:
        """One judgement, carried out. Raises Unavailable."""
        rows = self.control.rows()  # without the lock: an instance that comes does not wait for a reading
        with self._lock:
            verdict = self.judge.look(now, counted(rows), self._filled)
            leaving = {(row["pxname"], row["svname"]) for row in rows if row["status"].startswith("DRAIN")}
            lines = [f"set map {self.states_file} {key} {value}" for key, value in verdict.states.items()]
            lines += [f"set server {backend}/s{slot} state maint" for backend, slot in verdict.out]
            for backend, slot in verdict.back:
                if (backend, slot) in self._filled and (backend, f"s{slot}") not in leaving:
                    lines += [f"set server {backend}/s{slot} state ready", f"set server {backend}/s{slot} health up"]
            if lines:
                self.control.ask(*lines)
        for sentence in verdict.told:
            self._tell(sentence)

    def watch(self) -> None:
        """Judges in a thread of its own until `close`; a balancer that does not answer ends it."""

        def work() -> None:
            while not self._over.wait(LOOK_SECONDS):
                try:
                    self.look(time.monotonic())
                except Exception as error:  # noqa: BLE001 - the process has ended, which the main thread tells
                    if not self._over.is_set():
                        self._tell(f"no judgement: {error}")
                    return

        threading.Thread(target=work, daemon=True, name="judge").start()

    def close(self) -> None:
        self._over.set()
