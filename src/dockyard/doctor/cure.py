"""Applying a cure: snapshot, apply, look again, and back out by itself when the finding stays.

Only fixes marked ``machine`` are applied: their commands run as they stand and have an undo. The undo is kept in a file
so that a person can take the cure back later.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, field

from dockyard.doctor.finding import Finding, Report
from dockyard.errors import InvalidParameter

COMMAND_TIMEOUT = 30.0
SETTLE_TRIES, SETTLE_SECONDS = 5, 0.4  # links and health take up to two seconds to follow a change


class Outcome(Struct, frozen=True):
    """``state``: healed, rolled back, failed (a command failed; what had run was undone)."""

    id: str
    state: str
    ran: list[str] = field(default_factory=list)
    detail: str = ""
    undo_file: str = ""


class Runner:
    """Runs commands where the engine lives: in its network and mount namespaces when it has its own."""

    def __init__(self, engine_pid: int, host: str) -> None:
        self.prefix: list[str] = []
        if engine_pid and not _same(engine_pid, "net"):
            self.prefix = ["nsenter", "-t", str(engine_pid), "-n"] + ([] if _same(engine_pid, "mnt") else ["-m"])
        self.environ = {**os.environ, "DOCKER_HOST": host}

    def __call__(self, command: str) -> str:
        """Empty if it went well, else what it said."""
        try:
            done = subprocess.run(
                [*self.prefix, "sh", "-ec", command],
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT,
                check=False,
                env=self.environ,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}")


def _same(pid: int, kind: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
    except OSError:
        return True


def choose(report: Report, wanted: str) -> Finding:
    """The finding of that id or key whose fix can be applied. Raises InvalidParameter."""
    named = [item for item in report.findings if wanted in (item.id, item.key)]
    if not named:
        raise InvalidParameter(f"cannot apply {wanted}: it is not among the findings")
    able = [item for item in named if item.fix is not None and item.fix.machine]
    if not able:
        text = named[0].fix.text if named[0].fix else "no cure is known"
        raise InvalidParameter(f"cannot apply {wanted}: its cure needs a person ({text})")
    if len(able) > 1:
        raise InvalidParameter(f"cannot apply {wanted}: name one of {', '.join(item.key for item in able)}")
    return able[0]


def apply(
    found: Finding, run: Callable[[str], str], look: Callable[[], Report], *, undo_dir: str = "/run/dockyard/undo"
) -> Outcome:
    """Apply, verify by looking again, roll back if the finding is still there."""
    assert found.fix is not None
    undo_file = _keep_undo(found, undo_dir)
    ran: list[str] = []
    for command in found.fix.commands:
        failure = run(command)
        if failure:
            _undo(found, run, len(ran))
            return Outcome(found.id, "failed", ran, f"{command}: {failure}")
        ran.append(command)
    for _ in range(SETTLE_TRIES):
        if all(item.key != found.key for item in look().findings):
            return Outcome(found.id, "healed", ran, "the finding is gone", undo_file)
        time.sleep(SETTLE_SECONDS)
    failure = _undo(found, run, len(ran))
    return Outcome(found.id, "rolled back", ran, failure or "the finding stayed")


def _undo(found: Finding, run: Callable[[str], str], count: int) -> str:
    """Undo what ran, last first. Each undo command takes back the command at its own place."""
    assert found.fix is not None
    failures = [run(command) for command in reversed(found.fix.undo[: max(count, 0)])]
    return "; ".join(failure for failure in failures if failure)


def _keep_undo(found: Finding, directory: str) -> str:
    assert found.fix is not None
    path = Path(directory) / f"{found.id}-{int(time.time())}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(json.dumps({"finding": found.key, "commands": found.fix.commands, "undo": found.fix.undo}))
    except OSError:
        return ""
    return str(path)
