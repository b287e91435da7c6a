"""Services that another program provides (compose-spec, "Provider services"): databases in a cloud, models, tunnels.

::

    docker-TYPE (a plugin of docker's) or TYPE  compose --project-name=P up --option=value ... SERVICE
        ─► {"type": "info" | "debug" | "error" | "setenv" | "rawsetenv", "message": "..."}  a line each

What it sets becomes environment of the services that depend on it: ``KEY`` of service ``db`` as ``DB_KEY``, raw ones as
they are. It is asked before the plan is made, since the environment is part of what a container is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from dockyard.compose.canonical import text
from dockyard.compose.errors import PROVIDER_FAILED
from dockyard.compose.progress import Event, Progress
from dockyard.compose.project import Project, dependencies, levels

Json = dict[str, Any]
Verb = Literal["up", "down"]
METADATA_LIMIT = 10.0
PLUGINS = ("/usr/local/lib/docker/cli-plugins", "/usr/local/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins",
           "/usr/libexec/docker/cli-plugins")  # fmt: skip
_WORDS = {"up": ("Creating", "Created"), "down": ("Removing", "Removed")}


def provided(project: Project, progress: Progress) -> Project:
    """The project without its provider services, whose programs have been run and whose variables are in place."""
    services = dict(project.services)
    for level in levels(project.services):
        for name in level:
            if services[name].get("provider"):
                plain, raw = ask(project, name, services.pop(name)["provider"], "up", progress)
                own = {f"{name.upper()}_{key}": value for key, value in plain.items()} | raw
                _give(services, name, own, progress)
    return replace(project, services=services)


def _give(services: dict[str, Json], provider: str, variables: Mapping[str, str], progress: Progress) -> None:
    for name, service in services.items():
        if provider not in dependencies(service):
            continue
        before = service.get("environment") or {}
        for key in variables:
            if key in before and before[key] != variables[key]:
                progress.warn(f'provider "{provider}" overrides environment variable "{key}" in service "{name}"')
        services[name] = {**service, "environment": {**before, **variables}}


def ask(project: Project, name: str, terms: Json, verb: Verb, progress: Progress) -> tuple[dict[str, str], dict[str, str]]:
    """(variables, raw variables) that the program tells. Raises Conflict with its words."""
    kind = str(terms.get("type") or "")
    program = find(kind, project.environment)
    if not program:
        raise PROVIDER_FAILED(service=name, cause=f"there is no program docker-{kind} among docker's plugins, and no {kind}")
    environ = {**os.environ, **{key: value for key, value in project.environment.items() if value is not None}}
    words = [program, "compose", f"--project-name={project.name}", verb, *_options(program, name, terms, verb, environ), name]
    subject = f"Service {name}"
    progress.on(Event(subject, _WORDS[verb][0]))
    plain: dict[str, str] = {}
    raw: dict[str, str] = {}
    with subprocess.Popen(words, env=environ, cwd=project.directory, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        try:
            for line in running.stdout:
                kind, message = _message(name, line)
                if kind == "error":
                    raise PROVIDER_FAILED(service=name, cause=message)
                if kind == "info":
                    progress.on(Event(subject, _WORDS[verb][0], details=message.partition("\n")[0]))
                elif kind != "debug":
                    key, _, value = message.partition("=")
                    (plain if kind == "setenv" else raw)[key] = value
        except BaseException:
            running.kill()
            raise
    if running.returncode:
        raise PROVIDER_FAILED(service=name, cause=f"{program} {verb} ended with {running.returncode}")
    progress.on(Event(subject, _WORDS[verb][1], "done"))
    return plain, raw


def find(kind: str, environment: Mapping[str, str]) -> str:
    """The program's path, "" when there is none."""
    if not kind or kind == "compose" or "/" in kind:
        return ""
    folder = environment.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    places = [os.path.join(folder, "cli-plugins"), *PLUGINS]
    return shutil.which(f"docker-{kind}", path=os.pathsep.join(places)) or shutil.which(kind, path=environment.get("PATH")) or ""


def _message(name: str, line: bytes) -> tuple[str, str]:
    try:
        row = json.loads(line)
        kind, message = str(row["type"]), str(row["message"])
    except (ValueError, KeyError, TypeError):
        raise PROVIDER_FAILED(service=name, cause=f"its answer is no message: {line[:80].decode(errors='replace')!r}") from None
    if kind not in {"info", "debug", "error", "setenv", "rawsetenv"} or (kind.endswith("setenv") and "=" not in message):
        raise PROVIDER_FAILED(service=name, cause=f"its answer is no message: {kind} {message[:80]!r}")
    return kind, message


def _options(program: str, name: str, terms: Json, verb: Verb, environ: Mapping[str, str]) -> list[str]:
    """``--name=value`` of each option; where the program describes its commands, of those that this one knows."""
    given = {str(key): value if isinstance(value, list) else [value] for key, value in (terms.get("options") or {}).items()}
    known = _described(program, verb, environ)
    if known is not None:
        for row in known:
            if row.get("required") and row.get("name") not in given:
                raise PROVIDER_FAILED(service=name, cause=f'required parameter "{row.get("name")}" is missing')
        names = {row.get("name") for row in known}
        given = {key: values for key, values in given.items() if key in names}
    return [f"--{key}={text(value)}" for key, values in given.items() for value in values]


def _described(program: str, verb: Verb, environ: Mapping[str, str]) -> list[Json] | None:
    try:
        told = subprocess.run([program, "compose", "metadata"], env=dict(environ), capture_output=True, timeout=METADATA_LIMIT)
        document = json.loads(told.stdout) if told.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    if not isinstance(document, dict) or not any(document.get(key) for key in ("description", "up", "down")):
        return None
    rows = (document.get(verb) or {}).get("parameters") or []
    return [row for row in rows if isinstance(row, dict)]
