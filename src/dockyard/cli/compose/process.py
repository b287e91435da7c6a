"""``exec``, ``run`` and ``attach``: a person in a container."""

from __future__ import annotations

import dataclasses
import secrets
import sys
from typing import Any

from dockyard.cli.compose.session import Session
from dockyard.cli.compose.up import prepare
from dockyard.cli.flags import Options, UsageError
from dockyard.cli.terminal import following_window, passing_signals, pump, raw_terminal
from dockyard.client import quote
from dockyard.compose import canonical
from dockyard.compose.plan import READY, STARTED, Operation, Plan, UpOptions
from dockyard.compose.project import Project
from dockyard.compose.translate import Wanted
from dockyard.errors import DockyardError

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
    --index N      Index of the container if the service has several
    --no-stdin     Do not attach STDIN
    --sig-proxy    Proxy all received signals to the process (default: true)
""",
}


def exec(session: Session, options: Options) -> int:
    service, *command = options.words
    item = session.running(service, options.number("index"))
    attached = not options.on("detach")
    tty = attached and not options.on("no-tty") and sys.stdin.isatty()
    body = {
        "Cmd": command, "Tty": tty, "AttachStdin": attached, "AttachStdout": attached, "AttachStderr": attached,
        "Env": options.all("env"), "User": options.text("user"), "WorkingDir": options.text("workdir"),
        "Privileged": options.on("privileged"),
    }  # fmt: skip
    if session.dry_run:
        session.shell.say(f"exec in {item.name}: {' '.join(command)}")
        return 0
    client = session.client
    made = client.request("POST", f"/containers/{quote(item.id)}/exec", body=body)["Id"]
    if not attached:
        client.request("POST", f"/exec/{made}/start", body={"Detach": True, "Tty": False})
        return 0
    with client.hijack(f"/exec/{made}/start", body={"Detach": False, "Tty": tty}) as stream, raw_terminal(tty):
        if tty:
            with following_window(lambda rows, columns: _resize(session, f"/exec/{made}", rows, columns)):
                pump(stream, stdin=True, tty=True)
        else:
            pump(stream, stdin=True, tty=False)
    return int(client.request("GET", f"/exec/{made}/json").get("ExitCode") or 0)


def _resize(session: Session, path: str, rows: int, columns: int) -> None:
    try:
        session.client.request("POST", f"{path}/resize", {"h": rows, "w": columns})
    except DockyardError:  # what runs may have ended between
        return


def attach(session: Session, options: Options) -> int:
    item = session.running(options.words[0], options.number("index"))
    config = session.client.request("GET", f"/containers/{quote(item.id)}/json")["Config"]
    return _attached(session, item.id, bool(config.get("Tty")), stdin=not options.on("no-stdin"),
                     proxy=options.on("sig-proxy", True))  # fmt: skip


def _attached(session: Session, container: str, tty: bool, *, stdin: bool, proxy: bool, start: bool = False) -> int:
    """Both directions until the container ends; its exit code."""
    client, path = session.client, f"/containers/{quote(container)}"
    query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True}
    with (
        client.hijack(f"{path}/attach", query) as stream,
        client.open("POST", f"{path}/wait", {"condition": "next-exit" if start else "not-running"}) as ended,
    ):
        ended.settimeout(None)
        if start:
            client.request("POST", f"{path}/start")
        with raw_terminal(tty):
            if tty:
                with following_window(lambda rows, columns: _resize(session, path, rows, columns)):
                    pump(stream, stdin=stdin, tty=True)
            elif proxy:
                with passing_signals(lambda name: _signal(session, path, name)):
                    pump(stream, stdin=stdin, tty=False)
            else:
                pump(stream, stdin=stdin, tty=False)
        return int(ended.json()["StatusCode"])


def _signal(session: Session, path: str, name: str) -> None:
    try:
        session.client.request("POST", f"{path}/kill", {"signal": name})
    except DockyardError:  # it has ended already
        return


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
    applier.apply(Plan())
    slug = secrets.token_hex(32)
    tty = not options.on("no-TTY") and not options.on("detach") and sys.stdin.isatty() and sys.stdout.isatty()
    attached = not options.on("detach")
    stdin = attached and options.on("interactive", True)
    project.services[name].update(tty=tty, stdin_open=stdin)
    wanted = Wanted(name, number=0, slug=slug, aliases=options.on("use-aliases"), attach_stdin=stdin,
                    auto_remove=options.on("rm") and options.on("detach"))  # fmt: skip
    called = (
        options.text("name")
        or f"{project.name}{project.separator}{name}{project.separator}run{project.separator}{slug[:12]}"
    )
    made = applier.create(wanted, called)
    applier.inject(made, project.services[name])
    if not attached:
        session.client.request("POST", f"/containers/{made}/start")
        session.shell.say(called)
        return 0
    try:
        return _attached(session, made, tty, stdin=stdin, proxy=True, start=True)
    finally:
        if options.on("rm"):
            session.client.request("DELETE", f"/containers/{made}", {"v": True, "force": True})


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
