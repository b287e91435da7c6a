"""``start``, ``stop``, ``restart``, ``kill``, ``pause``, ``unpause``, ``rm`` and ``wait``."""

from __future__ import annotations

from dockyard.cli.compose.session import Session
from dockyard.cli.flags import Options
from dockyard.client import quote
from dockyard.compose.control import plan_each, plan_restart, plan_rm, plan_start, plan_stop
from dockyard.compose.errors import NOT_RUNNING
from dockyard.compose.plan import READY, Operation, Plan

_TIMEOUT = "-t, --timeout N   Seconds of grace before a container is killed\n"
FLAGS = {
    "start": "    --wait            Wait for services to be running|healthy\n    --wait-timeout N  Longest wait in seconds",
    "stop": _TIMEOUT,
    "restart": _TIMEOUT + "    --no-deps         Don't restart dependent services",
    "kill": "-s, --signal SIGNAL   Signal to send (default: SIGKILL)\n"
    "    --remove-orphans  Remove containers for services not defined in the Compose file",
    "rm": "-f, --force     Don't ask to confirm removal\n-s, --stop      Stop the containers before removing\n"
    "-v, --volumes   Remove anonymous volumes attached to containers",
    "wait": "    --down-project  Takes the project down when the first container stops",
}


def _timeout(options: Options) -> int | None:
    return options.number("timeout") if options.given("timeout") else None


def start(session: Session, options: Options) -> int:
    project = session.named
    names = session.chosen(project, options.words)
    state = session.state(project)
    for name in names or project.services:
        if not state.of(name) and not project.services.get(name, {}).get("provider"):
            raise NOT_RUNNING(service=name, index=": it has no container to start")
    plan = plan_start(project, state, names)
    if options.on("wait"):
        keys = tuple(one.key for one in plan.operations)
        waits = [
            Operation(f"wait {name}", "wait", f"Service {name}", "asked for", keys, name, condition=READY)
            for name in names or project.services
        ]
        plan = Plan((*plan.operations, *waits))
    limit = float(options.number("wait-timeout")) if options.given("wait-timeout") else None
    session.carry_out(project, state, plan, wait_timeout=limit)
    return 0


def stop(session: Session, options: Options) -> int:
    project = session.named
    names = session.chosen(project, options.words)
    state = session.state(project)
    session.carry_out(project, state, plan_stop(project, state, names), timeout=_timeout(options))
    return 0


def restart(session: Session, options: Options) -> int:
    project = session.named
    names = session.chosen(project, options.words)
    state = session.state(project)
    plan = plan_restart(project, state, names, deps=not options.on("no-deps"))
    session.carry_out(project, state, plan, timeout=_timeout(options))
    return 0


def kill(session: Session, options: Options) -> int:
    project = session.named
    names = session.chosen(project, options.words)
    state = session.state(project)
    plan = plan_each(state, names, "kill", lambda item: item.running)
    session.carry_out(project, state, plan, signal=options.text("signal"))
    return 0


def pause(session: Session, options: Options) -> int:
    project = session.named
    names = session.chosen(project, options.words)
    state = session.state(project)
    session.carry_out(project, state, plan_each(state, names, "pause", lambda item: item.state == "running"))
    return 0


def unpause(session: Session, options: Options) -> int:
    project = session.named
    names = session.chosen(project, options.words)
    state = session.state(project)
    session.carry_out(project, state, plan_each(state, names, "unpause", lambda item: item.state == "paused"))
    return 0


def rm(session: Session, options: Options) -> int:
    project = session.named
    names = session.chosen(project, options.words)
    state = session.state(project)
    plan = plan_rm(state, names, stop=options.on("stop"))
    gone = [one for one in plan.operations if one.verb == "remove"]
    if not gone:
        session.shell.complain("No stopped containers")
        return 0
    if not session.dry_run:
        warning = "Going to remove " + ", ".join(one.subject.removeprefix("Container ") for one in gone)
        if not session.shell.confirm(warning, options):
            return 0
    session.carry_out(project, state, plan, volumes=options.on("volumes"))
    return 0


def wait(session: Session, options: Options) -> int:
    """The exit code of the first container that ends."""
    project = session.named
    names = session.chosen(project, options.words)
    rows = [item for item in session.state(project).containers if item.service in names and not item.oneoff]
    if not rows:
        raise NOT_RUNNING(service=names[0], index="")
    from concurrent.futures import ThreadPoolExecutor

    code = 0
    with ThreadPoolExecutor(len(rows), "wait") as pool:
        for item, answer in zip(rows, pool.map(lambda one: _ended(session, one.id), rows), strict=True):
            session.shell.say(f'container "{item.name}" exited with status code {answer}')
            code = code or answer
    if options.on("down-project"):
        from dockyard.cli.compose.down import down

        down(session, Options({}, []))
    return code


def _ended(session: Session, container: str) -> int:
    with session.client.open("POST", f"/containers/{quote(container)}/wait") as answer:
        answer.settimeout(None)
        return int(answer.json()["StatusCode"])
