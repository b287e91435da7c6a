"""Progress of pull, push, load and import: one moving line a layer on a terminal, plain lines elsewhere.

A message is docker's ``{"status", "id", "progressDetail": {"current", "total"}, "stream", "error", "aux"}``. What is
printed off a terminal equals docker's: state changes only, no bars.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from dockyard.cli.output import size, terminal_width
from dockyard.cli.shell import printable
from dockyard.errors import Code, System

Json = dict[str, Any]
REMOTE_FAILED = Code("DY-CLI-002", System, "{told}")
"""The engine's own sentence, told within a stream of progress."""
LEAST_BAR, MOST_BAR = 10, 50


class Progress:
    def __init__(self, out: TextIO | None = None, *, quiet: bool = False) -> None:
        self._out = sys.stdout if out is None else out
        self._quiet = quiet
        self._drawn = self._out.isatty()
        self._rows: dict[str, int] = {}

    def show(self, messages: Iterable[Json]) -> list[Json]:
        """Prints until the end and returns the ``aux`` values. Raises REMOTE_FAILED with the engine's sentence."""
        found = []
        for message in messages:
            if error := message.get("errorDetail", {}).get("message") or message.get("error"):
                raise REMOTE_FAILED(told=error)
            if message.get("aux") is not None:
                found.append(message["aux"])
            elif not self._quiet:
                self._line(message)
        return found

    def _line(self, message: Json) -> None:
        detail = message.get("progressDetail") or {}
        if "stream" in message:
            self._out.write(printable(message["stream"]))
        elif not self._drawn:
            if not (detail.get("current") or detail.get("total")):
                self._out.write(_named(message) + "\n")
        else:
            self._draw(message, detail)
        self._out.flush()

    def _draw(self, message: Json, detail: Json) -> None:
        """Goes up to the line of its id, writes it anew, comes back."""
        name = message.get("id", "")
        text = _named(message)
        width = terminal_width()
        if detail.get("current") or detail.get("total"):
            text += " " + bar(detail, width - len(text) - 2)
        if not name:
            self._out.write(text + "\n")  # whole, even where it wraps: nothing above is gone back to
            self._rows.clear()
            return
        text = text[: width - 1]
        up = len(self._rows) - self._rows[name] if name in self._rows else 0
        if not up:
            self._rows[name] = len(self._rows)
            self._out.write(text + "\n")
            return
        self._out.write(f"\033[{up}A\033[2K\r{text}\033[{up}B\r")


def _named(message: Json) -> str:
    name, status = message.get("id", ""), message.get("status", "")
    return printable(f"{name}: {status}" if name else str(status))


def bar(detail: Json, room: int) -> str:
    """``[=====>    ]  12.3MB/45.6MB`` in ``room`` characters; the numbers alone where it is narrow. Pure."""
    current, total = detail.get("current", 0), detail.get("total", 0)
    if detail.get("units") == "s":
        return f"{current} s"
    numbers = size(current)
    if total <= 0:
        return f"{numbers:>8}"
    numbers = f"{numbers:>8}/{size(total)}" if current <= total else f"{numbers:>8}"
    width = min(MOST_BAR, room - len(numbers) - 3)
    if width < LEAST_BAR:
        return numbers.strip()
    done = min(width, int(width * current / total))
    arrow = "=" * done + ">" if done < width else "=" * width
    return f"[{arrow:<{width}}] {numbers}"
