"""Broken Compose files: whatever stands in a file, the end is a project or an error with a place, never a traceback.

Files are made from the golden cases by putting junk in random places; the seed is fixed, so a run is like the last.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dockyard.cli.compose.render import rendered
from dockyard.compose.layout import layout_of
from dockyard.compose.loader import Request, load
from dockyard.compose.observe import Image, State
from dockyard.compose.plan import UpOptions, plan_up
from dockyard.compose.translate import Situation, Wanted, container, network, resolve, volume
from dockyard.errors import DockyardError, InvalidParameter

CASES = Path(__file__).parents[1] / "compose" / "data" / "hash-cases.yaml"
JUNK: list[Any] = [
    None, "", 0, -1, float("inf"), float("nan"), 1.5, True, [], {}, "x", "9" * 20, "1-99999999999", [1], {"a": 1}, [[]],
    {"a": {"b": [1]}}, "a:b:c:d", "=", "/", "..", "${", "\x01", "é" * 50, [None], {"": None}, "-1", "inf",
]  # fmt: skip


class One:
    def __init__(self, text: str) -> None:
        self._text = text

    def read(self, path: str) -> str:
        if path == "/p/c.yaml":
            return self._text
        raise FileNotFoundError(2, "No such file", path)

    def exists(self, path: str) -> bool:
        return False


def places(node: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if way:
        yield way
    rows = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in rows:
        yield from places(value, (*way, key))


def broken(base: dict[str, Any], rnd: random.Random) -> dict[str, Any]:
    tree = copy.deepcopy(base)
    names = rnd.sample(sorted(tree["services"]), 3)
    tree["services"] = {name: tree["services"][name] for name in names} | {"plain": {"image": "x"}}
    for way in rnd.sample(found := list(places(tree)), min(len(found), rnd.randint(1, 3))):
        node = tree
        for key in way[:-1]:
            node = node[key] if isinstance(node, dict) and key in node else {}
        if isinstance(node, dict):
            node[way[-1]] = copy.deepcopy(rnd.choice(JUNK))
    return tree


def through(text: str) -> None:
    project = load(Request(["/p/c.yaml"], "/p", {}), One(text))
    rendered(project)
    layout_of(project)
    plan_up(project, State((1, 51), images={"x": Image("1")}), UpOptions())
    there = {name: [("1" * 64, f"p-{name}-1")] for name in project.services}
    for name, service in project.services.items():
        container(project, Wanted(name), resolve(service, there), Situation(containers=there))
    for key in project.networks:
        network(project, key)
    for key in project.volumes:
        volume(project, key)


@pytest.mark.parametrize("seed", range(4))
def test_junk_anywhere_ends_in_a_project_or_an_error_with_a_place(seed: int) -> None:
    base = yaml.safe_load(CASES.read_text())
    rnd = random.Random(seed)
    for _ in range(60):
        text = yaml.safe_dump(broken(base, rnd))
        try:
            with contextlib.suppress(DockyardError):
                through(text)
        except Exception as error:  # noqa: BLE001 - the file that does it is what we want to see
            pytest.fail(f"{error!r} for:\n{text}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("services: {a: {image: x, ports: ['1-99999999999:80']}}", "invalid port range"),
        ("services: {a: {image: x, expose: ['1-99999999999']}}", "invalid port"),
        ("services: {a: {image: x, scale: 1000000000}}", "must be at most 10000"),
        ("services: {a: {image: x, cpus: .inf}}", "no number"),
        ("services: {a: {image: x, cpus: many}}", "cpus: could not convert"),
        ("services: {a: {image: x, mem_limit: lots}}", "mem_limit: invalid size"),
        ("services: {a: {image: x, secrets: [{target: t}]}}", "undefined secret None"),
    ],
)
def test_limits_and_kinds(text: str, told: str) -> None:
    with pytest.raises(InvalidParameter, match=told):
        through(text)


def test_chains_end() -> None:
    rows = "\n".join(f"  s{index}: {{extends: s{index + 1}}}" for index in range(200))
    with pytest.raises(InvalidParameter, match="circular reference"):
        through(f"services:\n{rows}\n  s200: {{image: x}}\n")
