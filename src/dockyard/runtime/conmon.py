"""How conmon is called and what it answers. Pure, but for reading the runtime's log.

One conmon watches one container (or one detached exec). It holds the container's stdio, writes the log, and leaves the
exit code in two files; it lives on when the daemon dies. Called with ``--sync`` it does not fork, so the process that
we spawn is conmon itself: its pid is known before it does anything, and there is no pid file to race with.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dockyard.kernel.process import PATH
from dockyard.lib.notjson import NOT_JSON

SYNC_FD = 3
LOG = "runtime.log"
ENV = {
    "PATH": PATH,
    "_OCI_SYNCPIPE": str(SYNC_FD),
    "TZ": "UTC",  # conmon stamps log lines in local time
}


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that conmon must be told. ``log_path`` empty: keep no log."""

    conmon: str
    runtime: Sequence[str]
    runtime_root: str
    id: str
    bundle: str
    exit_dir: str
    log_path: str
    tty: bool
    open_stdin: bool
    leave_stdin_open: bool
    exit_command: Sequence[str] = ()
    exec_spec: str = ""
    program: str = ""
    """For an error that does not name it."""


def argv(launch: Launch) -> list[str]:
    """Trap: without ``--leave-stdin-open`` any attach client that leaves closes the container's stdin; with it, end of
    file can never be delivered. The daemon's one connection never leaves, and closes its half when EOF is meant."""
    words = [launch.conmon, "--sync", "--api-version", "1", "-c", launch.id, "-u", launch.id, "-n", launch.id[:12]]
    words += ["-r", launch.runtime[0], "-b", launch.bundle, "-p", f"{launch.bundle}/pid"]
    words += ["--exit-dir", launch.exit_dir, "--persist-dir", launch.bundle, "--full-attach"]
    words += ["-l", f"k8s-file:{launch.log_path}" if launch.log_path else "none"]
    words += ["--no-sync-log", "--no-new-keyring"]  # fsync of the log at exit cost up to 30 ms; Docker does none either
    words += ["-t"] if launch.tty else []
    words += ["-i"] if launch.open_stdin else []
    words += ["--leave-stdin-open"] if launch.leave_stdin_open else []
    words += ["-e", "--exec-process-spec", launch.exec_spec] if launch.exec_spec else []
    for word in (*launch.runtime[1:], *runtime_globals(launch.runtime_root, f"{launch.bundle}/{LOG}", launch.runtime[-1])):
        words += ["--runtime-arg", word]
    if launch.exit_command:
        words += ["--exit-command", launch.exit_command[0]]
        for word in launch.exit_command[1:]:
            words += ["--exit-command-arg", word]
    return words


def runtime_globals(root: str, log: str, runtime: str) -> list[str]:
    """``runtime`` is its path. crun has its say in text: what it cannot write to its log (the program could not be
    executed) goes to the container's own output, where people read it."""
    form = "text" if os.path.basename(runtime) == "crun" else "json"
    return [f"--root={root}", f"--log-format={form}", f"--log={log}"]


@dataclass(frozen=True, slots=True)
class Answer:
    """``data``: the pid, or for the second line of an exec its exit code; -1 with ``message`` when it failed."""

    data: int
    message: str = ""


def read_answer(line: bytes) -> Answer:
    """A line of the sync pipe (``--api-version 1``). An empty line means that conmon died before it could say."""
    try:
        return msgspec.json.decode(line, type=Answer)
    except NOT_JSON:
        return Answer(-1, "conmon ended without an answer")


def last_error(path: str) -> str:
    """The last thing a runtime complained about in its log (JSON lines, or crun's plain ones); "" where there is none.
    crun writes only there what runc writes to its stderr as well."""
    last = ""
    with contextlib.suppress(OSError), open(path, "rb") as log:
        for line in filter(None, log.read(64 << 10).splitlines()):
            try:
                row = msgspec.json.decode(line, type=dict[str, Any])
            except NOT_JSON:
                last = line.decode(errors="replace")
            else:
                last = str(row.get("msg", last)) if row.get("level") in ("error", "fatal") else last
    return last
