"""``up`` with the containers' output: attach before the start, print, and stop them all at the end or at Ctrl-C."""

from __future__ import annotations

import threading
from typing import Any

from dockyard.cli.compose.output import printer
from dockyard.cli.compose.session import Session
from dockyard.cli.flags import Options
from dockyard.client import quote
from dockyard.compose.canonical import boolean
from dockyard.compose.control import plan_each, plan_stop
from dockyard.compose.follow import Follower
from dockyard.compose.labels import SERVICE
from dockyard.compose.observe import Container, State
from dockyard.compose.plan import Plan
from dockyard.compose.project import Project
from dockyard.errors import DockyardError

Json = dict[str, Any]


class Attached:
    def __init__(self, session: Session, project: Project, state: State, plan: Plan, options: Options) -> None:
        self.session, self.project, self.state, self.plan, self.options = session, project, state, plan, options
        self.shown = self._shown()
        self.printer = printer(session, options, [], project.name)
        self.follower = Follower(session.client, project.name, self.printer.write, {"tail": "0"})
        self._code: int | None = None
        self._over = threading.Event()

    def _shown(self) -> set[str]:
        """Services whose output is printed."""
        options, services = self.options, self.project.services
        names = set(options.all("attach")) or set(options.words) or set(services)
        if options.on("attach-dependencies"):
            names = set(services)
        quiet = {name for name, service in services.items() if not boolean(service.get("attach", True))}
        return (names & set(services)) - set(options.all("no-attach")) - quiet

    def run(self) -> int:
        """The exit code: that of --exit-code-from, else of the first container that failed where that counts."""
        starts = [one for one in self.plan.operations if one.verb in {"start", "wait"}]
        before = Plan(
            tuple(one for one in self.plan.operations if one.verb not in {"start", "wait"}), self.plan.warnings,
            self.plan.unchanged,
        )  # fmt: skip
        applier = self.session.applier(self.project, self.state, **self._timeout())
        try:
            applier.apply(before, self.session.parallel)
        finally:
            self.session.progress.end()
        names = [f"{one.subject.removeprefix('Container ')}" for one in starts if one.verb == "start"]
        names += [item.name for item in self.plan.unchanged]
        for name in sorted(names):
            self.printer.know(name)
        self.session.shell.complain("Attaching to " + ", ".join(sorted(self._short(name) for name in names)))
        self.follower.watch(self._fits, self._exited, self.printer.know)
        for item in self.plan.unchanged:
            if item.service in self.shown:
                self.follower.follow(item)
        applier.before_start = self._attach
        quiet = _Warnings(self.session)
        applier.progress = quiet
        try:
            applier.apply(Plan(tuple(starts)), self.session.parallel)
            self.follower.wait(lambda: False)
        except KeyboardInterrupt:
            return self._stopped(by_user=True)
        except DockyardError:
            self._stopped(by_user=False)
            raise
        if self._over.is_set():
            self._stopped(by_user=False)
        return self._code or 0

    def _short(self, name: str) -> str:
        return name.removeprefix(f"{self.project.name}{self.project.separator}")

    def _timeout(self) -> Json:
        return {"timeout": self.options.number("timeout") if self.options.given("timeout") else None}

    def _fits(self, item: Container) -> bool:
        return item.service in self.shown and not item.oneoff

    def _attach(self, container: str, name: str) -> None:
        found = self.session.client.request("GET", f"/containers/{quote(container)}/json")
        config = found.get("Config") or {}
        if (config.get("Labels") or {}).get(SERVICE) in self.shown:
            self.follower.attach(found["Id"], name, tty=bool(config.get("Tty")))

    def _exited(self, name: str, code: int) -> None:
        self.printer.say(name, f"exited with code {code}")
        chosen = self.options.text("exit-code-from")
        service = self._short(name).rpartition(self.project.separator)[0]
        ends = self.options.on("abort-on-container-exit") or bool(chosen)
        if self.options.on("abort-on-container-failure"):
            ends = code != 0
        if self._code is None and (service == chosen if chosen else ends):
            self._code = code
        if ends and not self._over.is_set():
            self._over.set()
            for item in list(self.follower.alive()):
                self.follower.forget(item)

    def _stopped(self, *, by_user: bool) -> int:
        """Stops what runs; a second Ctrl-C kills it."""
        if by_user:
            self.session.shell.complain("\nGracefully Stopping... press Ctrl+C again to force")
        state = self.session.state(self.project)
        applier = self.session.applier(self.project, state, **self._timeout())
        try:
            applier.apply(plan_stop(self.project, state), self.session.parallel)
        except KeyboardInterrupt:
            self.session.shell.complain("Killing")
            state = self.session.state(self.project)
            applier = self.session.applier(self.project, state)
            applier.apply(plan_each(state, (), "kill", lambda item: item.running), self.session.parallel)
        finally:
            self.session.progress.end()
        return 130 if by_user else self._code or 0


class _Warnings:
    """Progress of the starts: the output of the containers has the screen now, so only what went wrong is told."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def on(self, event: Any) -> None:
        if event.status in {"error", "warning"}:
            self._session.shell.complain(f"{event.subject}  {event.text}: {event.details}".rstrip(": "))

    def warn(self, text: str) -> None:
        self._session.shell.complain(f"warning: {text}")
