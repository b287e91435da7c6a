"""What must be done so that the engine has what the files say: a graph of operations, each with its reason. Pure.

::

    network, volume ──► create ──► (stop ► remove ► rename) ──► start ──► wait ──► start of those that depend on it
                          ▲                                       ▲
                 whose namespaces, volumes          depends_on: start of each, or its wait
                 or links it shares

An operation is one call to the engine (`apply` knows how); ``needs`` are the keys of those that must be done before. A
container made anew is created under a temporary name first, so that the old one stands for as short as can be.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dockyard.compose import labels
from dockyard.compose.canonical import boolean
from dockyard.compose.errors import NO_EXTERNAL, NOT_YET, ONE_NAME
from dockyard.compose.identity import accepted_hashes, network_hash, volume_hash
from dockyard.compose.observe import Container, State
from dockyard.compose.project import Project, dependencies, levels
from dockyard.compose.translate import SHARED, resolve

Json = dict[str, Any]
Verb = Literal[
    "pull", "build", "create network", "remove network", "disconnect", "create volume", "remove volume", "create",
    "start", "stop", "remove", "rename", "wait", "kill", "restart", "pause", "unpause", "remove image", "pre_start",
]  # fmt: skip
Policy = Literal["diverged", "force", "never"]
MISSING = ("models", "use_api_socket", "credential_spec")
"""Keys that must not be passed over in silence: without them the service would not be what its file says."""
SWARM = ("mode", "endpoint_mode", "placement", "rollback_config")
"""Keys of ``deploy`` that mean something to swarm only; Docker Compose passes them over too."""
STARTED, HEALTHY = "service_started", "service_healthy"
ANEW, ANONYMOUS = "made anew", "anonymous"
"""Reasons of operations that are no news of their own: parts of a recreation, volumes that went with a container."""
COMPLETED, READY = "service_completed_successfully", "running_or_healthy"


@dataclass(frozen=True, slots=True)
class Operation:
    """``subject`` is what people see (``Container shop-web-1``), ``target`` the ID or name that the engine is given.

    ``name``: what a thing is to be called. ``replaced``: the container that a created one stands in for.
    """

    key: str
    verb: Verb
    subject: str
    reason: str = ""
    needs: tuple[str, ...] = ()
    service: str = ""
    number: int = 0
    target: str = ""
    name: str = ""
    condition: str = ""
    required: bool = True
    replaced: Container | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """``unchanged``: containers that run and are as the file says."""

    operations: tuple[Operation, ...] = ()
    warnings: tuple[str, ...] = ()
    unchanged: tuple[Container, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.operations)


@dataclass(frozen=True, slots=True)
class UpOptions:
    """``selected``: services that were named, none for all; others are there as dependencies. ``renewed``: volumes that
    differ from the file and of which the user said that they may be made anew, with loss of their data."""

    selected: frozenset[str] = frozenset()
    recreate: Policy = "diverged"
    recreate_dependencies: Policy = "diverged"
    inherit: bool = True
    start: bool = True
    wait: bool = False
    remove_orphans: bool = False
    ignore_orphans: bool = False
    renewed: frozenset[str] = frozenset()


def scale(service: Json) -> int:
    if service.get("scale") is not None:
        return int(service["scale"])
    replicas = (service.get("deploy") or {}).get("replicas")
    return 1 if replicas is None else int(replicas)


def plan_up(project: Project, state: State, options: UpOptions) -> Plan:
    """Raises NotFound for external things that are missing, InvalidParameter for a name that cannot be scaled, and
    NotImplemented for keys that we do not have."""
    builder = _Up(project, state, options)
    for level in levels(project.services):
        for name in level:
            builder.service(name)
            builder.hooks(name)
    builder.orphans()
    if options.wait and options.start:
        builder.wait_for_all()
    return Plan(tuple(builder.operations.values()), tuple(builder.warnings), tuple(builder.unchanged))


def outdated(project: Project, state: State, services: Iterable[str], *, force: bool = False) -> list[tuple[Container, str]]:
    """Running containers of the services that are not as the file says, and why; with ``force`` all of them."""
    builder = _Up(project, state, UpOptions(recreate="force" if force else "diverged"))
    found = []
    for name in services:
        for item in state.of(name):
            reason = builder.outdated(name, project.services[name], item) if item.running else ""
            found += [(item, reason)] if reason else []
    return found


def diverged_volumes(project: Project, state: State) -> list[str]:
    """Keys of volumes that the engine has, that are the project's, and that the file describes otherwise now."""
    found = []
    for key, entry in project.volumes.items():
        row = (state.volumes.get(entry["name"]) or {}).get("Labels") or {}
        told = row.get(labels.CONFIG_HASH)
        if (
            not entry.get("external")
            and row.get(labels.PROJECT) == project.name
            and told not in (None, volume_hash(entry))
        ):
            found.append(key)
    return found


@dataclass(slots=True)
class _Up:
    project: Project
    state: State
    options: UpOptions
    operations: dict[str, Operation] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    unchanged: list[Container] = field(default_factory=list)
    made: dict[str, list[str]] = field(default_factory=dict)
    """Service to the keys after which its containers are there, under their names."""
    started: dict[str, list[str]] = field(default_factory=dict)
    anew: set[str] = field(default_factory=set)
    """Services of which a container is made anew."""
    checked: dict[str, str] = field(default_factory=dict)
    """Network or volume name to the key of the operation that makes it, "" when it is there."""

    def add(self, operation: Operation) -> str:
        self.operations.setdefault(operation.key, operation)
        return operation.key

    def need(self, key: str, more: str) -> None:
        if key in self.operations and more not in self.operations[key].needs:
            self.operations[key] = replace(self.operations[key], needs=(*self.operations[key].needs, more))

    # Services

    def service(self, name: str) -> None:
        service = self.project.services[name]
        for key in MISSING:
            if service.get(key):
                raise NOT_YET(service=name, key=key)
        if any(boolean(hook.get("per_replica", False)) for hook in service.get("pre_start") or []):
            raise NOT_YET(service=name, key="pre_start.per_replica")
        passed_over = [f"deploy.{key}" for key in SWARM if _asked((service.get("deploy") or {}).get(key))]
        if passed_over:
            self.warnings.append(f'service "{name}": {", ".join(passed_over)}: for swarm only, without effect here')
        self.made[name], self.started[name] = [], []
        expected, given = scale(service), str(service.get("container_name") or "")
        if expected > 1 and given:
            raise ONE_NAME(service=name, name=given, scale=expected)
        needs = self.resources(service)
        found = self.state.of(name)
        why = {item.id: self.outdated(name, service, item) for item in found}
        # Those that are up to date stay first, then low numbers.
        ordered = sorted(found, key=lambda item: (bool(why[item.id]), item.number))
        for item in ordered[expected:]:
            self.remove(item, f"{expected} wanted, this is one too many")
        for item in sorted(ordered[:expected], key=lambda item: item.number):
            if why[item.id]:
                self.replace(item, name, why[item.id], needs)
            else:
                self.keep(item, name)
        following = max((item.number for item in found), default=0) + 1
        for number in range(following, following + expected - len(found)):
            self.create(name, number, "not there yet" if not found else f"{expected} wanted, {len(found)} there", needs)

    def outdated(self, name: str, service: Json, item: Container) -> str:
        """Why the container cannot stay; "" when it can."""
        chosen = not self.options.selected or name in self.options.selected
        policy = self.options.recreate if chosen else self.options.recreate_dependencies
        if policy == "never":
            return ""
        if policy == "force":
            return "forced"
        for key, what in SHARED.items():
            mode = str(service.get(key) or "").removeprefix("service:")
            if mode in self.anew:
                return f"shares the {what} of {mode}, which is made anew"
        sources = [str(source).split(":")[0] for source in service.get("volumes_from") or []]
        for source in sources:
            if source in self.anew:
                return f"has volumes of {source}, which is made anew"
        ids = {one.service: [(one.id, one.name) for one in self.state.of(one.service)] for one in self.state.containers}
        shared = [str(service.get(key) or "").removeprefix("service:") for key in SHARED]
        if any(one in self.project.services and not ids.get(one) for one in [*shared, *sources]):
            return "shares with a service that is made now"
        if item.hash not in accepted_hashes(resolve(service, ids)) | accepted_hashes(service):
            return "configuration changed"
        image = self.state.images.get(labels.image_name(self.project.name, self.project.separator, name, service))
        if image is not None and item.image != image.id:
            return "image changed"
        return self.detached(service, item)

    def detached(self, service: Json, item: Container) -> str:
        for key in (service.get("networks") or {}) if item.state == "running" else ():
            network = self.project.networks[key]["name"]
            if self.checked.get(f"network {network}"):
                return f"network {network} is made anew"
            wanted = (self.state.networks.get(network) or {}).get("Id")
            if wanted not in item.networks.values() and item.networks.get(network) != "":
                return f"not connected to network {network}"
        for volume in service.get("volumes") or []:
            entry = self.project.volumes.get(volume.get("source") or "")
            if volume["type"] == "volume" and entry is not None:
                if self.checked.get(f"volume {entry['name']}"):
                    return f"volume {entry['name']} is made anew"
                if entry["name"] not in item.volumes:
                    return f"does not have volume {entry['name']}"
        return ""

    def keep(self, item: Container, name: str) -> None:
        terms = dependencies(self.project.services[name])
        again = [other for other in terms if terms[other].get("restart") and other in self.anew]
        if item.running and again and self.options.start:
            stop = self.add(Operation(f"stop {item.name}", "stop", _shown(item), f"restarts with {again[0]}", (), name,
                                      item.number, item.id))  # fmt: skip
            for other in again:
                for one in self.state.of(other):
                    self.need(f"stop {one.name}", stop)
            self.start(item.name, name, item.number, f"{again[0]} is made anew", (stop,), item.id)
        elif item.running:
            self.unchanged.append(item)
        else:
            self.start(item.name, name, item.number, f"is {item.state}", (), item.id)

    def create(self, name: str, number: int, reason: str, needs: tuple[str, ...]) -> None:
        given = str(self.project.services[name].get("container_name") or "")
        called = labels.container_name(self.project.name, self.project.separator, name, number, given)
        key = self.add(Operation(
            f"create {called}", "create", f"Container {called}", reason, (*needs, *self.after_shared(name)), name, number,
            name=called,
        ))  # fmt: skip
        self.made[name].append(key)
        self.start(called, name, number, reason, (key,))

    def replace(self, item: Container, name: str, reason: str, needs: tuple[str, ...]) -> None:
        self.anew.add(name)
        given = str(self.project.services[name].get("container_name") or "")
        called = labels.container_name(self.project.name, self.project.separator, name, item.number, given)
        needs = (*needs, *self.after_shared(name))
        inherits = item if self.options.inherit else None
        common = {"service": name, "number": item.number}
        if f"remove {item.name}" in self.operations:  # a volume of its goes: it is removed before
            key = self.add(Operation(f"create {called}", "create", f"Container {called}", reason, needs, name=called,
                                     **common))  # type: ignore[arg-type]  # fmt: skip
        else:
            temporary = self.add(Operation(
                f"create {called}", "create", f"Container {called}", reason, needs, name=f"{item.id[:12]}_{called}",
                replaced=inherits or item, condition="" if inherits else "renew", **common,  # type: ignore[arg-type]
            ))  # fmt: skip
            last = temporary
            if item.running:
                last = self.add(Operation(f"stop {item.name}", "stop", _shown(item), ANEW, (), target=item.id,
                                          **common))  # type: ignore[arg-type]  # fmt: skip
                self.need(last, temporary) if not self.frees_network(item) else None
            gone = self.add(Operation(f"remove {item.name}", "remove", _shown(item), ANEW, (temporary, last),
                                      target=item.id, **common))  # type: ignore[arg-type]  # fmt: skip
            key = self.add(Operation(f"rename {called}", "rename", f"Container {called}", reason, (gone,), name=called,
                                     **common))  # type: ignore[arg-type]  # fmt: skip
        self.made[name].append(key)
        self.start(called, name, item.number, reason, (key,))

    def frees_network(self, item: Container) -> bool:
        return any(one.verb == "disconnect" and one.target == item.id for one in self.operations.values())

    def remove(self, item: Container, reason: str) -> str:
        needs = ()
        if item.running:
            stop = Operation(f"stop {item.name}", "stop", _shown(item), reason, (), item.service, item.number, item.id)
            needs = (self.add(stop),)  # type: ignore[assignment]
        return self.add(Operation(
            f"remove {item.name}", "remove", _shown(item), reason, needs, item.service, item.number, item.id
        ))  # fmt: skip

    def start(self, called: str, name: str, number: int, reason: str, needs: tuple[str, ...], target: str = "") -> None:
        if self.options.start:
            key = self.add(Operation(
                f"start {called}", "start", f"Container {called}", reason, (*needs, *self.after_dependencies(name)), name,
                number, target,
            ))  # fmt: skip
            self.started[name].append(key)

    def hooks(self, name: str) -> None:
        """pre_start: once before the first replica starts, when none runs on."""
        starts = [one for one in self.operations.values() if one.verb == "start" and one.service == name]
        if not starts or not self.project.services[name].get("pre_start") or any(one.service == name for one in self.unchanged):
            return
        needs = tuple(dict.fromkeys(key for one in starts for key in one.needs))
        key = self.add(Operation(f"pre_start {name}", "pre_start", f"Service {name}", "before its start", needs, name))
        for one in starts:
            self.need(one.key, key)

    # What a service waits for

    def after_shared(self, name: str) -> tuple[str, ...]:
        """Containers whose IDs or names go into this service's document."""
        service = self.project.services[name]
        others = [link.split(":")[0] for link in service.get("links") or []]
        others += [str(item).split(":")[0] for item in service.get("volumes_from") or []]
        others += [str(service.get(key) or "").removeprefix("service:") for key in SHARED]
        return tuple(key for other in others for key in self.made.get(other, ()))

    def after_dependencies(self, name: str) -> tuple[str, ...]:
        found: list[str] = []
        for other, terms in dependencies(self.project.services[name]).items():
            if other not in self.project.services:
                continue
            condition = str(terms.get("condition") or STARTED)
            target = self.project.services[other]
            if condition == STARTED or scale(target) == 0:
                found += self.started[other]
            else:
                found.append(self.wait(other, condition, bool(terms.get("required", True))))
        return tuple(dict.fromkeys(found))

    def wait(self, name: str, condition: str, required: bool = True) -> str:
        kind = "" if required else " (optional)"
        return self.add(Operation(
            f"wait {name} {condition}{kind}", "wait", f"Service {name}", _CONDITIONS.get(condition, condition),
            tuple(self.started[name]), name, condition=condition, required=required,
        ))  # fmt: skip

    def wait_for_all(self) -> None:
        for name, service in self.project.services.items():
            chosen = not self.options.selected or name in self.options.selected
            if chosen and scale(service):
                ends = any(
                    (other.get("depends_on") or {}).get(name, {}).get("condition") == COMPLETED
                    for other in self.project.services.values()
                )
                self.wait(name, COMPLETED if ends else READY)

    # Networks, volumes, orphans

    def resources(self, service: Json) -> tuple[str, ...]:
        keys = [self.network(key) for key in service.get("networks") or {}]
        sources = [volume.get("source") for volume in service.get("volumes") or [] if volume["type"] == "volume"]
        keys += [self.volume(source) for source in sources if source in self.project.volumes]
        return tuple(key for key in dict.fromkeys(keys) if key)

    def network(self, key: str) -> str:
        entry = self.project.networks[key]
        name, row = entry["name"], self.state.networks.get(entry["name"])
        if f"network {name}" not in self.checked:
            self.checked[f"network {name}"] = self.make_network(key, entry, row)
        return self.checked[f"network {name}"]

    def make_network(self, key: str, entry: Json, row: Json | None) -> str:
        name = entry["name"]
        if entry.get("external"):
            known = row is not None or any(one.get("Id") == name for one in self.state.networks.values())
            if not known and name not in {"host", "none", "bridge"}:
                raise NO_EXTERNAL(kind="network", name=name)
            return ""
        operation = Operation(f"create network {name}", "create network", f"Network {name}", "not there yet", name=key)
        if row is None:
            return self.add(operation)
        own = row.get("Labels") or {}
        if own.get(labels.PROJECT) != self.project.name:
            self.warnings.append(_not_ours("a network with name", name, own, self.project.name))
            return ""
        if own.get(labels.CONFIG_HASH) in (None, "", network_hash(entry)):
            return ""
        free = []
        for item in self.state.containers:
            if name in item.networks:
                stop = self.add(Operation(f"stop {item.name}", "stop", _shown(item), f"network {name} changed", (),
                                          item.service, item.number, item.id)) if item.running else ""  # fmt: skip
                free.append(self.add(Operation(
                    f"disconnect {item.name} {name}", "disconnect", _shown(item), f"network {name} changed",
                    (stop,) if stop else (), item.service, item.number, item.id, name,
                )))  # fmt: skip
        gone = self.add(Operation(f"remove network {name}", "remove network", f"Network {name}", "configuration changed",
                                  tuple(free), target=row["Id"]))  # fmt: skip
        return self.add(replace(operation, reason="configuration changed", needs=(gone,)))

    def volume(self, key: str) -> str:
        entry = self.project.volumes[key]
        if f"volume {entry['name']}" not in self.checked:
            self.checked[f"volume {entry['name']}"] = self.make_volume(key, entry)
        return self.checked[f"volume {entry['name']}"]

    def make_volume(self, key: str, entry: Json) -> str:
        name, row = entry["name"], self.state.volumes.get(entry["name"])
        if entry.get("external"):
            if row is None:
                raise NO_EXTERNAL(kind="volume", name=name)
            return ""
        operation = Operation(f"create volume {name}", "create volume", f"Volume {name}", "not there yet", name=key)
        if row is None:
            return self.add(operation)
        own = row.get("Labels") or {}
        if own.get(labels.PROJECT) != self.project.name:
            self.warnings.append(_not_ours("volume", name, own, self.project.name))
        if key not in diverged_volumes(self.project, self.state):
            return ""
        if key not in self.options.renewed:
            self.warnings.append(f"volume {name} exists but doesn't match the file; it is kept as it is")
            return ""
        users = [self.remove(item, f"volume {name} changed") for item in self.state.containers if name in item.volumes]
        gone = self.add(Operation(f"remove volume {name}", "remove volume", f"Volume {name}", "configuration changed",
                                  tuple(users), target=name))  # fmt: skip
        return self.add(replace(operation, reason="configuration changed", needs=(gone,)))

    def orphans(self) -> None:
        found = self.state.orphans(self.project)
        if self.options.remove_orphans:
            for item in found:
                self.remove(item, "its service is not in the file any more")
        elif found and not self.options.ignore_orphans:
            names = ", ".join(item.name for item in found)
            self.warnings.append(
                f"Found orphan containers ({names}) for this project. If you removed or renamed this service in your "
                "compose file, you can run this command with the --remove-orphans flag to clean it up."
            )


def _asked(value: Any) -> bool:
    return value not in (None, "", {}, "replicated", "vip")


_CONDITIONS = {HEALTHY: "until it is healthy", COMPLETED: "until it has completed", READY: "until it is ready"}


def _shown(item: Container) -> str:
    return f"Container {item.name}"


def _not_ours(what: str, name: str, own: Json, project: str) -> str:
    whose = own.get(labels.PROJECT)
    made = f"was created for project {whose!r}, not {project!r}" if whose else "was not created by compose"
    return f"{what} {name} exists but {made}. Set `external: true` to use an existing one"


def in_order(operations: Iterable[Operation]) -> list[Operation]:
    """The operations so that each comes after what it needs: for reading."""
    left = {one.key: one for one in operations}
    ordered: list[Operation] = []
    while left:
        ready = [one for one in left.values() if not any(key in left for key in one.needs)]
        for one in ready or list(left.values()):
            ordered.append(one)
            del left[one.key]
    return ordered
