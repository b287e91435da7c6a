"""``exec``, ``run`` and ``attach``: a person in a container."""

from __future__ import annotations

import dataclasses
import secrets
import sys
from typing import Any

from dockyard.cli import session as stdio
from dockyard.cli.commands import process
from dockyard.cli.compose.session import Session
from dockyard.cli.compose.up import prepare
from dockyard.cli.flags import Options, UsageError
from dockyard.compose import canonical
from dockyard.compose.plan import READY, STARTED, Operation, Plan, UpOptions
from dockyard.compose.project import Project
from dockyard.compose.translate import Wanted

Json = dict[str, Any]
OPTIONS_END_AT_FIRST_WORD = ("exec", "run")
FLAGS = {
    "exec": """
-d, --detach           Run the command in the background
-e, --env KEY=VALUE... Set environment variables
    --index N          Index of the container if the service has several
-T, --no-tty           Don't allocate a pseudo-TTY
    --privileged       Give extended privileges to the process
-u, --user USER        Run the command as this user
-w, --workdir DIR      Working directory of the command
""",
    "run": """
    --build              Build image before starting container
    --cap-add CAP...     Add Linux capabilities
    --cap-drop CAP...    Drop Linux capabilities
-d, --detach             Run container in background and print its ID
    --entrypoint TEXT    Override the entrypoint of the image
-e, --env KEY=VALUE...   Set environment variables
    --env-from-file FILE...  Set environment variables from a file
-i, --interactive        Keep STDIN open even if not attached (default: true)
-l, --label KEY=VALUE... Add or override a label
    --name NAME          Assign a name to the container
-T, --no-TTY             Don't allocate a pseudo-TTY
    --no-deps            Don't start linked services
-p, --publish PORT...    Publish a container's port to the host
    --pull POLICY        Pull image before running (always, missing, never)
-q, --quiet              Don't print anything to standard output
    --quiet-pull         Pull without printing progress information
    --remove-orphans     Remove containers for services not defined in the Compose file
    --rm                 Remove the container when it exits
-P, --service-ports      Run with all the service's ports published
    --use-aliases        Use the service's network aliases
-u, --user USER          Run as this user
-v, --volume VOLUME...   Bind mount a volume
-w, --workdir DIR        Working directory inside the container
""",
    "attach": """
    --detach-keys KEYS  Keys that detach (ctrl-p,ctrl-q)
    --index N      Index of the container if the service has several
    --no-stdin     Do not attach STDIN
    --sig-proxy    Proxy all received signals to the process (default: true)
""",
}


def exec(session: Session, options: Options) -> int:
    service, *command = options.words
    item = session.running(service, options.number("index"))
    if session.dry_run:
        session.shell.say(f"exec in {item.name}: {' '.join(command)}")
        return 0
    given = {
        name: options.all(name) for name in ("detach", "env", "privileged", "user", "workdir") if options.given(name)
    }
    given["interactive"] = ["true"]
    given["tty"] = [str(not options.on("no-tty") and not options.on("detach") and sys.stdin.isatty())]
    return process.exec(session.shell, Options(given, [item.id, *command]))


def attach(session: Session, options: Options) -> int:
    item = session.running(options.words[0], options.number("index"))
    given = {name: options.all(name) for name in ("detach-keys", "no-stdin", "sig-proxy") if options.given(name)}
    return process.attach(session.shell, Options(given, [item.id]))


def run(session: Session, options: Options) -> int:
    """A one-off container of a service, after what the service depends on."""
    name, *command = options.words
    if options.on("service-ports") and options.given("publish"):
        raise UsageError("--service-ports and --publish are incompatible")
    project = session.project.select([name], dependencies=not options.on("no-deps"))
    service = _changed(project.service(name), command, options, session)
    others = {key: item for key, item in project.services.items() if key != name}
    project = dataclasses.replace(project, services={**others, name: {**service, "scale": 0}})
    chosen = UpOptions(selected=frozenset([name]), recreate="never", recreate_dependencies="never",
                       remove_orphans=options.on("remove-orphans"))  # fmt: skip
    plan, state, project = prepare(session, project, options, chosen)
    # A service with scale 0 has its running containers removed by a plan; a run leaves them alone.
    kept = tuple(one for one in plan.operations if one.service != name)
    waits = _waits(project, name, [one.key for one in kept])
    session.carry_out(project, state, Plan((*kept, *waits), plan.warnings))
    if session.dry_run:
        session.shell.say(f"create and start a one-off container of {name}")
        return 0
    state = session.state(project, list(state.images))
    applier = session.applier(project, state)
    applier.know()
    streams = _streams(options)
    project.services[name].update(tty=streams.tty, stdin_open=streams.stdin)
    slug = secrets.token_hex(32)
    wanted = Wanted(name, number=0, slug=slug, aliases=options.on("use-aliases"), attach_stdin=streams.stdin,
                    auto_remove=options.on("rm") and options.on("detach"))  # fmt: skip
    made = applier.create(
        wanted, options.text("name") or project.separator.join((project.name, name, "run", slug[:12]))
    )
    applier.inject(made, project.services[name])
    if options.on("detach"):
        session.client.request("POST", f"/containers/{made}/start")
        session.shell.say(made)
        return 0
    try:
        return _attached(session, f"/containers/{made}", made, streams)
    finally:
        if options.on("rm"):
            session.client.request("DELETE", f"/containers/{made}", {"v": True, "force": True})


def _streams(options: Options) -> stdio.Streams:
    attached = not options.on("detach")
    tty = attached and not options.on("no-TTY") and sys.stdin.isatty() and sys.stdout.isatty()
    return stdio.Streams(attached and options.on("interactive", True), True, True, tty)


def _attached(session: Session, place: str, container: str, streams: stdio.Streams) -> int:
    """Attach, ask for the exit, start, carry; its exit code."""
    client = session.client
    stream = stdio.attach(client, container, streams)
    ended = stdio.ask_exit(client, container, "next-exit")
    with stdio.closing(stream), stdio.closing(ended):
        if stdio.carry(session.shell, stream, streams, place, pass_signals=True,
                       begin=lambda: client.request("POST", f"{place}/start")):  # fmt: skip
            return 0
        return stdio.exit_code(ended)


def _waits(project: Project, name: str, keys: list[str]) -> list[Operation]:
    found = []
    for other, terms in (project.services[name].get("depends_on") or {}).items():
        condition = str(terms.get("condition") or STARTED)
        if other in project.services and condition not in {STARTED, READY}:
            found.append(Operation(f"wait {other} {condition}", "wait", f"Service {other}", "asked for", tuple(keys), other,
                                   condition=condition, required=bool(terms.get("required", True))))  # fmt: skip
    return found


def _changed(service: Json, command: list[str], options: Options, session: Session) -> Json:
    """The service as this one run wants it. Raises UsageError and InvalidParameter."""
    made = {**service, "restart": "no", "container_name": None}
    made["deploy"] = None
    if command:
        made["command"] = command
    if options.given("entrypoint"):
        made["entrypoint"] = canonical.command(options.text("entrypoint")) or []
        made["command"] = command
    environment: dict[str, str | None] = dict(service.get("environment") or {})
    for path in options.all("env-from-file"):
        from dockyard.compose.loader import read_env
        from dockyard.compose.source import HostReader

        environment |= read_env(HostReader(), path, session.environment)
    for key, value in canonical.pairs(options.all("env")).items():
        environment[key] = session.environment.get(key) if value is None else value
    made["environment"] = environment
    made["labels"] = {**(service.get("labels") or {}), **canonical.pairs(options.all("label"))}
    for flag, key in (("user", "user"), ("workdir", "working_dir")):
        if options.given(flag):
            made[key] = options.text(flag)
    for flag, key in (("cap-add", "cap_add"), ("cap-drop", "cap_drop")):
        made[key] = [*(service.get(key) or []), *options.all(flag)]

    def fail(cause: str) -> Exception:
        return UsageError(cause)

    if not options.on("service-ports"):
        made["ports"] = [row for text in options.all("publish") for row in canonical.ports(text, fail)]
    made["volumes"] = [
        *(service.get("volumes") or []),
        *(canonical.volume(text, fail) for text in options.all("volume")),
    ]
    return made
