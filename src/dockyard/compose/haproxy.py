"""HAProxy as a process and its runtime socket (management guide, section 9.3). No knowledge of Compose here."""

from __future__ import annotations

import csv
import io
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from dockyard.compose.errors import BALANCER_FAILED

ANSWER_LIMIT = 5.0
START_LIMIT = 10.0
DRAIN_LIMIT = 10.0
"""Seconds that requests under way may take before their instance is stopped all the same."""
PAUSE = 0.02
EMPTY = "127.0.0.1:9"
"""The address of a slot that never held an instance."""
_BATCH = 40
"""Commands in one line: HAProxy reads 16 KiB at most."""


class RuntimeSocket:
    def __init__(self, path: str) -> None:
        self.path = path

    def ask(self, *commands: str) -> str:
        """The answers to the commands, sent a batch at a time. Raises Unavailable."""
        return "".join(self._ask(commands[index : index + _BATCH]) for index in range(0, len(commands), _BATCH))

    def _ask(self, commands: Sequence[str]) -> str:
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(ANSWER_LIMIT)
                sock.connect(self.path)
                sock.sendall((";".join(commands) + "\n").encode())
                return b"".join(iter(lambda: sock.recv(65536), b"")).decode("utf-8", "replace")
        except OSError as error:
            raise BALANCER_FAILED(cause=error.strerror or error) from None

    def rows(self) -> list[dict[str, str]]:
        """``show stat``: a row for each front, back and server that ever had an address. An empty slot is most of the
        answer (63 of 64 often), so it goes before the columns are taken apart."""
        lines = self.ask("show stat").removeprefix("# ").splitlines(keepends=True)
        used = [line for line in lines if f",{EMPTY}," not in line]
        return list(csv.DictReader(io.StringIO("".join(used))))

    def drain(self, backend: str, slot: int) -> None:
        """No new requests for a slot; returns when those under way are done, at the latest after DRAIN_LIMIT."""
        self.ask(f"set server {backend}/s{slot} state drain")
        end = time.monotonic() + DRAIN_LIMIT
        while time.monotonic() < end:
            current = [row for row in self.rows() if row["pxname"] == backend and row["svname"] == f"s{slot}"]
            if not current or current[0]["scur"] in ("", "0"):
                return
            time.sleep(PAUSE)


class Process:
    """HAProxy in the foreground of ours, ended with it."""

    def __init__(self, directory: Path, config: str) -> None:
        """Raises Unavailable when there is no HAProxy or it refuses the file."""
        program = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if program is None:
            raise BALANCER_FAILED(cause="haproxy is not installed (apt-get install haproxy)")
        file = directory / "haproxy.cfg"
        file.write_text(config)
        checked = subprocess.run([program, "-c", "-f", str(file)], capture_output=True, text=True, timeout=START_LIMIT)
        if checked.returncode != 0:
            told = [line.partition(" : ")[2] for line in checked.stderr.splitlines() if line.startswith("[ALERT]")]
            raise BALANCER_FAILED(cause=" / ".join(told)[:400] or f"haproxy -c ended with {checked.returncode}")
        self._log = (directory / "haproxy.log").open("wb")
        self._process = subprocess.Popen([program, "-db", "-f", str(file)], stdout=self._log, stderr=self._log)

    def wait_ready(self, control: RuntimeSocket) -> None:
        """Until the socket answers. Raises Unavailable."""
        end = time.monotonic() + START_LIMIT
        while True:
            if self._process.poll() is not None:
                raise BALANCER_FAILED(cause=Path(self._log.name).read_text()[-400:])
            try:
                control.ask("show info")
            except BALANCER_FAILED.kind:
                if time.monotonic() > end:
                    raise
                time.sleep(PAUSE)
            else:
                return

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(START_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
