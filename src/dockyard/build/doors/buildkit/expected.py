"""Which files of which context a Dockerfile will ask for, told from its text: so that one transfer serves all COPYs.

A guess that may fall short (words with variables, ONBUILD triggers): what is missing is then fetched by itself.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from ...dockerfile import instructions as ins
from ...dockerfile.mounts import parse_mount
from ...dockerfile.parser import SyntaxProblem, parse

__all__ = ["expected", "needed_stages", "normal"]

REMOTE = ("http://", "https://", "git@", "git://", "ssh://")


def normal(source: str) -> str:
    """A path as transfers name it: "" is everything."""
    path = posixpath.normpath("/" + source.replace("/./", "/")).lstrip("/")
    return "" if "**" in path else path


def expected(text: bytes, target: str, contexts: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Paths by the context's name, "" being the main one."""
    try:
        _, stages = ins.split_stages(parse(text))
        found: dict[str, set[str]] = {}
        for stage in needed_stages(stages, target):
            for item in stage.instructions:
                for origin, paths in _taken(item):
                    name = origin if origin in contexts else ""
                    if not origin or name:
                        found.setdefault(name, set()).update(normal(path) for path in paths if "$" not in path)
    except SyntaxProblem:
        return {}  # told by the build itself
    return {name: frozenset(paths) for name, paths in found.items()}


def _taken(item: ins.Instruction) -> list[tuple[str, tuple[str, ...]]]:
    if isinstance(item, ins.Copy):
        return [(item.origin, tuple(path for path in item.sources if not path.startswith((*REMOTE, "<<"))))]
    if isinstance(item, ins.Run):
        mounts = [parse_mount(text) for text in item.mounts if "$" not in text]
        return [(mount.origin, (mount.source or ".",)) for mount in mounts if mount.type == "bind"]
    return []


def needed_stages(stages: tuple[ins.Stage, ...], target: str) -> list[ins.Stage]:
    """The target's stage, then those that it names; all others too where a name is a variable."""
    by_name = {name: stage for stage in stages for name in (stage.origin.alias, str(stage.index)) if name}
    todo = [by_name.get(target.lower(), stages[-1]) if target else stages[-1]]
    needed: dict[int, ins.Stage] = {}
    while todo:
        stage = todo.pop()
        if stage.index in needed:
            continue
        needed[stage.index] = stage
        names = [stage.origin.image, *(origin for item in stage.instructions for origin, _ in _taken(item))]
        if any("$" in name for name in names):
            first = next(iter(needed.values()))
            return [first, *(each for each in stages if each is not first)]
        todo += [by_name[name.lower()] for name in names if name.lower() in by_name]
    return list(needed.values())
