"""A command on a pseudo-terminal, driven by a script: what to wait for, what to type, which signal, which size."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

LIMIT = 40.0


class OnTerminal:
    """``with OnTerminal(command, environ) as it: it.expect("# "); it.type("exit\\n"); assert it.ended() == 0``."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], *, rows: int = 24, columns: int = 80) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=dict(environ), start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.output = b""
        self._seen = 0

    def __enter__(self) -> OnTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self._master)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str) -> None:
        """Waits for ``text`` after what was expected before."""
        end = time.monotonic() + LIMIT
        while (at := self.output.find(text.encode(), self._seen)) < 0:
            assert time.monotonic() < end, f"{text!r} did not come: {self.output!r}"
            assert self._read(0.2) or self.process.poll() is None, f"it ended before {text!r}: {self.output!r}"
        self._seen = at + len(text)

    def raw(self) -> bool:
        """Whether the terminal gives keys as they are typed."""
        return not termios.tcgetattr(self._master)[3] & termios.ICANON

    def until_raw(self) -> None:
        end = time.monotonic() + LIMIT
        while not self.raw():
            assert time.monotonic() < end, f"the terminal did not become raw: {self.output!r}"
            self._read(0.05)

    def ended(self) -> int:
        """The exit code, after all output was read."""
        end = time.monotonic() + LIMIT
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it did not end: {self.output!r}"
            self._read(0.1)
        while self._read(0.05):
            pass
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self.output += data
        return bool(data)
