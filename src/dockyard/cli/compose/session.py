"""One invocation: the project of the files that the flags name, the engine, the looks, and the parts they make up."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dockyard.cli.compose import board
from dockyard.cli.flags import Options
from dockyard.cli.shell import Shell
from dockyard.client import Client
from dockyard.compose.apply import Applier
from dockyard.compose.errors import NO_FILE
from dockyard.compose.graph import PARALLEL
from dockyard.compose.observe import Container, State, containers, observe, project_of
from dockyard.compose.plan import Plan, in_order
from dockyard.compose.project import Project
from dockyard.compose.source import Source, open_project, proxy_variables
from dockyard.errors import DockyardError

Json = dict[str, Any]


class Session:
    def __init__(self, shell: Shell, top: Options, screen: board.Screen | None = None) -> None:
        """``screen`` hears of progress instead of the terminal."""
        self.shell, self.top, self._screen = shell, top, screen
        self.environment: dict[str, str] = dict(os.environ)
        self.dry_run = top.on("dry-run")

    @property
    def client(self) -> Client:
        return self.shell.client

    @cached_property
    def source(self) -> Source:
        top = self.top
        return Source(
            files=tuple(top.all("file")), name=top.text("project-name"), profiles=tuple(top.all("profile")),
            env_files=tuple(top.all("env-file")), directory=top.text("project-directory"),
            compatibility=top.on("compatibility"),
        )  # fmt: skip

    @cached_property
    def project(self) -> Project:
        """Of the files. Raises NotFound and InvalidParameter."""
        project, self.environment = open_project(self.source, os.environ, os.getcwd())
        for warning in project.warnings:
            self.progress.warn(warning)
        return project

    @cached_property
    def named(self) -> Project:
        """Of the files; without any, what the labels tell of the project named by -p or COMPOSE_PROJECT_NAME."""
        name = self.source.name or os.environ.get("COMPOSE_PROJECT_NAME", "")
        try:
            return self.project
        except DockyardError as error:
            if error.code != NO_FILE.id or not name:
                raise
            return project_of(name, containers(self.client, name))

    @cached_property
    def config(self) -> Json:
        """The client's config.json; empty when it cannot be read."""
        folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
        try:
            found = json.loads(Path(folder, "config.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def proxy(self) -> dict[str, str]:
        """Variables that the client's configuration gives to every container and build."""
        return proxy_variables(self.config, str(self.client.endpoint))

    @cached_property
    def colour(self) -> bool:
        when = self.top.text("ansi", os.environ.get("COMPOSE_ANSI", "auto"))
        if when in {"always", "never"}:
            return when == "always"
        return sys.stderr.isatty() and not os.environ.get("NO_COLOR")

    @cached_property
    def progress(self) -> board.Screen:
        if self._screen is not None:
            return self._screen
        kind = self.top.text("progress", os.environ.get("COMPOSE_PROGRESS", "auto"))
        return board.make(kind, colour=self.colour)

    @property
    def parallel(self) -> int:
        given = self.top.number("parallel") or int(os.environ.get("COMPOSE_PARALLEL_LIMIT") or 0)
        return given if given > 0 else PARALLEL

    def state(self, project: Project, images: Sequence[str] = ()) -> State:
        return observe(self.client, project, images)

    def applier(self, project: Project, state: State, **more: Any) -> Applier:
        socket = balancer_of(project.name, str(self.client.endpoint))
        if socket.exists():
            from dockyard.cli.compose.balance import drainer

            more["before_stop"] = drainer(project, socket)
        return Applier(
            self.client, project, state, self.progress, proxy=self.proxy, environment_files=self.source.env_files,
            read=_read_below(project.directory), **more,
        )  # fmt: skip

    def carry_out(self, project: Project, state: State, plan: Plan, **more: Any) -> None:
        """Does the plan, or tells it with --dry-run."""
        if self.dry_run:
            self.tell(plan)
            return
        try:
            self.applier(project, state, **more).apply(plan, self.parallel)
        finally:
            self.progress.end()

    def tell(self, plan: Plan) -> None:
        """The plan, one operation a line: what would be done to what, and why."""
        for warning in plan.warnings:
            self.progress.warn(warning)
        for one in in_order(plan.operations):
            name = one.subject.partition(" ")[2] or one.subject
            what = one.verb if " " in one.verb else f"{one.verb} {one.subject.partition(' ')[0].lower()}"
            detail = f" as {one.name}" if one.verb == "create" and one.replaced else ""
            self.shell.say(f"{what} {name}{detail}" + (f"  ({one.reason})" if one.reason else ""))
        if not plan.operations:
            self.shell.say("nothing to do: everything is as the file says")

    def running(self, service: str, index: int = 0) -> Container:
        """The service's container with that number, else its first. Raises NotFound."""
        from dockyard.compose.errors import NOT_RUNNING

        project = self.named
        if service not in project.services and service not in project.disabled:
            project.service(service)
        found = [
            item for item in containers(self.client, project.name, everything=False)
            if item.service == service and not item.oneoff and item.running and index in (0, item.number)
        ]  # fmt: skip
        if not found:
            raise NOT_RUNNING(service=service, index=f" (index {index})" if index else "")
        return found[0]

    def chosen(self, project: Project, words: Sequence[str]) -> list[str]:
        """The services named. Raises NotFound with the nearest name."""
        for name in words:
            if name not in project.disabled:
                project.service(name)
        return list(words)


def balancer_of(project: str, engine: str) -> Path:
    """The control socket of a project's balancer. Two engines on one machine may each have a project of one name."""
    base = os.environ.get("XDG_RUNTIME_DIR") if os.geteuid() else "/run"
    name = f"{project[:40]}-{hashlib.sha256(f'{engine} {project}'.encode()).hexdigest()[:8]}"
    return Path(base or "/tmp", "dockyard", "balance", name, "haproxy.sock")


def scaled(project: Project, wanted: Sequence[str]) -> Project:
    """``web=3`` as the number of containers. Raises UsageError and NotFound."""
    from dockyard.cli.flags import UsageError

    services = dict(project.services)
    for word in wanted:
        name, equals, number = word.partition("=")
        if not equals or not number.isdigit():
            raise UsageError(f'invalid argument "{word}" for "--scale" flag: SERVICE=NUM is expected')
        services[name] = {**project.service(name), "scale": int(number)}
    return dataclasses.replace(project, services=services)


def _read_below(directory: str) -> Any:
    def read(path: str) -> str:
        return Path(directory, path).read_text(encoding="utf-8")

    return read
