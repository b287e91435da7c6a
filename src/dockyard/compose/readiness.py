"""Waiting until a service's containers are healthy, have completed, or run."""

from __future__ import annotations

import time
from typing import Any

from dockyard.client import Client, quote
from dockyard.compose.errors import DEPENDENCY_FAILED, NOT_COMPLETED, WAIT_TIMEOUT
from dockyard.compose.graph import Stop
from dockyard.compose.plan import COMPLETED, HEALTHY, READY, Operation
from dockyard.compose.progress import Event, Progress, Status
from dockyard.errors import DockyardError

Json = dict[str, Any]
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
"""Seconds between two looks: short at first, since most things are ready soon."""
Told = tuple[str, Status] | None


def await_condition(
    client: Client,
    one: Operation,
    containers: list[tuple[str, str]],
    stop: Stop,
    limit: float | None,
    progress: Progress,
) -> Told:
    """What is told at the end. Raises Conflict when the condition cannot come true, Unavailable after ``limit`` s."""
    for _, name in containers:
        progress.on(Event(f"Container {name}", "Waiting"))
    end = None if limit is None else time.monotonic() + limit
    pause = FIRST_PAUSE
    try:
        left = list(containers)
        while left:
            left = [item for item in left if not _ready(client, one, item, progress)]
            if not left:
                break
            if end is not None and time.monotonic() > end:
                raise WAIT_TIMEOUT(what=f"container {left[0][1]}", seconds=f"{limit:g}")
            stop.pause(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
    except DockyardError as error:
        if one.required:
            raise
        progress.warn(f"optional dependency {one.service!r} failed to start: {error}")
        return "Skipped", "warning"
    return None


def exit_code(client: Client, container: str, stop: Stop) -> int:
    """Of a started container, once it has ended. Raises Cancelled when nobody waits any more."""
    pause = FIRST_PAUSE
    while True:
        state = client.request("GET", f"/containers/{quote(container)}/json").get("State") or {}
        if state.get("Status") in {"exited", "dead"}:
            return int(state.get("ExitCode") or 0)
        stop.pause(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def _ready(client: Client, one: Operation, container: tuple[str, str], progress: Progress) -> bool:
    found = client.request("GET", f"/containers/{quote(container[0])}/json")
    word = judge(one.service, container[1], one.condition, found)
    if word:
        progress.on(Event(f"Container {container[1]}", word, "done"))
    return bool(word)


def judge(service: str, name: str, condition: str, found: Json) -> str:
    """The word for a container that is ready, "" while it is not. Raises Conflict when it never will be. Pure."""
    state = found.get("State") or {}
    status, code = state.get("Status"), state.get("ExitCode") or 0
    if condition == COMPLETED:
        if status not in {"exited", "dead"}:
            return ""
        if code:
            raise NOT_COMPLETED(service=service, code=code)
        return "Exited"
    if status in {"exited", "dead"}:
        raise DEPENDENCY_FAILED(cause=f"container {name} exited ({code})", service=service)
    test = ((found.get("Config") or {}).get("Healthcheck") or {}).get("Test") or []
    if condition == READY and (not test or test[0] == "NONE"):
        return "Running" if status == "running" else ""
    if condition in {HEALTHY, READY}:
        return _healthy(service, name, state.get("Health"))
    raise DEPENDENCY_FAILED(cause=f"unsupported depends_on condition: {condition}", service=service)


def _healthy(service: str, name: str, health: Json | None) -> str:
    if not health or health.get("Status") in {None, "", "none"}:
        raise DEPENDENCY_FAILED(cause=f"container {name} has no healthcheck configured", service=service)
    if health["Status"] == "unhealthy":
        log = (health.get("Log") or [{}])[-1]
        output = " ".join(str(log.get("Output") or "").split())[:200]
        cause = f"container {name} is unhealthy" + (f": {output}" if output else "")
        raise DEPENDENCY_FAILED(cause=cause, service=service)
    return "Healthy" if health["Status"] == "healthy" else ""
