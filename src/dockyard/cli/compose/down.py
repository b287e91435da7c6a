"""``down``: containers, networks, and if asked for volumes and images, are taken away."""

from __future__ import annotations

from dockyard.cli import background
from dockyard.cli.compose.session import Session, balancer_of
from dockyard.cli.flags import Options, UsageError
from dockyard.compose.canonical import boolean
from dockyard.compose.control import plan_down

FLAGS = {
    "down": """
    --remove-orphans        Remove containers for services not defined in the Compose file
    --rmi TYPE              Remove images used by services (local: only those without a name in the file, all)
-t, --timeout N             Seconds of grace when containers are stopped
-v, --volumes               Remove the file's named volumes and the containers' anonymous ones
""",
}


def down(session: Session, options: Options) -> int:
    which = options.text("rmi")
    if which not in {"", "all", "local"}:
        raise UsageError(f'invalid value for --rmi: "{which}"; it is local or all')
    project = session.named
    names = session.chosen(project, options.words)
    orphans = options.on("remove-orphans", boolean(session.environment.get("COMPOSE_REMOVE_ORPHANS", "")))
    state = session.state(project)
    plan = plan_down(project, state, names, volumes=options.on("volumes"), images=which, orphans=orphans)
    providers = [name for name, service in project.services.items() if service.get("provider") and name in (names or [name])]
    if not plan.operations and not providers:
        session.progress.warn(f'No resource found to remove for project "{project.name}".')
    timeout = options.number("timeout") if options.given("timeout") else None
    session.carry_out(project, state, plan, timeout=timeout, volumes=options.on("volumes"))
    if not names and not session.dry_run:
        background.end(balancer_of(project.name, str(session.client.endpoint)).parent)
    for name in providers:
        if session.dry_run:
            session.shell.say(f"ask provider {project.services[name]['provider'].get('type')} to take {name} away")
            continue
        from dockyard.compose.provider import ask

        ask(project, name, project.services[name]["provider"], "down", session.progress)
    return 0
