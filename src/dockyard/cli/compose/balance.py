"""``balance``: HAProxy before the project's services, its slots filled as instances come and go."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dockyard.cli import background
from dockyard.cli.compose.session import Session, balancer_of
from dockyard.cli.flags import Options
from dockyard.cli.output import Column, show
from dockyard.compose import labels, layout, traffic
from dockyard.compose.balancer import Balancer
from dockyard.compose.errors import BALANCER_FAILED, NOT_BALANCED
from dockyard.compose.haproxy import RuntimeSocket
from dockyard.compose.observe import containers
from dockyard.compose.project import Project
from dockyard.errors import DockyardError

Json = dict[str, Any]
FLAGS = {
    "balance": """
-d, --detach          Balance in the background, until --stop or down
    --format FORMAT   table, json or a Go template (with --status)
    --json            Output as JSON (with --status)
    --metrics ADDRESS  Serve Prometheus metrics there (127.0.0.1:9101)
    --print           Print HAProxy's configuration and end
    --status          Show the instances, their state and what they have done
    --stop            End the balancer in the background
""",
}
ASK_AGAIN = 0.25
"""Seconds between two attempts to reach an engine that went away."""
_EVENTS = ["start", "die", "health_status", "pause", "unpause", "destroy"]


def balance(session: Session, options: Options) -> int:
    project = session.named
    made = layout.layout_of(project)
    if not made.fronts:
        raise NOT_BALANCED()
    path = balancer_of(project.name, str(session.client.endpoint))
    control = RuntimeSocket(str(path))
    balancer = Balancer(made, control, session.shell.complain)
    if options.on("print"):
        config = layout.render(made, control.path, options.text("metrics"), str(balancer.states_file))
        session.shell.say(config.rstrip())
        return 0
    if options.on("status"):
        return _status(session, options, made, control)
    folder = path.parent
    if options.on("stop"):
        if not background.end(folder):
            raise BALANCER_FAILED(cause="none is in the background")
        return 0
    metrics = options.text("metrics")
    if not options.on("detach"):
        _serve(session, balancer, metrics)
        return 0
    balancer.check_alone()
    session.client.close()  # the other process makes connections of its own
    if refused := background.begin(folder, lambda ready: _serve(session, balancer, metrics, ready)):
        raise BALANCER_FAILED(cause=refused.removeprefix("the balancer does not run: "))
    for line in _routes(made):
        session.shell.say(line)
    return 0


def _serve(session: Session, balancer: Balancer, metrics: str, ready: Callable[[], None] = lambda: None) -> None:
    """Until a signal. ``ready`` is called when the instances that run have requests."""
    process = balancer.start(metrics)
    try:
        signal.signal(signal.SIGTERM, _interrupted)
        for line in _routes(balancer.layout):
            session.shell.complain(line)
        balancer.watch()
        _follow(session, balancer, ready)
    finally:
        balancer.close()
        process.close()
        shutil.rmtree(balancer.states_file.parent, ignore_errors=True)


def _routes(made: layout.Layout) -> Iterator[str]:
    for listen, rows in sorted(made.fronts.items()):
        yield f"{listen} -> {', '.join(one.service + _where(one) for one in rows)}"


def _interrupted(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _where(one: layout.Balanced) -> str:
    told = one.host + one.path
    return f" ({told})" if told else ""


def _follow(session: Session, balancer: Balancer, ready: Callable[[], None] = lambda: None) -> None:
    """Fills the slots now and at each event. An engine that goes away is waited for: instances outlive it, and so must what
    leads to them. Refusals and HAProxy's own failures end it."""
    away = False
    while True:
        try:
            for _ in _changes(session, balancer.layout.project):
                away = _told(session, away, now=False)
                balancer.fill(containers(session.client, balancer.layout.project))
                ready()
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


def _changes(session: Session, project: str) -> Iterator[None]:
    """Once now, and at each event. The events are asked for before the first look, so none is missed."""
    filters = {"label": [f"{labels.PROJECT}={project}"], "type": ["container"], "event": _EVENTS}
    with session.client.open("GET", "/events", {"filters": filters}) as answer:
        answer.settimeout(None)
        yield
        for _ in answer.objects():
            yield


def _status(session: Session, options: Options, made: layout.Layout, control: RuntimeSocket) -> int:
    rows = [
        {
            "Service": name, "Circuit": flow.circuit, "Instance": str(one.number), "Address": one.address,
            "State": one.state, "Sessions": str(one.sessions), "Requests": str(one.count.requests),
            "Errors": str(one.count.failed), "Retries": str(one.count.retries), "Latency": f"{one.latency * 1000:.0f} ms",
            "Down": str(one.downs), "Opened": str(flow.opened), "Budget": flow.retries, "Refused": str(flow.refused),
        }
        for name, flow in traffic.read(control, made, time.monotonic()).flows.items()
        for one in flow.instances
    ]  # fmt: skip
    if options.on("json"):
        session.shell.say(json.dumps(rows, indent=2))
        return 0
    columns = [
        Column("SERVICE", "Service", soft=True), Column("CIRCUIT", "Circuit"), Column("NO", "Instance"),
        Column("ADDRESS", "Address", spare=3), Column("STATE", "State"), Column("REQUESTS", "Requests"),
        Column("ERRORS", "Errors"), Column("RETRIES", "Retries", spare=2), Column("LATENCY", "Latency"),
        Column("DOWN", "Down", spare=1),
    ]  # fmt: skip
    return show(session.shell, options, rows, columns, key="Service")


def drainer(project: Project, socket: Path) -> Callable[[str, int], None]:
    """Takes an instance out of the project's balancer before it is stopped; does nothing where none runs."""
    try:
        services = layout.layout_of(project).services
    except DockyardError:  # a broken x-dockyard must not keep anything from being stopped
        services = {}

    def drain(service: str, number: int) -> None:
        if service in services and 0 < number <= layout.SLOTS:
            with contextlib.suppress(DockyardError):
                RuntimeSocket(str(socket)).drain(services[service].backend, number)

    return drain
