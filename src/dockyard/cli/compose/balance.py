"""``balance``: HAProxy before the project's services, its slots filled as instances come and go."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

from dockyard.cli.compose.session import Session, balancer_of
from dockyard.cli.flags import Options
from dockyard.cli.output import Column, show
from dockyard.compose import labels, layout
from dockyard.compose.errors import BALANCER_FAILED, NOT_BALANCED
from dockyard.compose.haproxy import Process, RuntimeSocket
from dockyard.compose.observe import containers
from dockyard.compose.project import Project
from dockyard.errors import DockyardError

Json = dict[str, Any]
FLAGS = {
    "balance": """
    --format FORMAT   table, json or a Go template (with --status)
    --json            Output as JSON (with --status)
    --metrics ADDRESS  Serve Prometheus metrics there (127.0.0.1:9101)
    --print           Print HAProxy's configuration and end
    --status          Show the instances, their state and what they have done
""",
}
Slots = dict[tuple[str, int], tuple[str, int]]
"""(backend, slot) to (address, port)."""
ASK_AGAIN = 0.25
"""Seconds between two attempts to reach an engine that went away."""
_EVENTS = ["start", "die", "health_status", "pause", "unpause", "destroy"]


def balance(session: Session, options: Options) -> int:
    project = session.project
    made = layout.layout_of(project)
    if not made.fronts:
        raise NOT_BALANCED()
    path = balancer_of(project.name)
    control = RuntimeSocket(str(path))
    config = layout.render(made, control.path, options.text("metrics"))
    if options.on("print"):
        session.shell.say(config.rstrip())
        return 0
    if options.on("status"):
        return _status(session, options, made, control)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    process = Process(path.parent, config)
    try:
        process.wait_ready(control)
        signal.signal(signal.SIGTERM, _interrupted)
        for listen, rows in sorted(made.fronts.items()):
            session.shell.complain(f"{listen} -> {', '.join(one.service + _where(one) for one in rows)}")
        _follow(session, made, control)
    finally:
        process.close()
        shutil.rmtree(path.parent, ignore_errors=True)
    return 0


def _interrupted(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _where(one: layout.Balanced) -> str:
    told = one.host + one.path
    return f" ({told})" if told else ""


def _follow(session: Session, made: layout.Layout, control: RuntimeSocket) -> None:
    """Fills the slots now and at each event. The events are asked for before the first look, so none is missed. An engine
    that goes away is waited for: instances outlive it, and so must what leads to them."""
    filters = {"label": [f"{labels.PROJECT}={made.project}"], "type": ["container"], "event": _EVENTS}
    filled: Slots = {}
    away = False
    while True:
        try:
            with session.client.open("GET", "/events", {"filters": filters}) as answer:
                answer.settimeout(None)
                away = _told(session, away, now=False)
                filled = _fill(session, made, control, filled)
                for _ in answer.objects():
                    filled = _fill(session, made, control, filled)
        except BALANCER_FAILED.kind as error:
            if error.code == BALANCER_FAILED.id:
                raise
        away = _told(session, away, now=True)
        time.sleep(ASK_AGAIN)


def _told(session: Session, before: bool, *, now: bool) -> bool:
    """Says it when the engine goes or comes back; HAProxy goes on with what it knows meanwhile."""
    if before != now:
        session.shell.complain("the engine does not answer; the instances stay as they are" if now else "the engine is back")
    return now


def _fill(session: Session, made: layout.Layout, control: RuntimeSocket, before: Slots) -> Slots:
    after = layout.wanted(made, containers(session.client, made.project))
    lines = layout.commands(before, after)
    if lines:
        control.ask(*lines)
        for place in sorted({*before, *after}):
            if before.get(place) != after.get(place):
                word = "gone" if place not in after else "in" if place not in before else "moved"
                session.shell.complain(f"{place[0].removeprefix('b_')}-{place[1]} {word}")
    return after


def _status(session: Session, options: Options, made: layout.Layout, control: RuntimeSocket) -> int:
    names = {one.backend: one.service for one in made.services.values()}
    rows = [
        {
            "Service": names[row["pxname"]], "Instance": row["svname"].removeprefix("s"), "Address": row.get("addr", ""),
            "State": row["status"], "Sessions": row["scur"], "Requests": row.get("req_tot") or row["stot"],
            "Errors": str(int(row.get("hrsp_5xx") or 0) + int(row.get("econ") or 0) + int(row.get("eresp") or 0)),
            "Retries": row.get("wretr", ""), "Latency": f"{row.get('ttime') or 0} ms", "Down": row.get("chkdown", ""),
        }
        for row in control.rows()
        if row["pxname"] in names and row["svname"].startswith("s") and not row["status"].startswith("MAINT")
    ]  # fmt: skip
    if options.on("json"):
        session.shell.say(json.dumps(rows, indent=2))
        return 0
    columns = [Column(name.upper(), name) for name in rows[0]] if rows else [Column("SERVICE", "Service")]
    return show(session.shell, options, rows, columns, key="Service")


def drainer(project: Project) -> Callable[[str, int], None]:
    """Takes an instance out of the project's balancer before it is stopped; does nothing where none runs."""
    path = balancer_of(project.name)
    try:
        services = layout.layout_of(project).services
    except DockyardError:  # a broken x-dockyard must not keep anything from being stopped
        services = {}

    def drain(service: str, number: int) -> None:
        if service in services and 0 < number <= layout.SLOTS:
            with contextlib.suppress(DockyardError):
                RuntimeSocket(str(path)).drain(services[service].backend, number)

    return drain
