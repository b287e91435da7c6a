"""The eyes of a dashboard: one place that looks at a project again and again and keeps the newest picture.

::

    events of the engine ─┐
    every second ─────────┴─► look (containers, balancer) ─┐
    every 30 s, or after a death ─► doctor ────────────────┼─► picture ─► terminal, page, metrics
    every minute, or after an update ─► out of date? ──────┘

It talks through ``client`` only. What changes things (restart, update) are `Hands`, given by who knows the files.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Protocol

from dockyard.client import Client, quote
from dockyard.compose import labels, logs, picture, traffic
from dockyard.compose.haproxy import RuntimeSocket
from dockyard.compose.layout import Layout, layout_of
from dockyard.compose.observe import Container, at_once, containers
from dockyard.compose.picture import Picture
from dockyard.compose.project import Project
from dockyard.doctor import Facts, Report, examine
from dockyard.doctor.collect import collect
from dockyard.doctor.cure import Runner, apply, choose
from dockyard.doctor.faults import all_rules
from dockyard.errors import Conflict, DockyardError, NotFound

Json = dict[str, Any]
LOOK, EXAMINE, COMPARE = 1.0, 30.0, 60.0
"""Seconds between two looks, examinations, comparisons with the files."""
SETTLE = 0.2
"""Seconds after an event before the look that it asks for: events come in bunches."""
SPAN = 10.0
"""Rates are of so many seconds."""
TRAIL = 60
MOST_LINES = 5000
_ILL_EVENTS = ("die", "oom", "health_status: unhealthy")


class Hands(Protocol):
    """Called from a thread of the desk. Raise DockyardError with what went wrong."""

    def restart(self, services: Sequence[str]) -> None: ...

    def update(self, services: Sequence[str]) -> int:
        """How many containers were replaced; no service named means all."""
        ...

    def outdated(self, *, registries: bool) -> dict[str, str]:
        """Container name to why it is out of date. ``registries``: ask them for newer images too."""
        ...


class Desk:
    def __init__(self, client: Client, project: Project, control: RuntimeSocket, hands: Hands) -> None:
        self.client, self.project, self._control, self._hands = client, project, control, hands
        try:
            self._layout: Layout | None = layout_of(project)
        except DockyardError:  # a broken x-dockyard is told by `compose balance`; here its service is not balanced
            self._layout = None
        self._changed = threading.Condition()
        self._picture = Picture(project.name, str(client.endpoint))
        self.version = 0
        self._over = threading.Event()
        self._wake, self._ill, self._compare = threading.Event(), threading.Event(), threading.Event()
        self._readings: deque[traffic.Traffic] = deque(maxlen=int(SPAN / LOOK) + 1)
        self._trails: dict[str, deque[float]] = {}
        self._counts: dict[str, int] = {}
        self._count_of: dict[str, str] = {}
        self._report: Report | None = None
        self._facts: Facts | None = None
        self._stale: dict[str, str] = {}
        self._registries = False
        self._acting = threading.Lock()
        self._said, self._failed, self._busy = "", False, ""

    # ---- looking

    @property
    def picture(self) -> Picture:
        return self._picture

    def wait(self, version: int, seconds: float) -> int:
        """Until there is a newer picture than that version, at most ``seconds``; the version that is now."""
        with self._changed:
            self._changed.wait_for(lambda: self.version != version or self._over.is_set(), seconds)
            return self.version

    def once(self, *, doctor: bool = True) -> Picture:
        """One picture with everything in it: rates need a second reading, which the other questions wait for."""
        self.look()
        questions: list[Callable[[], object]] = [self._compare_now]
        if doctor:
            questions.append(self._examine_now)
        at_once(questions)
        if self._readings:
            rest = LOOK - (time.monotonic() - self._readings[0].at)
            self._over.wait(max(0.0, rest))
        self.look()
        return self._picture

    def start(self) -> None:
        """Looks in threads of its own until `close`."""
        for work in (self._keep_looking, self._keep_examining, self._keep_comparing, self._hear):
            threading.Thread(target=work, daemon=True, name=work.__name__.strip("_")).start()

    def close(self) -> None:
        self._over.set()
        for event in (self._wake, self._ill, self._compare):
            event.set()
        with self._changed:
            self._changed.notify_all()

    def look(self) -> None:
        """One look. An engine that does not answer leaves the last picture, and says so."""
        try:
            found = containers(self.client, self.project.name)
            restarts = self._restarts(found)
        except DockyardError as error:
            self._show(replace(self._picture, lost=str(error)))
            return
        flows, rates = self._traffic()
        looks = picture.services(
            self.project, found, restarts=restarts, stale=self._stale, flows=flows, rates=rates
        )
        host: tuple[picture.Ill, ...] = ()
        if self._report is not None:
            looks, host = picture.with_findings(looks, found, self._report)
        for name, one in rates.items():
            self._trails.setdefault(name, deque(maxlen=TRAIL)).append(round(one.requests, 1))
        self._show(Picture(
            self.project.name, str(self.client.endpoint), looks, host, True, bool(flows), self._report is not None,
            self._busy, self._said, self._failed, "", {name: tuple(trail) for name, trail in self._trails.items()},
        ))  # fmt: skip

    def _show(self, new: Picture) -> None:
        with self._changed:
            if new != self._picture:
                self._picture = new
                self.version += 1
                self._changed.notify_all()

    def _traffic(self) -> tuple[dict[str, traffic.Flow], dict[str, traffic.Rates]]:
        if self._layout is None or not self._layout.fronts or not os.path.exists(self._control.path):
            self._readings.clear()
            return {}, {}
        try:
            now = traffic.read(self._control, self._layout, time.monotonic())
        except DockyardError:
            self._readings.clear()
            return {}, {}
        self._readings.append(now)
        first = self._readings[0]
        if first is now:
            return dict(now.flows), {}
        return dict(now.flows), {
            name: traffic.rates(first.flows[name], flow, now.at - first.at) for name, flow in now.flows.items()
        }

    def _restarts(self, found: Sequence[Container]) -> dict[str, int]:
        """Of the engine's records; asked again only for a container whose state has changed."""
        ask = []
        for item in found:
            words = str(item.row.get("Status") or "").split()
            mark = f"{item.state} {' '.join(words) if item.state == 'restarting' else words[:2]}"
            if self._count_of.get(item.id) != mark or item.state == "restarting":
                self._count_of[item.id] = mark
                ask.append(item.id)
        for identifier, count in zip(ask, at_once([partial(self._restart_count, one) for one in ask]), strict=True):
            self._counts[identifier] = count
        here = {item.id for item in found}
        self._counts = {key: value for key, value in self._counts.items() if key in here}
        self._count_of = {key: value for key, value in self._count_of.items() if key in here}
        return self._counts

    def _restart_count(self, container: str) -> int:
        try:
            return int(self.client.request("GET", f"/containers/{quote(container)}/json").get("RestartCount") or 0)
        except NotFound:
            return 0

    def _keep_looking(self) -> None:
        while not self._over.is_set():
            self.look()
            if self._wake.wait(LOOK) and not self._over.wait(SETTLE):
                self._wake.clear()

    def _hear(self) -> None:
        """Events ask for a look at once, deaths for the doctor too. A stream that breaks is opened again."""
        filters = {"label": [f"{labels.PROJECT}={self.project.name}"], "type": ["container"]}
        while not self._over.is_set():
            try:
                with self.client.open("GET", "/events", {"filters": filters}) as answer:
                    answer.settimeout(None)
                    for event in answer.objects():
                        action = str(event.get("Action") or "")
                        if action.startswith("exec_"):
                            continue
                        self._count_of.pop(str((event.get("Actor") or {}).get("ID") or ""), None)
                        self._wake.set()
                        if action in _ILL_EVENTS:
                            self._ill.set()
            except (DockyardError, OSError, ValueError):
                pass
            self._over.wait(LOOK)

    def _keep_examining(self) -> None:
        while not self._over.is_set():
            self._examine_now()
            self._wake.set()
            if self._ill.wait(EXAMINE) and not self._over.wait(LOOK):
                self._ill.clear()

    def _examine_now(self) -> None:
        try:
            self._facts = collect(self.client, os.environ)
            self._report = examine(self._facts, all_rules())
        except (DockyardError, OSError):
            self._report = None  # the engine is away, which the look tells

    def _keep_comparing(self) -> None:
        while not self._over.is_set():
            self._compare_now()
            self._wake.set()
            if self._compare.wait(COMPARE):
                self._compare.clear()

    def _compare_now(self) -> None:
        try:
            self._stale = self._hands.outdated(registries=self._registries)
        except DockyardError as error:
            self._stale = {}
            self._said, self._failed = f"cannot compare with the files: {error}", True

    # ---- doing

    def restart(self, services: Sequence[str]) -> bool:
        """False when something is being done already. The end is told in the picture."""

        def work() -> str:
            self._hands.restart(services)
            return f"restarted {', '.join(services)}"

        return self._act(f"restarting {', '.join(services)}", work)

    def update(self, services: Sequence[str]) -> bool:
        def work() -> str:
            count = self._hands.update(services)
            return f"{count} container{'' if count == 1 else 's'} replaced" if count else "everything is up to date"

        return self._act(f"updating {', '.join(services) or 'all services'}", work)

    def check_images(self) -> bool:
        """Asks the registries for newer images now."""

        def work() -> str:
            self._registries = True
            self._stale = self._hands.outdated(registries=True)
            return f"{len(self._stale)} container{'' if len(self._stale) == 1 else 's'} out of date"

        return self._act("asking the registries", work)

    def cure(self, key: str) -> bool:
        """Applies the doctor's cure, looks again, and takes it back when the finding stays. Raises InvalidParameter for a
        finding that is not there or whose cure needs a person."""
        found = choose(self._report or Report([], []), key)

        def look() -> Report:
            self._facts = collect(self.client, os.environ)
            self._report = examine(self._facts, all_rules())
            return self._report

        def work() -> str:
            engine = self._facts.engine if self._facts else collect(self.client, os.environ).engine
            outcome = apply(found, Runner(engine.pid, engine.host), look)
            if outcome.state != "healed":
                raise Conflict(f"{found.id} {outcome.state}: {outcome.detail}")
            return f"{found.id} is healed: {outcome.detail}" + (f"; undo kept in {outcome.undo_file}" if outcome.undo_file else "")

        return self._act(f"curing {found.id}", work)

    def _act(self, busy: str, work: Callable[[], str]) -> bool:
        if not self._acting.acquire(blocking=False):
            return False

        def run() -> None:
            try:
                self._said, self._failed = work(), False
            except (DockyardError, OSError) as error:
                self._said, self._failed = str(error), True
            finally:
                self._busy = ""
                self._acting.release()
                self._compare.set()
                self._wake.set()

        self._busy, self._said = busy, ""
        threading.Thread(target=run, daemon=True, name="act").start()
        self._wake.set()
        return True

    # ---- logs

    def log(self, service: str, search: str = "", tail: int = 200) -> list[logs.Line]:
        """The last ``tail`` lines of a service that hold ``search`` (in any case), of at most MOST_LINES read of each
        instance. Raises NotFound for a service that is not there."""
        looked = self._picture.service(service)
        found = [item for item in containers(self.client, self.project.name) if item.service == service and not item.oneoff]
        if looked is None and not found:
            raise NotFound(f"no such service: {service}")
        query = {"tail": str(MOST_LINES if search else tail)}
        sources = at_once([partial(self._lines, item, query) for item in found])
        merged = list(logs.merged(iter(lines) for lines in sources))
        pattern = re.compile(re.escape(search), re.IGNORECASE)
        return [line for line in merged if pattern.search(line.text)][-tail:] if search else merged[-tail:]

    def _lines(self, item: Container, query: Json) -> list[logs.Line]:
        try:
            return list(islice(logs.read(self.client, item, query), MOST_LINES))
        except DockyardError:  # it went meanwhile, or its log driver cannot be read
            return []
