"""How the demo speaks: numbered steps, the commands as one would type them, what they said in few words, 80 columns."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence

WIDTH = 80
COUNT_PAUSE, LINE_PAUSE = 0.5, 15.0
"""Seconds between two signs of life: a counter that changes in place on a terminal, a line elsewhere."""


class Narrator:
    """What goes on, why it is there, and how long each step took."""

    def __init__(self, steps: int = 0) -> None:
        """``steps``: how many there will be, 0 when nobody knows."""
        self._step, self._steps = 0, steps
        self.terminal = sys.stdout.isatty()
        self._colour = self.terminal and not os.environ.get("NO_COLOR")

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    @contextlib.contextmanager
    def step(self, title: str, why: str = "") -> Iterator[None]:
        self._step += 1
        number = f"{self._step}/{self._steps}" if self._steps else f"{self._step}."
        print(self._paint("1", f"\n{number} {title}"), flush=True)
        for line in textwrap.wrap(why, WIDTH - 3):
            print(self._paint("2", f"   {line}"), flush=True)
        began = time.monotonic()
        yield
        self.good(f"done in {time.monotonic() - began:.1f} s")

    def good(self, text: str) -> None:
        sign = "✔ " if self.terminal else ""
        print(self._paint("32", cut(f"   {sign}{text}")), flush=True)

    def command(self, words: Sequence[str]) -> None:
        shown = " ".join(word if " " not in word else f"'{word}'" for word in words)
        print(self._paint("36", cut("   $ " + shown.replace("\t", "\\t"))), flush=True)

    def output(self, text: str, lines: int = 8) -> None:
        rows = text.rstrip().splitlines()
        for row in rows[:lines]:
            print(cut(f"     {row.rstrip()}"), flush=True)
        if len(rows) > lines:
            print(f"     ... {len(rows) - lines} more lines", flush=True)

    @contextlib.contextmanager
    def working(self, status: Callable[[], str] = str) -> Iterator[None]:
        """Shows that something goes on: seconds, and what `status` tells."""
        done = threading.Event()
        pause, first, last = (COUNT_PAUSE, "\r", "\033[K") if self.terminal else (LINE_PAUSE, "", "\n")

        def count() -> None:
            began = time.monotonic()
            while not done.wait(pause):
                told = f"     ... {time.monotonic() - began:.0f} s  {status()}".rstrip()
                print(first + cut(told), end=last, flush=True)

        counter = threading.Thread(target=count, daemon=True)
        counter.start()
        try:
            yield
        finally:
            done.set()
            counter.join()
            if self.terminal:
                print("\r\033[K", end="", flush=True)


def cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def condensed(progress: str) -> str:
    """Compose's plain progress in few lines: for each last word the things that came to it, in the order they came.

    ``Network shop_default  Created`` and ``Container shop-web-1  Started`` become ``Created: shop_default`` and so on;
    lines of another form stay as they are.
    """
    last: dict[str, str] = {}
    other = []
    for line in progress.splitlines():
        subject, gap, word = line.strip().partition("  ")
        kind, _, name = subject.partition(" ")
        if gap and kind in {"Network", "Volume", "Container", "Image", "Service"}:
            last.pop(name, None)
            last[name] = word.strip() or "Done"
        elif line.strip():
            other.append(line.strip())
    groups: dict[str, list[str]] = {}
    for name, word in last.items():
        groups.setdefault(word, []).append(name)
    rows = [f"{word}: {', '.join(names)}" for word, names in groups.items()]
    return "\n".join([line for row in rows for line in textwrap.wrap(row, WIDTH - 5, subsequent_indent="  ")] + other)
