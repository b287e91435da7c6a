"""How progress looks: a board of lines that change in place on a terminal, plain lines elsewhere, JSON if asked for."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Protocol, TextIO

from dockyard.compose.progress import Event, Progress, Silent

_SIGNS = {"working": "⠿", "done": "✔", "warning": "!", "error": "✘"}
_COLOURS = {"working": "34", "done": "32", "warning": "33", "error": "31"}
REDRAW = 0.05
"""Seconds between two drawings at most as often."""


class Screen(Progress, Protocol):
    def end(self) -> None:
        """What is shown stays; what comes is shown below it."""
        ...


def make(kind: str, *, colour: bool) -> Screen:
    """``kind``: auto, tty, plain, json, quiet."""
    if kind in {"", "auto"}:
        kind = "tty" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if kind == "quiet":
        return Plain(sys.stderr, quiet=True)
    if kind == "json":
        return Json(sys.stderr)
    return Board(sys.stderr, colour=colour) if kind == "tty" else Plain(sys.stderr)


class Quiet(Silent):
    """Says nothing: the screen is somebody else's, who tells what was raised."""

    def end(self) -> None:
        pass


class Plain:
    """One line a step, as Docker Compose writes them where there is no terminal."""

    def __init__(self, out: TextIO, *, quiet: bool = False) -> None:
        self._out, self._quiet = out, quiet
        self._lock = threading.Lock()
        self._last: dict[str, str] = {}

    def on(self, event: Event) -> None:
        if self._quiet and event.status != "error":
            return
        line = f" {event.subject}  {event.text}{': ' + event.details if event.status == 'error' else ''}"
        with self._lock:
            if self._last.get(event.subject) != line:  # a moving count of bytes is for terminals
                self._last[event.subject] = line
                self._out.write(line + " \n")
                self._out.flush()

    def warn(self, text: str) -> None:
        with self._lock:
            self._out.write(f"warning: {text}\n")
            self._out.flush()

    def end(self) -> None:
        pass


class Json:
    """One object a step."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def _write(self, row: dict[str, str]) -> None:
        with self._lock:
            self._out.write(json.dumps({key: value for key, value in row.items() if value}) + "\n")
            self._out.flush()

    def on(self, event: Event) -> None:
        self._write({"id": event.subject, "status": event.status, "text": event.text, "details": event.details,
                     "parent_id": event.parent})  # fmt: skip

    def warn(self, text: str) -> None:
        self._write({"level": "warning", "msg": text})

    def end(self) -> None:
        pass


class Board:
    """A line for each thing, drawn in place; what does not fit the window's height is left out."""

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out, self._colour = out, colour
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[Event, float, float]] = {}
        """Subject to its last event, when it began and when it ended (0: not yet)."""
        self._drawn = 0
        self._at = 0.0

    def on(self, event: Event) -> None:
        now = time.monotonic()
        with self._lock:
            began = self._rows[event.subject][1] if event.subject in self._rows else now
            self._rows[event.subject] = (event, began, now if event.status != "working" else 0.0)
            if event.status != "working" or now - self._at > REDRAW:
                self._draw(now)

    def warn(self, text: str) -> None:
        with self._lock:
            self._erase()
            self._out.write(self._paint("33", f"warning: {text}") + "\n")
            self._draw(time.monotonic())

    def end(self) -> None:
        """What is drawn stays; the next board begins below it."""
        with self._lock:
            self._draw(time.monotonic())
            self._rows.clear()
            self._drawn = 0

    def _erase(self) -> None:
        if self._drawn:
            self._out.write(f"\033[{self._drawn}A\033[J")
            self._drawn = 0

    def _draw(self, now: float) -> None:
        if not self._rows:
            return
        try:
            size = os.get_terminal_size(self._out.fileno())
            columns, height = size.columns or 80, size.lines or 24
        except OSError:
            columns, height = 80, 24
        done = sum(1 for event, _, _ in self._rows.values() if event.status != "working")
        lines = [self._paint("1", f"[+] Running {done}/{len(self._rows)}")]
        widest = max(len(subject) for subject in self._rows)
        for subject, (event, began, ended) in list(self._rows.items())[-(height - 3) :]:
            seconds = f"{(ended or now) - began:.1f}s"
            text = f"{event.text} {event.details}".rstrip()
            room = max(8, columns - widest - len(seconds) - 8)
            sign = self._paint(_COLOURS[event.status], _SIGNS[event.status])
            shown = text if len(text) <= room else text[: room - 1] + "…"
            lines.append(
                f" {sign} {subject:<{widest}}  {self._paint(_COLOURS[event.status], shown.ljust(room))} {seconds}"
            )
        self._erase()
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()
        self._drawn, self._at = len(lines), now

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text
