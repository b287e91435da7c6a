"""Which stages a target needs and what they take from where, told from the text alone (words with variables stay open)."""

from __future__ import annotations

from . import instructions as ins
from .mounts import parse_mount

__all__ = ["needed_stages", "taken"]

REMOTE = ("http://", "https://", "git@", "git://", "ssh://")


def taken(item: ins.Instruction) -> list[tuple[str, tuple[str, ...]]]:
    """(origin as written, paths) of what COPY, ADD and bind mounts read."""
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
        names = [stage.origin.image, *(origin for item in stage.instructions for origin, _ in taken(item))]
        if any("$" in name for name in names):
            first = next(iter(needed.values()))
            return [first, *(each for each in stages if each is not first)]
        todo += [by_name[name.lower()] for name in names if name.lower() in by_name]
    return list(needed.values())
