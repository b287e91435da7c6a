"""What old clients are told of an image: without ContainerConfig docker-compose 1.x ends with a KeyError."""

from __future__ import annotations

import json

import pytest

from dockyard.api.routes import find
from dockyard.api.shape import seen_by, shaped
from dockyard.http import Response

IMAGE = {"Id": "sha256:1", "Size": 7, "Config": {"Volumes": {"/data": {}}}}


def inspected(agent: str, version: tuple[int, int]) -> dict[str, object]:
    found = find("GET", "/images/x/json")
    assert found is not None
    answer = shaped(found[0], seen_by(agent, version), Response(200, {}, json.dumps(IMAGE).encode()))
    assert isinstance(answer, Response)
    told: dict[str, object] = json.loads(answer.body)
    return told


@pytest.mark.parametrize(
    ("agent", "version", "old"),
    [
        ("docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1", (1, 51), True), ("docker-sdk-python/7.0.0", (1, 43), True),
        ("docker-sdk-python/7.0.0", (1, 51), False), ("docker-compose/2.35.0", (1, 51), False), ("", (1, 51), False),
    ],
)  # fmt: skip
def test_an_images_container_config(agent: str, version: tuple[int, int], old: bool) -> None:
    told = inspected(agent, version)
    assert told.get("ContainerConfig") == (IMAGE["Config"] if old else None)
    assert told["Config"] == IMAGE["Config"]
