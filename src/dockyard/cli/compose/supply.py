"""``pull``, ``push`` and ``build``: images of services, brought, sent and made."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from dockyard.cli import auths
from dockyard.cli.compose.session import Session
from dockyard.cli.flags import Options
from dockyard.client import quote
from dockyard.compose import graph, images
from dockyard.compose.errors import PULL_FAILED
from dockyard.compose.graph import Stop
from dockyard.compose.plan import Operation
from dockyard.compose.progress import Event, Progress, Silent
from dockyard.compose.project import Project
from dockyard.errors import DockyardError

FLAGS = {
    "pull": """
    --ignore-buildable      Ignore images that can be built
    --ignore-pull-failures  Pull what can be pulled and go on
    --include-deps          Also pull services declared as dependencies
    --policy POLICY         missing or always
-q, --quiet                 Pull without printing progress information
""",
    "push": """
    --ignore-push-failures  Push what can be pushed and go on
    --include-deps          Also push images of services declared as dependencies
-q, --quiet                 Push without printing progress information
""",
    "build": """
    --build-arg KEY=VALUE...  Set build-time variables for services
    --no-cache                Do not use cache when building
    --pull                    Always attempt to pull a newer version of the image
-q, --quiet                   Don't print anything to standard output
    --with-dependencies       Also build dependencies
""",
}


def carry_out(session: Session, project: Project, operations: Sequence[Operation], *, quiet: bool = False) -> None:
    """Pulls and builds, in parallel. Raises Unavailable and System."""
    progress: Progress = Silent() if quiet else session.progress

    def work(one: Operation, stop: Stop) -> None:
        if one.verb == "pull":
            platform = str(project.services[one.service].get("platform") or "")
            images.pull(session.client, one, platform, auths.header_for(one.name), progress)
        else:
            from dockyard.compose import build

            build.build(session.client, project, one, progress, _registries(session), build.Extra(proxy=session.proxy))

    try:
        graph.run(operations, work, session.parallel)
    finally:
        session.progress.end()


def pull(session: Session, options: Options) -> int:
    names = session.chosen(session.project, options.words)
    project = session.project.select(names, dependencies=options.on("include-deps"))
    found: dict[str, Operation] = {}
    for name, image in images.needed(project).items():
        service = project.services[name]
        if not service.get("image") or (options.on("ignore-buildable") and service.get("build")):
            continue
        if service.get("pull_policy") not in {"never", "build"}:
            found.setdefault(
                image, Operation(f"pull {image}", "pull", f"Image {image}", "asked for", (), name, name=image)
            )
    if options.text("policy") == "missing":
        have = session.state(project, list(found)).images
        found = {image: one for image, one in found.items() if image not in have}
    return _all(session, project, list(found.values()), options, options.on("ignore-pull-failures"))


def _all(session: Session, project: Project, rows: list[Operation], options: Options, ignoring: bool) -> int:
    if session.dry_run:
        for one in rows:
            session.shell.say(f"{one.verb} {one.name}  ({one.reason})")
        return 0
    if not ignoring:
        carry_out(session, project, rows, quiet=options.on("quiet"))
        return 0
    for one in rows:
        try:
            carry_out(session, project, [one], quiet=options.on("quiet"))
        except DockyardError as error:
            session.progress.warn(str(error))
    return 0


def push(session: Session, options: Options) -> int:
    names = session.chosen(session.project, options.words)
    project = session.project.select(names, dependencies=options.on("include-deps"))
    found = {}
    for name, image in images.needed(project).items():
        if project.services[name].get("build") and project.services[name].get("image"):
            found[image] = Operation(f"push {image}", "pull", f"Image {image}", "asked for", (), name, name=image)
    progress: Progress = Silent() if options.on("quiet") else session.progress

    def work(one: Operation, stop: Stop) -> None:
        try:
            _push(session, one, progress)
        except DockyardError as error:
            progress.on(Event(one.subject, "Error", "error", str(error)))
            if not options.on("ignore-push-failures"):
                raise

    if session.dry_run:
        for image in found:
            session.shell.say(f"push {image}")
        return 0
    try:
        graph.run(list(found.values()), work, session.parallel)
    finally:
        session.progress.end()
    return 0


def _push(session: Session, one: Operation, progress: Progress) -> None:
    name, tag = images.split(one.name)
    progress.on(Event(one.subject, "Pushing"))
    headers = auths.header_for(one.name)
    for row in session.client.objects(
        "POST", f"/images/{quote(name)}/push", {"tag": tag}, headers=headers, timeout=600
    ):
        if row.get("error"):
            raise PULL_FAILED(image=one.name, cause=row["error"])
    progress.on(Event(one.subject, "Pushed", "done"))


def build(session: Session, options: Options) -> int:
    names = session.chosen(session.project, options.words)
    project = session.project.select(names, dependencies=options.on("with-dependencies"))
    found = [
        Operation(f"build {name}", "build", f"Service {name}", "asked for",
                  tuple(f"build {other}" for other in images.built_before(service)), name,
                  name=images.needed(project)[name])
        for name, service in project.services.items() if service.get("build")
    ]  # fmt: skip
    if not found:
        session.progress.warn("No services to build")
        return 0
    if session.dry_run:
        return _all(session, project, found, options, False)
    from dockyard.compose import build as builder

    extra = builder.Extra(
        args=tuple(options.all("build-arg")), no_cache=options.on("no-cache"), pull=options.on("pull"), proxy=session.proxy
    )
    progress: Progress = Silent() if options.on("quiet") else session.progress
    headers = _registries(session)
    try:
        graph.run(
            found,
            lambda one, stop: builder.build(session.client, project, one, progress, headers, extra),
            session.parallel,
        )
    finally:
        session.progress.end()
    return 0


def _registries(session: Session) -> dict[str, str]:
    """X-Registry-Config: what the client keeps of each registry, for the images that a build starts from."""
    kept = {server: auths.credentials(server) for server in session.config.get("auths") or {}}
    return {"X-Registry-Config": base64.urlsafe_b64encode(json.dumps(kept).encode()).decode()}
