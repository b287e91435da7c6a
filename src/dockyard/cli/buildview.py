"""How a build looks: one line a step on a terminal, the classic transcript elsewhere; the reasons of ``--explain``.

A step that is done keeps its line; below them one line moves, with what runs now and its last word. When a step fails,
what it said is shown whole.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from dockyard.cli.output import Column, shortened, table, terminal_width

__all__ = ["BuildView", "Step", "explained"]

Json = dict[str, Any]
MAX_TAIL = 64 << 10
"""Characters of the running step's output that are kept for a failure."""
_REDRAW = 0.1
_EXPLAIN = (Column("STEP", "Step"), Column("INSTRUCTION", "Name", soft=True), Column("STATE", "State"),
            Column("TIME", "Time"), Column("WHY", "Why"))  # fmt: skip


@dataclass(slots=True)
class Step:
    number: int
    total: int = 0
    stage: str = ""
    name: str = ""
    place: int = 0
    count: int = 0
    state: str = "queued"
    cached: bool = False
    seconds: float = 0.0
    why: str = ""
    began: float = 0.0
    label: str = ""
    """Stands for all of the title, where the engine gives it whole."""

    @property
    def title(self) -> str:
        if self.label:
            return " ".join(self.label.split())
        stage = f"stage-{self.stage} " if self.stage.isdigit() else f"{self.stage} "
        if self.total == self.count:
            stage = ""
        return f"[{stage}{self.place}/{self.count}] {' '.join(self.name.split())}"

    @property
    def outcome(self) -> str:
        return "CACHED" if self.cached else self.state.upper() if self.state == "failed" else f"{self.seconds:.1f}s"


class BuildView:
    """``plain``: print the transcript. Else lines of steps, drawn when rows come at all."""

    def __init__(self, *, plain: bool, quiet: bool, out: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out
        self._plain, self._quiet = plain, quiet
        self.steps: dict[int, Step] = {}
        self.image = ""
        self.error = ""
        self.hint = ""
        self._tail = ""
        self._word = ""
        self._moving = False
        self._drawn_at = 0.0

    def show(self, messages: Iterable[Mapping[str, Any]]) -> None:
        for message in messages:
            if message.get("id") == "dockyard.step":
                self._step(message["aux"])
            elif isinstance(message.get("aux"), dict) and "ID" in message["aux"]:
                self.image = message["aux"]["ID"]
            elif "error" in message or "errorDetail" in message:
                detail = message.get("errorDetail") or {}
                self.error = detail.get("message") or message.get("error", "")
                self.hint = detail.get("hint", "")
            elif "stream" in message:
                self._stream(message["stream"])
        self._wipe()
        if self.error and not self._plain and not self._quiet:
            self._out.write(self._tail.rstrip("\n") + "\n" if self._tail.strip() else "")
        self._out.flush()

    def _stream(self, text: str) -> None:
        if self._quiet:
            self.image = text.strip() or self.image
        elif self._plain or not self.steps:
            self._out.write(text)
            self._out.flush()
        elif text.startswith(("Step ", "Successfully ")):
            self._tail = ""
        elif not text.startswith(" ---> "):
            self._tail = (self._tail + text)[-MAX_TAIL:]
            self._word = text.strip().rpartition("\n")[2]
            self._move()

    def _step(self, row: Json) -> None:
        step = self.steps.setdefault(row["number"], Step(row["number"]))
        for key, value in row.items():
            if key in Step.__slots__:
                setattr(step, key, value)
        if step.state == "running" and not step.began:
            step.began = time.monotonic()
        if self._plain or self._quiet:
            return
        if step.state in ("done", "failed"):
            self._wipe()
            width = terminal_width()
            room = max(20, width - len(step.outcome) - 2)
            self._out.write(f"{shortened(step.title, room):<{room}} {step.outcome:>{width - room - 2}}\n")
        self._move(at_once=True)

    def _move(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        running = [step for step in self.steps.values() if step.state == "running"]
        if not self._out.isatty() or not running or (not at_once and now - self._drawn_at < _REDRAW):
            return
        self._drawn_at = now
        step = running[0]
        more = f" (+{len(running) - 1})" if len(running) > 1 else ""
        text = f"{step.title} {now - step.began:.0f}s{more}" + (f"  {self._word}" if self._word else "")
        clean = "".join(letter if letter.isprintable() else " " for letter in text)
        self._out.write(f"\r\033[2K\033[2m{shortened(clean, terminal_width() - 1)}\033[0m")
        self._out.flush()
        self._moving = True

    def _wipe(self) -> None:
        if self._moving:
            self._out.write("\r\033[2K")
            self._moving = False
        self._word = ""


def explained(steps: Iterable[Step], width: int) -> list[str]:
    """Why each step ran or did not. Pure."""
    rows = [
        {
            "Step": f"{step.number}/{step.total}", "Name": step.title,
            "State": "cached" if step.cached else "ran" if step.state == "done" else step.state,
            "Time": "" if step.cached else f"{step.seconds:.1f}s", "Why": "" if step.cached else step.why,
        }
        for step in steps
    ]  # fmt: skip
    return table(rows, _EXPLAIN, width=width)
