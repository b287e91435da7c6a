"""The project: what the files say, in one form, whatever door they came through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from dockyard.compose.document import nearest
from dockyard.compose.errors import CYCLE, NO_SUCH_SERVICE, UNDEFINED

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Project:
    """Canonical services, networks, volumes, secrets and configs. ``disabled``: services whose profile is not active.

    ``legacy``: an old file without a version key; it lives on the default bridge with Engine links. ``compatibility``:
    names with underscores, as old ones had.
    """

    name: str
    services: dict[str, Json]
    networks: dict[str, Json] = field(default_factory=dict)
    volumes: dict[str, Json] = field(default_factory=dict)
    secrets: dict[str, Json] = field(default_factory=dict)
    configs: dict[str, Json] = field(default_factory=dict)
    disabled: dict[str, Json] = field(default_factory=dict)
    directory: str = ""
    files: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    legacy: bool = False
    compatibility: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def separator(self) -> str:
        return "_" if self.legacy or self.compatibility else "-"

    def service(self, name: str) -> Json:
        """Raises NotFound with the nearest name."""
        if name not in self.services:
            raise NO_SUCH_SERVICE(name=name, nearest=nearest(name, self.services))
        return self.services[name]

    def select(self, names: Iterable[str], *, dependencies: bool = True) -> Project:
        """Only these services and what they depend on; all when ``names`` is empty. The others are disabled. Raises
        NotFound."""
        wanted = list(names)
        if not wanted:
            return self
        kept: set[str] = set()
        while wanted:
            name = wanted.pop()
            if name not in kept:
                service = {**self.disabled, **self.services}.get(name) or self.service(name)
                kept.add(name)
                needs = dependencies_of(service) if dependencies else []
                wanted += [other for other in needs if other in self.services or other in self.disabled]
        everything = {**self.disabled, **self.services}
        return replace(
            self,
            services={name: item for name, item in everything.items() if name in kept},
            disabled={name: item for name, item in everything.items() if name not in kept},
        )


def dependencies(service: Json) -> dict[str, Json]:
    """``depends_on``, and what links and shared namespaces and volumes imply (compose-go's Normalize)."""
    found = {name: dict(terms or {}) for name, terms in (service.get("depends_on") or {}).items()}
    for link in service.get("links") or []:
        found.setdefault(link.split(":")[0], {"restart": True})
    for key in ("network_mode", "ipc", "pid", "uts", "cgroup"):
        mode = str(service.get(key) or "")
        if mode.startswith("service:"):
            found.setdefault(mode.removeprefix("service:"), {"restart": True})
    for item in service.get("volumes_from") or []:
        if not item.startswith("container:"):
            found.setdefault(item.split(":")[0], {})
    return found


def dependencies_of(service: Json) -> list[str]:
    """Services that must exist before this one."""
    return list(dependencies(service))


def check_references(project: Project) -> None:
    """Raises InvalidParameter for a name that is not defined, or a circle of dependencies."""
    for name, service in project.services.items():
        for other in dependencies_of(service):
            terms = (service.get("depends_on") or {}).get(other) or {}
            if other not in project.services and other not in project.disabled and terms.get("required", True):
                raise UNDEFINED(service=name, kind="service", name=other, nearest=nearest(other, project.services))
        for kind, used in (("network", service.get("networks") or {}), ("secret", service.get("secrets") or [])):
            for item in used:
                label = item if isinstance(item, str) else str(item.get("source"))
                known = project.networks if kind == "network" else project.secrets
                if label not in known:
                    raise UNDEFINED(service=name, kind=kind, name=label, nearest=nearest(label, known))
        for item in service.get("configs") or []:
            label = str(item.get("source"))
            if label not in project.configs:
                raise UNDEFINED(service=name, kind="config", name=label, nearest=nearest(label, project.configs))
        for mount in service.get("volumes") or []:
            source = mount.get("source")
            if mount["type"] == "volume" and source and source not in project.volumes and not project.legacy:
                raise UNDEFINED(service=name, kind="volume", name=source, nearest=nearest(source, project.volumes))
    levels(project.services)


def levels(services: dict[str, Json]) -> list[list[str]]:
    """Services in the order they can start: each list needs only those before it. A circle is InvalidParameter."""
    left = {name: {item for item in dependencies_of(service) if item in services} for name, service in services.items()}
    order: list[list[str]] = []
    while left:
        ready = sorted(name for name, needs in left.items() if not needs & set(left))
        if not ready:
            raise CYCLE(path=_circle(left))
        order.append(ready)
        for name in ready:
            del left[name]
    return order


def _circle(left: dict[str, set[str]]) -> str:
    name = min(left)
    path: list[str] = []
    while name not in path:
        path.append(name)
        name = min(left[name] & set(left))
    return " -> ".join([*path[path.index(name) :], name])
