"""Processes of the demo's own: the engine, that can be killed and started again, and the registry."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dockyard.cli.demo.voice import Narrator

START_LIMIT = 30.0
STOP_LIMIT = 30.0
DOCKYARD = (sys.executable, "-m", "dockyard.cli")


class Program:
    """A program of dockyard's in the background, ended with SIGTERM. ``ready`` says whether it does its work yet."""

    def __init__(self, words: Sequence[str], log: Path, ready: Callable[[], bool]) -> None:
        self._words, self._log, self._ready = words, log, ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it is ready. Raises SystemExit with the end of its log when it never is."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*DOCKYARD, *self._words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_LIMIT
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace")[-2000:]
                raise SystemExit(f"demo: dockyard {' '.join(self._words[:2])} did not start:\n{said}")
            time.sleep(0.02)  # a process is starting; bounded by START_LIMIT

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()


class Engine:
    """A private engine for the length of the demo."""

    def __init__(self, say: Narrator, root: Path, run: Path) -> None:
        """``root`` keeps its data, ``run`` its socket and log."""
        self._say, self._root, self._run = say, root, run
        self.socket = run / "dockyard.sock"
        self._words = ["engine", "--data-root", str(root), "--exec-root", str(run), "--host", f"unix://{self.socket}"]
        self._program = Program(self._words, run / "engine.log", self._answers)

    def __enter__(self) -> Engine:
        self._run.mkdir(parents=True, exist_ok=True)
        self._root.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def start(self) -> None:
        self._say.command(["dockyard", *self._words])
        self._program.start()

    def kill(self) -> None:
        self._say.command(["kill", "-9", str(self._program.pid)])
        self._program.kill()

    def __exit__(self, *_: object) -> None:
        self._program.stop()

    def _answers(self) -> bool:
        """A socket alone does not say so: that of a killed engine stays."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.socket))
            return True
        return False
