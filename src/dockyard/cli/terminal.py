"""The terminal and a container's stdio: raw mode, window size, and the pumps between them.

The daemon detects detach keys; here bytes are only carried. Input is read in a thread of its own, output in the main
one, so that the end of the output ends the command whatever the input does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from dockyard.client import STDERR, SYSTEMERR, Hijacked

INPUT_PIECE = 32 << 10


@contextlib.contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """Keys as they are typed, no echo, while the container has the terminal; put back at the end, come what may."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    # Output processing stays on for our own messages only after it ended: a container with a TTY does its own.
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def window() -> tuple[int, int] | None:
    """(rows, columns) of the terminal, None without one."""
    for descriptor in (1, 0, 2):
        with contextlib.suppress(OSError):
            found = os.get_terminal_size(descriptor)
            if found.lines and found.columns:
                return found.lines, found.columns
    return None


@contextlib.contextmanager
def following_window(tell: Callable[[int, int], None]) -> Iterator[None]:
    """Tells the size now and at each change."""

    def changed(*_: Any) -> None:
        size = window()
        if size is not None:
            tell(*size)

    changed()
    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextlib.contextmanager
def passing_signals(send: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C and its like go to the container instead of ending us (``--sig-proxy``)."""
    passed = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

    def arrived(number: int, _: Any) -> None:
        send(signal.Signals(number).name)

    before = {number: signal.signal(number, arrived) for number in passed}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pump(stream: Hijacked, *, stdin: bool, tty: bool) -> None:
    """Carries both directions until the output ends."""
    if stdin:
        threading.Thread(target=_feed, args=(stream,), daemon=True).start()
    else:
        stream.close_write()
    for frame in stream.frames(tty=tty):
        write(frame.stream, frame.data)


def write(stream: int, data: bytes) -> None:
    """A frame to our stdout or stderr, at once."""
    target = sys.stderr.buffer if stream in (STDERR, SYSTEMERR) else sys.stdout.buffer
    target.write(data)
    target.flush()


def _feed(stream: Hijacked) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, INPUT_PIECE):
            try:
                stream.send(data)
            except Exception:  # noqa: BLE001 - the other end closed: what is typed has no reader; output tells the rest
                return
        stream.close_write()
