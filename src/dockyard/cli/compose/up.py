"""``up``, ``create`` and ``scale``: what is there is brought to what the files say."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from datetime import UTC, datetime

from dockyard.cli.compose.session import Session, balancer_of, scaled
from dockyard.cli.flags import Options, UsageError
from dockyard.compose import images
from dockyard.compose.canonical import boolean
from dockyard.compose.errors import NO_SERVICE, ORPHANS_BOTH
from dockyard.compose.observe import State
from dockyard.compose.plan import Plan, Policy, UpOptions, diverged_volumes, plan_up
from dockyard.compose.project import Project
from dockyard.errors import InvalidParameter

_SHARED = """
    --build                 Build images before starting containers
    --force-recreate        Recreate containers even if their configuration and image haven't changed
    --no-build              Don't build an image, even if it's policy
    --no-recreate           If containers already exist, don't recreate them
    --pull POLICY           Pull image before running (always, missing, never)
    --quiet-pull            Pull without printing progress information
    --remove-orphans        Remove containers for services not defined in the Compose file
    --scale SERVICE=NUM...  Scale SERVICE to NUM instances
-y, --yes                   Assume "yes" as answer to all prompts
"""
FLAGS = {
    "up": """
    --abort-on-container-exit  Stops all containers if any container was stopped
    --abort-on-container-failure  Stops all containers if any container exited with failure
    --always-recreate-deps  Recreate dependent containers
    --attach SERVICE...     Attach to the named services only
    --attach-dependencies   Attach to log output of dependencies too
-d, --detach                Run containers in the background
    --exit-code-from SERVICE  Return the exit code of this service's container
    --no-attach SERVICE...  Do not attach to these services
    --no-color              Produce monochrome output
    --no-deps               Don't start linked services
    --no-log-prefix         Don't print prefix in logs
    --no-start              Don't start the services after creating them
-V, --renew-anon-volumes    Recreate anonymous volumes instead of keeping their data
-t, --timeout N             Seconds of grace when containers are stopped
    --timestamps            Show timestamps
    --wait                  Wait for services to be running|healthy; implies --detach
    --wait-timeout N        Longest wait in seconds
-w, --watch                 Watch source code and refresh containers when files are updated
"""
    + _SHARED.lstrip("\n"),
    "create": _SHARED,
    "scale": "    --no-deps  Don't start linked services",
}


def up(session: Session, options: Options) -> int:
    _check(options)
    project = _selected(session, options)
    plan, state, project = prepare(session, project, options, _up_options(session, options, project))
    detached = (
        options.on("detach") or options.on("watch") or options.on("wait") or options.on("no-start") or session.dry_run
    )
    limit = float(options.number("wait-timeout")) if options.given("wait-timeout") else None
    timeout = options.number("timeout") if options.given("timeout") else None
    if detached:
        session.carry_out(project, state, plan, timeout=timeout, wait_timeout=limit)
        _tell_of_balancer(session, project)
        if options.on("watch") and not session.dry_run:
            from dockyard.cli.compose.watch import watch

            return watch(session, Options({"no-up": ["true"]}, options.words))
        return 0
    from dockyard.cli.compose.attached import Attached

    return Attached(session, project, state, plan, options).run()


def _tell_of_balancer(session: Session, project: Project) -> None:
    if session.dry_run or balancer_of(project.name, str(session.client.endpoint)).exists():
        return
    from dockyard.compose.layout import layout_of

    with contextlib.suppress(InvalidParameter):  # `balance` says what is wrong with its keys
        if layout_of(project).fronts:
            session.shell.complain("requests are balanced once this runs: dockyard compose balance -d")


def create(session: Session, options: Options) -> int:
    _check(options)
    project = _selected(session, options)
    chosen = dataclasses.replace(_up_options(session, options, project), start=False)
    plan, state, project = prepare(session, project, options, chosen)
    session.carry_out(project, state, plan)
    return 0


def scale(session: Session, options: Options) -> int:
    project = scaled(session.project, options.words)
    names = [word.partition("=")[0] for word in options.words]
    project = project.select(names, dependencies=not options.on("no-deps"))
    chosen = UpOptions(selected=frozenset(names), recreate="never", recreate_dependencies="never", ignore_orphans=True)
    plan, state, project = prepare(session, project, options, chosen)
    session.carry_out(project, state, plan)
    return 0


def _check(options: Options) -> None:
    clashes = (
        ("force-recreate", "no-recreate"), ("build", "no-build"), ("detach", "abort-on-container-exit"),
        ("abort-on-container-exit", "abort-on-container-failure"), ("no-recreate", "always-recreate-deps"),
        ("detach", "attach-dependencies"),
    )  # fmt: skip
    for one, other in clashes:
        if options.on(one) and options.on(other):
            raise UsageError(f"--{one} and --{other} are incompatible")


def _selected(session: Session, options: Options) -> Project:
    project = session.project
    names = session.chosen(project, options.words)
    project = scaled(project.select(names, dependencies=not options.on("no-deps")), options.all("scale"))
    if not project.services:
        raise NO_SERVICE()
    if options.text("exit-code-from"):
        project.service(options.text("exit-code-from"))
    return project


def _up_options(session: Session, options: Options, project: Project) -> UpOptions:
    policy: Policy = "force" if options.on("force-recreate") else "never" if options.on("no-recreate") else "diverged"
    ignored = boolean(session.environment.get("COMPOSE_IGNORE_ORPHANS", ""))
    removed = options.on("remove-orphans", boolean(session.environment.get("COMPOSE_REMOVE_ORPHANS", "")))
    if ignored and removed:
        raise ORPHANS_BOTH()
    dependencies: Policy = (
        "force" if options.on("always-recreate-deps") else "never" if policy == "never" else "diverged"
    )
    return UpOptions(
        selected=frozenset(options.words), recreate=policy, recreate_dependencies=dependencies,
        inherit=not options.on("renew-anon-volumes"), start=not options.on("no-start"), wait=options.on("wait"),
        remove_orphans=removed, ignore_orphans=ignored,
    )  # fmt: skip


def prepare(session: Session, project: Project, options: Options, chosen: UpOptions) -> tuple[Plan, State, Project]:
    """Asks the providers, brings the images, looks at the engine, plans."""
    project = _provided(session, project)
    wanted = [*images.needed(project).values(), *images.of_hooks(project)]
    state = session.state(project, wanted)
    supply = images.plan_images(
        project, state.images, datetime.now(UTC), pull=options.text("pull"), build=options.on("build"),
        no_build=options.on("no-build"),
    )  # fmt: skip
    if supply and not session.dry_run:
        from dockyard.cli.compose.supply import carry_out

        carry_out(session, project, supply, quiet=options.on("quiet-pull"))
        state = session.state(project, wanted)
    chosen = dataclasses.replace(chosen, renewed=frozenset(_renewed(session, project, state, options)))
    plan = plan_up(project, state, chosen)
    if session.dry_run:
        plan = dataclasses.replace(plan, operations=(*supply, *plan.operations))
    return plan, state, project


def _provided(session: Session, project: Project) -> Project:
    named = [name for name, service in project.services.items() if service.get("provider")]
    if not named:
        return project
    if session.dry_run:
        for name in named:
            session.shell.say(f"ask provider {project.services[name]['provider'].get('type')} for {name}")
        services = {name: service for name, service in project.services.items() if name not in named}
        return dataclasses.replace(project, services=services)
    from dockyard.compose.provider import provided

    return provided(project, session.progress)


def _renewed(session: Session, project: Project, state: State, options: Options) -> list[str]:
    """Volumes that may be made anew, with loss of their data: asked for each, on a terminal only."""
    agreed = []
    for key in diverged_volumes(project, state):
        name = project.volumes[key]["name"]
        if options.on("yes"):
            agreed.append(key)
        elif sys.stdin.isatty() and not session.dry_run:
            sys.stderr.write(f"Volume {name} exists but doesn't match the file. Recreate (data will be lost)? [y/N] ")
            sys.stderr.flush()
            if sys.stdin.readline().strip().lower() in {"y", "yes"}:
                agreed.append(key)
    return agreed
