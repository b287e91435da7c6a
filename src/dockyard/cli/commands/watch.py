"""What goes on: ``logs``, ``events``, ``stats``."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from dockyard.cli import usage
from dockyard.cli.flags import Options
from dockyard.cli.output import FORMAT, Column, show
from dockyard.cli.shell import Shell, filters
from dockyard.cli.terminal import write
from dockyard.client import quote
from dockyard.errors import DockyardError

Json = dict[str, Any]
FLAGS = {
    "logs": """
    --details              Show extra attributes of lines
-f, --follow               Follow what is said
    --since TIME           Since this time (2026-01-02T13:23:37Z, 42m)
-n, --tail LINES           Lines from the end (default all)
-t, --timestamps           Show when lines were said
    --until TIME           Until this time
""",
    "events": """
-f, --filter KEY=VALUE...  Only those that match (type, event, container, ...)
    --format TEMPLATE      Go template, or "json"
    --json                 The same as --format json
    --since TIME           Since this time (2026-01-02T13:23:37Z, 42m)
    --until TIME           Until this time, then end
""",
    "stats": """
-a, --all                  Show stopped containers too
    --no-stream            Show one result and end
    --no-trunc             Cut nothing
"""
    + FORMAT,
}
EXAMPLES = {
    "logs": "dockyard logs -f --tail 100 web\ndockyard logs --since 10m web",
    "events": "dockyard events --since 1h --filter type=container --filter event=die",
    "stats": "dockyard stats --no-stream\ndockyard stats web db",
}
REDRAW = 0.5
FIRST_LIMIT = 15.0
"""Seconds that the first sample of every container may take."""
_COLUMNS = (
    Column("CONTAINER ID", "ID", spare=1), Column("NAME", "Name", soft=True), Column("CPU %", "CPUPerc"),
    Column("MEM USAGE / LIMIT", "MemUsage"), Column("MEM %", "MemPerc"), Column("NET I/O", "NetIO", spare=3),
    Column("BLOCK I/O", "BlockIO", spare=2), Column("PIDS", "PIDs"),
)  # fmt: skip


def logs(shell: Shell, options: Options) -> int:
    name, client = options.words[0], shell.client
    tty = client.request("GET", f"/containers/{quote(name)}/json")["Config"]["Tty"]
    query = {
        "stdout": True, "stderr": True, "follow": options.on("follow") or None, "tail": options.text("tail") or None,
        "since": usage.moment_of(options.text("since")), "until": usage.moment_of(options.text("until")),
        "timestamps": options.on("timestamps") or None, "details": options.on("details") or None,
    }  # fmt: skip
    with client.open("GET", f"/containers/{quote(name)}/logs", query) as answer:
        answer.settimeout(None)
        for frame in answer.frames(tty=tty):
            write(frame.stream, frame.data)
    return 0


def events(shell: Shell, options: Options) -> int:
    form = "json" if options.on("json") else options.text("format")
    query = {
        "since": usage.moment_of(options.text("since")), "until": usage.moment_of(options.text("until")),
        "filters": filters(options),
    }  # fmt: skip
    render = None
    if form and form != "json":
        from dockyard.cli.template import compiled

        render = compiled(form)
    with shell.client.open("GET", "/events", query) as answer:
        answer.settimeout(None)
        for event in answer.objects():
            if render is not None:
                shell.say(render(event))
            else:
                shell.say(json.dumps(event, separators=(",", ":")) if form else usage.event_line(event))
            sys.stdout.flush()
    return 0


def stats(shell: Shell, options: Options) -> int:
    every = options.on("all")
    names = options.words or _running(shell, every=every)
    if options.on("no-stream"):
        rows, status = _one_sample(shell, names, bool(options.words))
        show(shell, options, [usage.stats_row(*row, whole=options.on("no-trunc")) for row in rows], _COLUMNS)
        return status
    for name in options.words:
        shell.client.request("GET", f"/containers/{quote(name)}/json")  # a name that is not there is told at once
    return _live(shell, options, names)


def _running(shell: Shell, *, every: bool) -> list[str]:
    return [row["Id"] for row in shell.client.request("GET", "/containers/json", {"all": every or None})]


def _one_sample(shell: Shell, names: list[str], told: bool) -> tuple[list[tuple[str, Json]], int]:
    """One document for each container, asked side by side (the engine takes a second for each). A container that went
    meanwhile is an error only when the user named it."""
    found: dict[str, Json] = {}
    errors: dict[str, DockyardError] = {}

    def ask(name: str) -> None:
        try:
            found[name] = shell.client.request("GET", f"/containers/{quote(name)}/stats", {"stream": False})
        except DockyardError as error:
            errors[name] = error

    _ = shell.client.version  # negotiated once, not in each thread
    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(shell.client.timeout)
    if told:
        for error in errors.values():
            shell.refused(error)
    return [(name, found[name]) for name in names if name in found], 1 if told and errors else 0


def _live(shell: Shell, options: Options, names: list[str]) -> int:
    """Draws the table anew twice a second until interrupted, or until nothing is left to watch."""
    board = _Board(shell, follow_new=not options.words)
    _ = shell.client.version
    for name in names:
        board.add(name)
    if board.follow_new:
        threading.Thread(target=board.watch_starts, daemon=True).start()
    elif not names:
        return 0
    end = time.monotonic() + FIRST_LIMIT
    while board.waiting() and time.monotonic() < end:
        time.sleep(REDRAW / 10)
    while True:
        if shell.on_terminal:
            sys.stdout.write("\033[H\033[J")
        rows = [usage.stats_row(name, document, whole=options.on("no-trunc")) for name, document in board.rows()]
        show(shell, options, rows, _COLUMNS)
        sys.stdout.flush()
        if not board.follow_new and board.empty():
            return 0
        time.sleep(REDRAW)


class _Board:
    """The newest document of each watched container; each has a thread that reads its stream."""

    def __init__(self, shell: Shell, *, follow_new: bool) -> None:
        self._shell, self.follow_new = shell, follow_new
        self._lock = threading.Lock()
        self._rows: dict[str, Json | None] = {}

    def add(self, name: str) -> None:
        with self._lock:
            if name in self._rows:
                return
            self._rows[name] = None
        threading.Thread(target=self._read, args=(name,), daemon=True).start()

    def _read(self, name: str) -> None:
        try:
            with self._shell.client.open("GET", f"/containers/{quote(name)}/stats", {"stream": True}) as answer:
                answer.settimeout(None)
                for document in answer.objects():
                    with self._lock:
                        self._rows[name] = document
        except DockyardError:
            pass  # it went while we looked
        with self._lock:
            self._rows.pop(name, None)

    def watch_starts(self) -> None:
        wanted = {"type": {"container": True}, "event": {"start": True}}
        try:
            with self._shell.client.open("GET", "/events", {"filters": wanted}) as answer:
                answer.settimeout(None)
                for event in answer.objects():
                    self.add(event["Actor"]["ID"])
        except DockyardError:
            self.follow_new = False

    def rows(self) -> list[tuple[str, Json]]:
        with self._lock:
            return [(name, document) for name, document in self._rows.items() if document is not None]

    def waiting(self) -> bool:
        with self._lock:
            return any(document is None for document in self._rows.values())

    def empty(self) -> bool:
        with self._lock:
            return not self._rows
