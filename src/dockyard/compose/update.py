"""Rolling update: instance by instance, each held until it is ready, and all of it taken back when one is not.

::

    start-first   create new ► start ► ready ► stop old ► swap names          (no instance less at any time)
    stop-first    create new ► stop old ► start new ► ready ► swap names      (fixed host ports, or as the file says)

An old container stays, stopped, until every instance has been replaced: so a rollback is a start, not a new creation.
Each step pushes its undo; the undos run backwards when a later step fails or the user presses Ctrl-C.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dockyard.client import Client, quote
from dockyard.compose.apply import STOP_MARGIN, Applier
from dockyard.compose.canonical import duration
from dockyard.compose.errors import UPDATE_FAILED
from dockyard.compose.graph import Stop
from dockyard.compose.observe import Container
from dockyard.compose.plan import READY, Operation
from dockyard.compose.progress import Event, Progress, Silent
from dockyard.compose.readiness import await_condition
from dockyard.compose.translate import Wanted
from dockyard.errors import DockyardError, NotFound, NotModified

Json = dict[str, Any]
DEFAULT_MONITOR, DEFAULT_READY_LIMIT = 0.0, 120.0
WATCH_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Policy:
    """``deploy.update_config``: seconds that a new instance must stay ready (monitor), seconds between two instances
    (delay), and who goes first. ``ready_limit``: seconds until a new instance must be ready."""

    start_first: bool = True
    monitor: float = DEFAULT_MONITOR
    delay: float = 0.0
    ready_limit: float = DEFAULT_READY_LIMIT


def policy_of(service: Mapping[str, Any], ready_limit: float = DEFAULT_READY_LIMIT) -> Policy:
    """Start-first unless the file says otherwise or two instances could not hold their host port at once. Pure."""
    told = (service.get("deploy") or {}).get("update_config") or {}
    fixed = any(str(port.get("published") or "0") != "0" for port in service.get("ports") or [])
    alone = bool(service.get("container_name")) and service.get("network_mode") == "host"
    return Policy(
        start_first=told.get("order") != "stop-first" and not fixed and not alone,
        monitor=duration(told.get("monitor") or 0), delay=duration(told.get("delay") or 0), ready_limit=ready_limit,
    )  # fmt: skip


class Update:
    def __init__(self, applier: Applier) -> None:
        self._applier = applier
        self._client: Client = applier.client
        self._progress: Progress = applier.progress
        self._undo: list[Callable[[], object]] = []
        self._old: list[Container] = []

    def run(self, outdated: Sequence[tuple[Container, str]], policies: Mapping[str, Policy]) -> None:
        """Replaces each; raises Conflict after everything has been put back as it was."""
        try:
            for index, (item, reason) in enumerate(outdated):
                policy = policies[item.service]
                if index:
                    time.sleep(policy.delay)
                self._replace(item, reason, policy)
        except BaseException as error:
            self._roll_back()
            if isinstance(error, DockyardError):
                raise UPDATE_FAILED(cause=error, service=item.service) from None
            raise
        for item in self._old:
            with contextlib.suppress(NotFound):
                self._client.request("DELETE", f"/containers/{item.id}", {"force": True})
            self._progress.on(Event(f"Container {item.name}", "Updated", "done"))

    def _replace(self, item: Container, reason: str, policy: Policy) -> None:
        self._progress.on(Event(f"Container {item.name}", "Updating", details=reason))
        new = self._create(item)
        if policy.start_first:
            self._start(item, new, policy)
            self._stop(item)
        else:
            self._applier.before_stop(item.service, item.number)
            self._stop(item)
            self._start(item, new, policy)
        aside = f"{item.id[:12]}_{item.name}"
        self._rename(item.id, item.name, aside)
        self._rename(new, f"new_{aside}", item.name)
        self._old.append(item)

    def _create(self, item: Container) -> str:
        service = self._applier.project.services[item.service]
        inherited = self._applier.inherited(item.service, service, item)
        wanted = Wanted(item.service, item.number, replaces=item.name, inherited=inherited)
        new = self._applier.create(wanted, f"new_{item.id[:12]}_{item.name}")
        self._undo.append(lambda: self._client.request("DELETE", f"/containers/{new}", {"force": True}))
        self._applier.inject(new, service)
        return new

    def _start(self, item: Container, new: str, policy: Policy) -> None:
        self._post(new, "start")
        for hook in self._applier.project.services[item.service].get("post_start") or []:
            self._applier.hook(new, item.service, "post_start", hook)
        one = Operation(f"wait {item.name}", "wait", f"Container {item.name}", service=item.service, condition=READY)
        silent = Silent()
        await_condition(self._client, one, [(new, item.name)], Stop(), policy.ready_limit, silent)
        end = time.monotonic() + policy.monitor
        while time.monotonic() < end:  # it must stay so: bounded by the policy's monitor
            time.sleep(min(WATCH_PAUSE, policy.monitor))
            await_condition(self._client, one, [(new, item.name)], Stop(), policy.ready_limit, silent)

    def _stop(self, item: Container) -> None:
        self._undo.append(lambda: self._post(item.id, "start"))
        self._post(item.id, "stop", timeout=STOP_MARGIN + 600)

    def _rename(self, container: str, before: str, after: str) -> None:
        self._client.request("POST", f"/containers/{container}/rename", {"name": after})
        self._undo.append(lambda: self._client.request("POST", f"/containers/{container}/rename", {"name": before}))

    def _post(self, container: str, action: str, timeout: float | None = None) -> None:
        with contextlib.suppress(NotModified):
            self._client.request("POST", f"/containers/{quote(container)}/{action}", timeout=timeout)

    def _roll_back(self) -> None:
        while self._undo:
            try:
                self._undo.pop()()
            except DockyardError as error:  # what can be put back is put back
                self._progress.warn(f"rollback: {error}")
        self._progress.warn("rolled back: the containers are as they were before the update")
