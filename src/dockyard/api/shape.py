"""What older API versions see differently, as a table (moby api/docs/CHANGELOG.md, daemon/server/router compat code).

The engine makes documents in the newest form. A row names the route, the first version that no longer needs it, and
what is done to the document for clients below that. Only JSON documents at hand are shaped; streams are all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from dockyard.api.routes import Route
from dockyard.http import Answer, Response

Json = Any
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Shaping:
    path: str
    below: tuple[int, int]
    change: Callable[[Json], Json]
    why: str


def _each(change: Callable[[dict[str, Any]], None]) -> Callable[[Json], Json]:
    def apply(document: Json) -> Json:
        for row in document or []:
            change(row)
        return document

    return apply


def _one(change: Callable[[dict[str, Any]], None]) -> Callable[[Json], Json]:
    def apply(document: Json) -> Json:
        if isinstance(document, dict):
            change(document)
        return document

    return apply


def _virtual_size(image: dict[str, Any]) -> None:
    image["VirtualSize"] = image.get("Size", 0)


def _container_config(image: dict[str, Any]) -> None:
    image.setdefault("ContainerConfig", image.get("Config") or {})
    image.setdefault("Container", "")


def _without(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for name in names:
            document.pop(name, None)

    return change


def _swap(document: dict[str, Any]) -> None:
    document.setdefault("KernelMemory", True)
    document.setdefault("KernelMemoryTCP", True)


TABLE: tuple[Shaping, ...] = (
    Shaping("/images/json", (1, 44), _each(_virtual_size), "VirtualSize was removed in 1.44"),
    Shaping("/images/{name}/json", (1, 44), _one(_virtual_size), "VirtualSize was removed in 1.44"),
    Shaping("/images/{name}/json", (1, 45), _one(_container_config), "ContainerConfig was removed in 1.45"),
    Shaping("/images/json", (1, 47), _each(_without("Manifests")), "Manifests came with 1.47"),
    Shaping("/images/json", (1, 48), _each(_without("Descriptor")), "Descriptor came with 1.48"),
    Shaping("/images/{name}/json", (1, 48), _one(_without("Descriptor", "Manifests")), "came with 1.48"),
    Shaping("/containers/{id}/json", (1, 48), _one(_without("ImageManifestDescriptor")), "came with 1.48"),
    Shaping("/containers/json", (1, 48), _each(_without("ImageManifestDescriptor")), "came with 1.48"),
    Shaping("/info", (1, 42), _one(_swap), "KernelMemory was removed in 1.42"),
    Shaping("/info", (1, 46), _one(_without("Containerd")), "Containerd came with 1.46"),
    Shaping("/info", (1, 49), _one(_without("FirewallBackend")), "FirewallBackend came with 1.49"),
    Shaping("/info", (1, 50), _one(_without("DiscoveredDevices")), "DiscoveredDevices came with 1.50"),
    Shaping("/version", (1, 35), _one(_without("Components", "Platform")), "Components came with 1.35"),
    Shaping("/networks", (1, 48), _each(_without("EnableIPv4")), "EnableIPv4 came with 1.48"),
    Shaping("/networks/{id}", (1, 48), _one(_without("EnableIPv4")), "EnableIPv4 came with 1.48"),
)

_BY_PATH: dict[str, list[Shaping]] = {}
for _row in TABLE:
    _BY_PATH.setdefault(_row.path, []).append(_row)


OLD_COMPOSE, ITS_TIME = "docker-compose/1.", (1, 41)


def seen_by(agent: str, version: tuple[int, int]) -> tuple[int, int]:
    """The version whose documents a client can read. docker-compose 1.x asks for the newest that there is and reads it as
    in its own time: without ContainerConfig it ends with a KeyError whenever it makes a container anew."""
    return min(version, ITS_TIME) if agent.startswith(OLD_COMPOSE) else version


def shaped(route: Route, version: tuple[int, int], answer: Answer) -> Answer:
    """The answer as a client of ``version`` expects it."""
    rows = [row for row in _BY_PATH.get(route.path, ()) if version < row.below]
    if not rows or route.method != "GET" or not isinstance(answer, Response) or answer.status != 200:
        return answer
    document = msgspec.json.decode(answer.body)
    for row in rows:
        document = row.change(document)
    return Response(200, {"Content-Type": "application/json"}, _encode(document) + b"\n")
