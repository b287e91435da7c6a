"""``cp``: files between a service's containers and here, in docker's own way of naming both ends."""

from __future__ import annotations

from dockyard.cli.archive import place
from dockyard.cli.commands import copy
from dockyard.cli.compose.session import Session
from dockyard.cli.flags import Options, Refusal
from dockyard.compose.errors import NOT_RUNNING

FLAGS = {
    "cp": """
    --all          Include containers created by run
-a, --archive      Archive mode (copy all uid/gid information)
-L, --follow-link  Always follow symbol link in SRC_PATH
    --index N      Index of the container if the service has several
""",
}


def cp(session: Session, options: Options) -> int:
    """What is sent goes to every container of the service, what is fetched comes from the first; --index chooses."""
    (source, inside), (goal, target) = (place(word) for word in options.words[:2])
    if bool(source) == bool(goal):
        raise Refusal("one of the two paths must be in a container (SERVICE:PATH)")
    given = {name: options.all(name) for name in ("archive", "follow-link") if options.given(name)}
    for name in _containers(session, source or goal, options)[: 1 if source else None]:
        words = [f"{name}:{inside}", target] if source else [inside, f"{name}:{target}"]
        if session.dry_run:
            session.shell.say(f"copy {words[0]} to {words[1]}")
        elif status := copy.cp(session.shell, Options(given, words)):
            return status
    return 0


def _containers(session: Session, service: str, options: Options) -> list[str]:
    project = session.named
    session.chosen(project, [service])
    index = options.number("index")
    found = [
        item.name
        for item in session.state(project).containers
        if item.service == service and (options.on("all") or not item.oneoff) and index in (0, item.number)
    ]
    if not found:
        raise NOT_RUNNING(service=service, index=f" (index {index})" if index else "")
    return found
