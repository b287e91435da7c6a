"""Plans of the commands that act on what is there: down, stop, start, restart, kill, rm, pause. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dockyard.compose import labels
from dockyard.compose.labels import image_name
from dockyard.compose.observe import Container, State
from dockyard.compose.plan import ANONYMOUS, Operation, Plan, Verb
from dockyard.compose.project import Project, dependencies, levels

Json = dict[str, Any]


def plan_down(
    project: Project, state: State, services: Sequence[str] = (), *, volumes: bool = False, images: str = "",
    orphans: bool = False,
) -> Plan:  # fmt: skip
    """Containers in reverse order of dependency, then networks, volumes, images. ``images``: "", all or local."""
    chosen = set(services) or {*project.services, *project.disabled}
    operations = _stopped_and_removed(project, state, chosen, "down", removed=True)
    hooks = [item for item in state.containers if labels.HOOK in item.labels and item.service in chosen]
    operations += [one for item in hooks for one in _remove(item, "of a hook that failed", ())]
    if orphans:
        operations += [one for item in state.orphans(project) for one in _remove(item, "orphan", ())]
        once = [item for item in state.containers if item.oneoff and item not in hooks]
        operations += [one for item in once for one in _remove(item, "one-off", ())]
    elif not services and (left := state.orphans(project)):
        names = ", ".join(item.name for item in left)
        warning = f"Found orphan containers ({names}) for this project. --remove-orphans removes them."
        return Plan((*operations, *_things(project, state, operations, volumes, images)), (warning,))
    if services:
        return Plan(tuple(operations))
    return Plan((*operations, *_things(project, state, operations, volumes, images)))


def _things(project: Project, state: State, before: Iterable[Operation], volumes: bool, images: str) -> list[Operation]:
    """What is left when the containers are gone. Found by label too, so that it works without the file."""
    needs = tuple(one.key for one in before if one.verb == "remove")
    found = []
    for name, row in state.networks.items():
        if (row.get("Labels") or {}).get(labels.PROJECT) == project.name:
            found.append(Operation(f"remove network {name}", "remove network", f"Network {name}", "down", needs,
                                   target=row["Id"]))  # fmt: skip
    for name, row in state.volumes.items() if volumes else ():
        if (row.get("Labels") or {}).get(labels.PROJECT) == project.name:
            found.append(
                Operation(f"remove volume {name}", "remove volume", f"Volume {name}", "down", needs, target=name)
            )
    anonymous = {name for item in state.containers for name in item.volumes if volumes and _is_anonymous(state, name)}
    for name in sorted(anonymous):
        found.append(
            Operation(f"remove volume {name}", "remove volume", f"Volume {name}", ANONYMOUS, needs, target=name)
        )
    for image in sorted(_images(project, state, images)):
        found.append(Operation(f"remove image {image}", "remove image", f"Image {image}", "down", needs, target=image))
    return found


def _is_anonymous(state: State, name: str) -> bool:
    """One that a recreated container took over has a name for the engine, which then leaves it behind."""
    return "com.docker.volume.anonymous" in ((state.volumes.get(name) or {}).get("Labels") or {})


def _images(project: Project, state: State, which: str) -> set[str]:
    """``local``: only those without a name in the file."""
    found = set()
    for name, service in project.services.items():
        if which == "all" or (which == "local" and not service.get("image")):
            found.add(image_name(project.name, project.separator, name, service))
    return found if which else set()


def _stopped_and_removed(
    project: Project, state: State, chosen: set[str], reason: str, *, removed: bool
) -> list[Operation]:
    found: list[Operation] = []
    keys: dict[str, list[str]] = {}
    everything = {**project.disabled, **project.services}
    for level in reversed(levels(everything)):
        for name in level:
            dependents = [other for other, service in everything.items() if name in dependencies(service)]
            needs = tuple(key for other in dependents for key in keys.get(other, ()))
            keys[name] = list(needs)
            if name not in chosen:
                continue
            for item in state.of(name):
                made = _remove(item, reason, needs) if removed else _stop(item, reason, needs)
                found += made
                keys[name] += [one.key for one in made[-1:]]
    return found


def _stop(item: Container, reason: str, needs: tuple[str, ...]) -> list[Operation]:
    return [_on(item, "stop", reason, needs)] if item.running else []


def _remove(item: Container, reason: str, needs: tuple[str, ...]) -> list[Operation]:
    stop = _stop(item, reason, needs)
    return [*stop, _on(item, "remove", reason, tuple(one.key for one in stop) or needs)]


def _on(item: Container, verb: Verb, reason: str, needs: tuple[str, ...] = ()) -> Operation:
    return Operation(
        f"{verb} {item.name}", verb, f"Container {item.name}", reason, needs, item.service, item.number, item.id
    )


def plan_stop(project: Project, state: State, services: Sequence[str] = ()) -> Plan:
    chosen = set(services) or {*project.services, *project.disabled}
    return Plan(tuple(_stopped_and_removed(project, state, chosen, "asked for", removed=False)))


def plan_start(project: Project, state: State, services: Sequence[str] = ()) -> Plan:
    """Stopped containers, each after those that its service depends on."""
    found: list[Operation] = []
    keys: dict[str, list[str]] = {}
    for level in levels(project.services):
        for name in level:
            needs = tuple(key for other in dependencies(project.services[name]) for key in keys.get(other, ()))
            keys[name] = list(needs)
            for item in state.of(name) if not services or name in services else ():
                if not item.running:
                    found.append(_on(item, "start", f"is {item.state}", needs))
                    keys[name].append(found[-1].key)
    return Plan(tuple(found))


def plan_restart(project: Project, state: State, services: Sequence[str] = (), *, deps: bool = True) -> Plan:
    """With those that depend on a restarted service by ``restart: true``."""
    chosen = set(services) or set(project.services)
    if deps and services:
        for name, service in project.services.items():
            terms = dependencies(service)
            if any(other in chosen and terms[other].get("restart") for other in terms):
                chosen.add(name)
    found: list[Operation] = []
    keys: dict[str, list[str]] = {}
    for level in levels(project.services):
        for name in level:
            needs = tuple(key for other in dependencies(project.services[name]) for key in keys.get(other, ()))
            keys[name] = list(needs)
            for item in state.of(name) if name in chosen else ():
                found.append(_on(item, "restart", "asked for", needs))
                keys[name].append(found[-1].key)
    return Plan(tuple(found))


def plan_each(state: State, services: Sequence[str], verb: Verb, fits: Callable[[Container], bool]) -> Plan:
    """``verb`` on every fitting container, in any order: kill, pause, unpause."""
    rows = [item for item in state.containers if not item.oneoff and (not services or item.service in services)]
    return Plan(tuple(_on(item, verb, "asked for") for item in rows if fits(item)))


def plan_rm(state: State, services: Sequence[str], *, stop: bool) -> Plan:
    """Stopped containers; with ``stop`` the running ones too."""
    rows = [item for item in state.containers if not services or item.service in services]
    return Plan(tuple(one for item in rows if stop or not item.running for one in _remove(item, "asked for", ())))
