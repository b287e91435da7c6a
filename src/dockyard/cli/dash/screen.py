"""The terminal: keys in, lines out. Only lines that changed are written, so a slow line carries little."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from dockyard.cli.dash import view
from dockyard.cli.dash.view import Line
from dockyard.cli.shell import printable
from dockyard.cli.terminal import raw_terminal, window
from dockyard.compose.desk import Desk
from dockyard.compose.logs import Line as LogLine
from dockyard.errors import DockyardError

FOLLOW = 1.0
"""Seconds between two readings of a log that is shown."""
KEY_LIMIT = 0.05
"""Seconds in which the rest of an escape sequence must come; a lone escape is the key."""
_ARROWS = {b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down", b"\x1b[5~": "pageup", b"\x1b[6~": "pagedown"}
_PLAIN = {b"\r": "enter", b"\n": "enter", b"\x1b": "esc", b"\x7f": "back", b"\x08": "back", b"\x03": "quit", b"\x04": "quit"}


class Painter:
    """Writes what differs from what it wrote before."""

    def __init__(self, write: Any, *, colour: bool) -> None:
        self._write, self._colour = write, colour
        self._shown: list[str] = []

    def paint(self, lines: list[Line]) -> None:
        texts = [self._styled(line) for line in lines]
        if len(texts) != len(self._shown):
            self._shown = []
            self._write("\x1b[2J")
        out = []
        for row, text in enumerate(texts):
            if row >= len(self._shown) or self._shown[row] != text:
                out.append(f"\x1b[{row + 1};1H{text}\x1b[K")
        self._shown = texts
        if out:
            self._write("".join(out))

    def forget(self) -> None:
        self._shown = []

    def _styled(self, line: Line) -> str:
        if not self._colour:
            return "".join(text for _, text in line)
        return "".join(f"\x1b[{style}m{text}\x1b[0m" if style else text for style, text in line)


class Screen:
    """One run on a terminal. ``page``: overview, logs, doctor, help."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._painter = Painter(self._out, colour=not os.environ.get("NO_COLOR"))
        self._page, self._chosen, self._first = "overview", "", 0
        self._question, self._answer = "", ""
        self._search, self._typing = "", ""
        self._is_typing = False
        self._log: list[LogLine] = []
        self._log_error, self._log_at = "", 0.0

    def run(self) -> int:
        """Until q or Ctrl-C; the terminal is as before then, whatever happens."""
        awake, wake = os.pipe()
        os.set_blocking(wake, False)

        def tell() -> None:
            version = 0
            while not closed.is_set():
                version = self._desk.wait(version, 1.0)
                with contextlib.suppress(OSError):
                    os.write(wake, b".")

        closed = threading.Event()
        watcher = threading.Thread(target=tell, daemon=True, name="dash")
        before = signal.signal(signal.SIGWINCH, lambda *_: self._painter.forget())
        with raw_terminal(True), _whole_screen(self._out):
            watcher.start()
            try:
                self._loop(awake)
            finally:
                closed.set()
                signal.signal(signal.SIGWINCH, before)
        return 0

    def _loop(self, awake: int) -> None:
        while True:
            self._draw()
            ready, _, _ = select.select([0, awake], [], [], FOLLOW)
            if awake in ready:
                os.read(awake, 4096)
            if 0 in ready:
                data = os.read(0, 1024)
                if not data:
                    return
                for key in keys(data):
                    if not self._press(key):
                        return

    # ---- drawing

    def _draw(self) -> None:
        size = window() or (24, 80)
        height, width = max(4, size[0]), max(20, size[1])
        picture = self._desk.picture
        names = [one.name for one in picture.services]
        if self._chosen not in names:
            self._chosen = names[0] if names else ""
        foot = view.foot(self._question)
        if self._page == "overview":
            body, at = view.overview(picture, self._chosen)
            room = height - 1
            self._first = min(self._first, at, max(0, len(body) - room))
            self._first = max(self._first, at - room + 1)
            self._painter.paint(view.frame(body, foot, width, height, self._first))
            return
        if self._page == "logs":
            self._painter.paint(self._log_frame(width, height))
            return
        chosen = picture.service(self._chosen)
        body = view.help_lines() if self._page == "help" or chosen is None else view.doctor(picture, chosen)
        self._first = max(0, min(self._first, len(body) - 1))
        foot = view.foot(self._question, "a apply the cure  esc back  ↑↓ scroll  q quit")
        self._painter.paint(view.frame(body, foot, width, height, self._first))

    def _log_frame(self, width: int, height: int) -> list[Line]:
        if time.monotonic() - self._log_at >= FOLLOW:
            self._read_log()
        typing = self._typing if self._is_typing else None
        head, body = view.log(self._chosen, self._log, self._search, typing, width)
        room = height - 2
        start = max(0, len(body) - room - self._first)
        shown = [head, *body[start : start + room]]
        if self._log_error:
            shown = [head, [(view.RED, self._log_error)]]
        elif not body:
            shown = [head, [(view.DIM, "no such lines" if self._search else "nothing was written")]]
        return view.frame(shown, view.foot("", "/ search  ↑↓ scroll  esc back  q quit"), width, height)

    def _read_log(self) -> None:
        self._log_at = time.monotonic()
        try:
            self._log, self._log_error = self._desk.log(self._chosen, self._search), ""
        except DockyardError as error:
            self._log, self._log_error = [], printable(str(error))

    def _out(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    # ---- keys

    def _press(self, key: str) -> bool:
        """False: quit."""
        if key == "quit":
            return False
        if self._question:
            self._decide(key)
            return True
        if self._page == "logs" and self._is_typing:
            self._type(key)
            return True
        if key == "q":
            return False
        if self._page == "overview":
            self._press_overview(key)
        elif key == "esc":
            self._page, self._first, self._search = "overview", 0, ""
        elif key in ("up", "k", "pageup"):
            self._first += (1 if key != "pageup" else 20) * (1 if self._page == "logs" else -1)
            self._first = max(0, min(self._first, len(self._log) if self._page == "logs" else self._first))
        elif key in ("down", "j", "pagedown"):
            self._first = max(0, self._first + (1 if key != "pagedown" else 20) * (-1 if self._page == "logs" else 1))
        elif key == "a" and self._page == "doctor":
            self._ask_to_cure()
        elif key == "/" and self._page == "logs":
            self._is_typing, self._typing = True, ""
        return True

    def _press_overview(self, key: str) -> None:
        names = [one.name for one in self._desk.picture.services]
        if key in ("up", "k", "down", "j") and names:
            at = names.index(self._chosen) if self._chosen in names else 0
            self._chosen = names[max(0, min(len(names) - 1, at + (1 if key in ("down", "j") else -1)))]
        elif key in ("enter", "l") and self._chosen:
            self._page, self._first, self._search, self._log_at, self._log = "logs", 0, "", 0.0, []
        elif key == "d" and self._chosen:
            self._page, self._first = "doctor", 0
        elif key == "?":
            self._page, self._first = "help", 0
        elif key == "r" and self._chosen:
            self._question, self._answer = f"restart {self._chosen}?", "restart"
        elif key == "u" and self._chosen:
            self._question, self._answer = f"update {self._chosen}, instance by instance?", "update"
        elif key == "U":
            self._question, self._answer = "update everything that is out of date?", "all"
        elif key == "c":
            self._desk.check_images()

    def _ask_to_cure(self) -> None:
        """The first finding whose cure the doctor can apply."""
        one = self._desk.picture.service(self._chosen)
        ill = next((ill for ill in one.ills if ill.machine), None) if one else None
        if ill is not None:
            self._question, self._answer = f"run {'; '.join(ill.commands)}?", f"cure {ill.key}"

    def _decide(self, key: str) -> None:
        answer, self._question = self._answer, ""
        if key not in ("y", "Y", "enter"):
            return
        if answer.startswith("cure "):
            self._page = "overview"
            with contextlib.suppress(DockyardError):  # it is healed already
                self._desk.cure(answer.removeprefix("cure "))
            return
        if answer == "restart":
            self._desk.restart([self._chosen])
        else:
            self._desk.update([self._chosen] if answer == "update" else [])

    def _type(self, key: str) -> None:
        if key == "enter":
            self._is_typing, self._search, self._first = False, self._typing, 0
            self._read_log()
        elif key == "esc":
            self._is_typing = False
        elif key == "back":
            self._typing = self._typing[:-1]
        elif len(key) == 1 and key.isprintable():
            self._typing += key


def keys(data: bytes) -> Iterator[str]:
    """Names of the keys in what was typed: "up", "enter", "q", ... A sequence that is cut is taken as it is."""
    while data:
        arrow = next((sequence for sequence in _ARROWS if data.startswith(sequence)), None)
        if arrow is not None:
            yield _ARROWS[arrow]
            data = data[len(arrow) :]
        elif data[:1] in _PLAIN and not data.startswith((b"\x1b[", b"\x1bO")):
            yield _PLAIN[data[:1]]
            data = data[1:]
        elif data.startswith((b"\x1b[", b"\x1bO")):  # a key that we have no use for
            end = next((at for at in range(2, len(data)) if data[at : at + 1].isalpha() or data[at : at + 1] == b"~"), len(data))
            data = data[end + 1 :]
        else:
            length = 1 if data[0] < 0x80 else 2 if data[0] < 0xE0 else 3 if data[0] < 0xF0 else 4
            yield data[:length].decode("utf-8", "replace")
            data = data[length:]


@contextlib.contextmanager
def _whole_screen(write: Any) -> Iterator[None]:
    """The alternate screen, without a cursor."""
    write("\x1b[?1049h\x1b[?25l\x1b[2J")
    try:
        yield
    finally:
        write("\x1b[?25h\x1b[?1049l")
