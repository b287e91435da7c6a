"""What the engine has of a project, found by labels: one picture, taken with a few requests at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from dockyard.client import Client, quote
from dockyard.compose import labels
from dockyard.compose.project import Project
from dockyard.errors import NotFound

Json = dict[str, Any]
Found = TypeVar("Found")
AT_ONCE = 4
"""As many connections as the client keeps."""


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of all calls, made by a few threads. Raises what the first failed one raised.

    Not concurrent.futures: it brings logging and costs a twentieth of what a whole no-op ``up`` may take.
    """
    results: list[Any] = [None] * len(calls)
    failures: list[BaseException] = []
    left = iter(enumerate(calls))
    lock = threading.Lock()

    def work() -> None:
        while not failures:
            with lock:
                index, call = next(left, (-1, None))
            if call is None:
                return
            try:
                results[index] = call()
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
                failures.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(AT_ONCE, len(calls)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results



@dataclass(frozen=True, slots=True)
class Container:
    """A container of the project, from its row in the listing (kept in ``row``)."""

    id: str
    name: str
    service: str
    number: int
    state: str
    image: str
    hash: str
    oneoff: bool
    row: Json = field(repr=False, compare=False)

    @property
    def running(self) -> bool:
        return self.state in {"running", "restarting", "paused"}

    @property
    def networks(self) -> dict[str, str]:
        """Network name to its ID."""
        found = (self.row.get("NetworkSettings") or {}).get("Networks") or {}
        return {name: str((terms or {}).get("NetworkID") or "") for name, terms in found.items()}

    @property
    def volumes(self) -> set[str]:
        return {mount.get("Name") or "" for mount in self.row.get("Mounts") or [] if mount.get("Type") == "volume"}

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.row.get("Labels") or {})

    @property
    def dependencies(self) -> dict[str, Json]:
        """What the label tells of ``depends_on``: for projects whose files are not at hand."""
        found = {}
        for item in filter(None, self.labels.get(labels.DEPENDENCIES, "").split(",")):
            name, _, terms = item.partition(":")
            condition, _, restart = terms.partition(":")
            found[name] = {"condition": condition or "service_started", "restart": restart == "true"}
        return found


@dataclass(frozen=True, slots=True)
class Image:
    """``volumes``: those that the image declares. ``tagged``: when it last got its name here (RFC 3339)."""

    id: str
    volumes: frozenset[str] = frozenset()
    tagged: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """``networks`` and ``volumes`` are all that the engine has, by name; whose they are tell their labels."""

    api: tuple[int, ...]
    containers: tuple[Container, ...] = ()
    networks: Mapping[str, Json] = field(default_factory=dict)
    volumes: Mapping[str, Json] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)

    def of(self, service: str) -> list[Container]:
        """The service's containers in order of number, without one-offs."""
        found = [item for item in self.containers if item.service == service and not item.oneoff]
        return sorted(found, key=lambda item: (item.number, item.name))

    def orphans(self, project: Project) -> list[Container]:
        known = {**project.disabled, **project.services}
        return [item for item in self.containers if item.service not in known and not item.oneoff]


def read_container(row: Json) -> Container:
    found = row.get("Labels") or {}
    number = found.get(labels.NUMBER, "")
    # A link gives a container further names, all with a second slash (/other/alias); its own has one.
    names = sorted((name.lstrip("/") for name in row.get("Names") or []), key=lambda name: (name.count("/"), name))
    return Container(
        id=row["Id"], name=names[0] if names else row["Id"][:12], service=found.get(labels.SERVICE, ""),
        number=int(number) if number.isdigit() else 0, state=row.get("State") or "", image=found.get(labels.IMAGE, ""),
        hash=found.get(labels.CONFIG_HASH, ""), oneoff=found.get(labels.ONEOFF) == "True" or labels.HOOK in found, row=row,
    )  # fmt: skip


def containers(client: Client, project: str, *, everything: bool = True) -> tuple[Container, ...]:
    """Those with the project's label; also the stopped ones."""
    rows = client.request(
        "GET", "/containers/json", {"all": everything, "filters": {"label": [f"{labels.PROJECT}={project}"]}}
    )
    return tuple(sorted((read_container(row) for row in rows or []), key=lambda item: (item.service, item.number)))


def observe(client: Client, project: Project, images: Iterable[str] = ()) -> State:
    """``images``: the references whose meaning is asked for; one that is not there is not in the result."""
    api = tuple(int(part) for part in client.version.split("."))
    wanted = sorted(set(images))
    found, networks, volumes, *inspected = at_once([
        lambda: containers(client, project.name), lambda: client.request("GET", "/networks"),
        lambda: client.request("GET", "/volumes"), *(partial(image, client, name) for name in wanted),
    ])  # fmt: skip
    return State(
        api=api, containers=found, networks={row["Name"]: row for row in networks or []},
        volumes={row["Name"]: row for row in (volumes or {}).get("Volumes") or []},
        images={name: one for name, one in zip(wanted, inspected, strict=True) if one is not None},
    )  # fmt: skip


def image(client: Client, name: str) -> Image | None:
    found = or_none(lambda: client.request("GET", f"/images/{quote(name)}/json"))
    if found is None:
        return None
    declared = (found.get("Config") or {}).get("Volumes") or {}
    return Image(found["Id"], frozenset(declared), (found.get("Metadata") or {}).get("LastTagTime") or "")


def or_none(ask: Callable[[], Found]) -> Found | None:
    """What ``ask`` gives; None when the engine has no such thing."""
    try:
        return ask()
    except NotFound:
        return None


def project_of(name: str, found: Iterable[Container]) -> Project:
    """A project as its containers' labels tell it, for commands that have a name and no file."""
    services: dict[str, Json] = {}
    directory = ""
    for item in found:
        if item.service and not item.oneoff:
            own = {key: value for key, value in item.labels.items() if key.startswith(labels.OURS)}
            services[item.service] = {"image": item.row.get("Image") or "", "depends_on": item.dependencies, "labels": own}
            directory = item.labels.get(labels.WORKING_DIR, directory)
    for service in services.values():
        service["depends_on"] = {key: terms for key, terms in service["depends_on"].items() if key in services}
    return Project(name=name, services=services, directory=directory)
