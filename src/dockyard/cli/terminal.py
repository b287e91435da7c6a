"""The terminal and a container's stdio: raw mode, window size, signals, detach keys, and the pumps between them.

Input is read in a thread of its own, output in the main one, so that the end of the output ends the command whatever
the input does. Detach keys are seen here, as docker's CLI does, because only who sees them knows that the end of the
stream is not the end of the container; the engine is told them too.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from dockyard.cli.flags import UsageError
from dockyard.client import STDERR, SYSTEMERR, Hijacked

INPUT_PIECE = 32 << 10
DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}
_PASSED = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
    signal.SIGCONT, signal.SIGTSTP,
)  # fmt: skip
STRIKES = 3
"""Ctrl-C (or SIGTERM) so often ends us though the container does not, as docker's CLI has it."""
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


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

    def ended(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    handlers = {number: signal.signal(number, ended) for number in _ENDING}
    tty.setraw(descriptor, termios.TCSADRAIN)  # keys typed ahead stay
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


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

    def changed(_: str) -> None:
        size = window()
        if size is not None:
            tell(*size)

    changed("")
    with _handling((signal.SIGWINCH,), changed):
        yield


@contextlib.contextmanager
def passing_signals(send: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C and its like go to the container instead of ending us (``--sig-proxy``), but for the third time."""
    counted: list[int] = []

    def count(number: int) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            counted.append(number)
        if len(counted) == STRIKES:
            os.write(2, f"\ngot {STRIKES} SIGTERM/SIGINTs, forcefully exiting\n".encode())
            os._exit(1)

    with _handling(_PASSED, send, count):
        yield


@contextlib.contextmanager
def _handling(
    numbers: tuple[signal.Signals, ...], work: Callable[[str], None], first: Callable[[int], None] = lambda _: None
) -> Iterator[None]:
    """``work`` with the name of each signal, in a thread: a handler interrupts code that may hold the client's lock.
    ``first`` is called in the handler itself."""
    arrived: queue.SimpleQueue[str] = queue.SimpleQueue()

    def serve() -> None:
        while name := arrived.get():
            with contextlib.suppress(Exception):  # the container has ended, or the engine is gone: the stream tells
                work(name)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def handle(number: int, _: Any) -> None:
        arrived.put(signal.Signals(number).name)
        first(number)

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        arrived.put("")


def key_bytes(keys: str) -> bytes:
    """``ctrl-p,ctrl-q`` or ``a,b`` as the bytes typed. Raises UsageError."""
    found = []
    for key in keys.split(","):
        letter = key.removeprefix("ctrl-")
        if len(key) == 1:
            found.append(ord(key) & 255)
        elif letter != key and len(letter) == 1 and ("a" <= letter <= "z" or letter in _CONTROL):
            found.append(_CONTROL[letter] if letter in _CONTROL else ord(letter) - 96)
        else:
            raise UsageError(f"invalid detach keys ({keys}): Unknown character: '{key}'")
    return bytes(found)


class KeyWatch:
    """Looks for the detach keys in what is typed; a beginning of them is held back until the next key decides."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0

    def take(self, data: bytes) -> tuple[bytes, bool]:
        """(what to send on, whether the keys are complete)."""
        out = bytearray()
        for byte in data:
            if self._keys and byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    self._held = 0
                    return bytes(out), True
                continue
            out += self._keys[: self._held]
            self._held = 0
            if self._keys and byte == self._keys[0]:
                self._held = 1
            else:
                out.append(byte)
        return bytes(out), False


def pump(stream: Hijacked, *, stdin: bool, tty: bool, keys: bytes = b"") -> bool:
    """Carries both directions until the output ends; True when the detach keys ended it."""
    detached = threading.Event()
    if stdin:
        watch = KeyWatch(keys if tty else b"")
        threading.Thread(target=_feed, args=(stream, watch, detached), daemon=True).start()
    else:
        stream.close_write()
    for frame in stream.frames(tty=tty):
        write(frame.stream, frame.data)
    return detached.is_set()


def write(stream: int, data: bytes) -> None:
    """A frame to our stdout or stderr, at once."""
    target = sys.stderr.buffer if stream in (STDERR, SYSTEMERR) else sys.stdout.buffer
    target.write(data)
    target.flush()


def _feed(stream: Hijacked, watch: KeyWatch, detached: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, INPUT_PIECE):
            data, over = watch.take(data)
            try:
                if data:
                    stream.send(data)
            except Exception:  # noqa: BLE001 - the other end closed: what is typed has no reader; output tells the rest
                return
            if over:
                detached.set()
                stream.abort()
                return
        stream.close_write()
