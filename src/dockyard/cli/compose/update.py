"""``update``: outdated containers are replaced one by one, with a health gate and a rollback. ``outdated`` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from dockyard.cli import auths
from dockyard.cli.compose.session import Session
from dockyard.cli.compose.supply import carry_out
from dockyard.cli.flags import Options
from dockyard.cli.output import Column, show
from dockyard.client import quote
from dockyard.compose import images
from dockyard.compose.observe import State, or_none
from dockyard.compose.plan import outdated as outdated_containers
from dockyard.compose.project import Project
from dockyard.compose.update import DEFAULT_READY_LIMIT, Update, policy_of
from dockyard.errors import DockyardError

NEWER = "a newer image is in the registry"
FLAGS = {
    "update": """
    --force           Replace them all, also those that are as the file says
    --pull            Pull the images before
    --wait-timeout N  Seconds until a new instance must be ready (default: 120)
""",
    "outdated": """
    --check           Ask the registries whether a newer image is there
    --format FORMAT   table, json or a Go template
    --json            Output as JSON
-q, --quiet           Only display names
""",
}


def update(session: Session, options: Options) -> int:
    limit = float(options.number("wait-timeout")) if options.given("wait-timeout") else DEFAULT_READY_LIMIT
    names = session.chosen(session.project, options.words)
    count = replace(session, names, pull=options.on("pull"), force=options.on("force"), limit=limit)
    if not count:
        session.shell.complain("Everything is up to date")
    return 0


def replace(
    session: Session, names: Sequence[str], *, pull: bool, force: bool = False, limit: float = DEFAULT_READY_LIMIT
) -> int:
    """How many containers were replaced (with --dry-run: would be). Raises Conflict after a rollback."""
    project = session.project.select(list(names), dependencies=False)
    state = _supplied(session, project, "always" if pull else "")
    found = outdated_containers(project, state, names or project.services, force=force)
    policies = {name: policy_of(service, limit) for name, service in project.services.items()}
    if session.dry_run:
        for item, reason in found:
            order = "start-first" if policies[item.service].start_first else "stop-first"
            session.shell.say(f"replace container {item.name}, {order}  ({reason})")
    elif found:
        applier = session.applier(project, state)
        applier.know()
        try:
            Update(applier).run(found, policies)
        finally:
            session.progress.end()
    return len(found)


def _supplied(session: Session, project: Project, pull: str) -> State:
    wanted = images.needed(project)
    state = session.state(project, list(wanted.values()))
    supply = images.plan_images(project, state.images, datetime.now(UTC), pull=pull)
    if not supply or session.dry_run:
        return state
    carry_out(session, project, supply)
    return session.state(project, list(wanted.values()))


def outdated(session: Session, options: Options) -> int:
    rows = outdated_rows(session, session.chosen(session.project, options.words), registries=options.on("check"))
    columns = [
        Column("NAME", "Name"),
        Column("SERVICE", "Service"),
        Column("IMAGE", "Image", soft=True),
        Column("WHY", "Why"),
    ]
    return show(session.shell, options, rows, columns, key="Name")


def outdated_rows(session: Session, names: Sequence[str], *, registries: bool) -> list[dict[str, str]]:
    """Name, Service, Image and Why of each container that is out of date. ``registries``: ask them for newer images."""
    project = session.project.select(list(names), dependencies=False)
    wanted = images.needed(project)
    state = session.state(project, list(wanted.values()))
    rows = [
        {"Name": item.name, "Service": item.service, "Image": wanted[item.service], "Why": reason}
        for item, reason in outdated_containers(project, state, names or project.services)
    ]
    for image in sorted(set(wanted.values())) if registries else ():
        if _newer(session, image):
            rows += [
                {"Name": item.name, "Service": name, "Image": image, "Why": NEWER}
                for name in project.services
                if wanted[name] == image
                for item in state.of(name)
            ]
    return rows


def _newer(session: Session, image: str) -> bool:
    """Whether the registry's digest is none of those that the local image is known by."""
    here = or_none(lambda: session.client.request("GET", f"/images/{quote(image)}/json"))
    if here is None:
        return True
    try:
        there = session.client.request("GET", f"/distribution/{quote(image)}/json", headers=auths.header_for(image))
    except DockyardError as error:
        session.progress.warn(f"cannot ask for {image}: {error}")
        return False
    digest = (there.get("Descriptor") or {}).get("digest") or ""
    return bool(digest) and not any(name.endswith(digest) for name in here.get("RepoDigests") or [])
