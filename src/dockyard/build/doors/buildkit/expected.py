"""Which files of which context a Dockerfile will ask for, told from its text: so that one transfer serves all COPYs.

A guess that may fall short (words with variables, ONBUILD triggers): what is missing is then fetched by itself.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from ...dockerfile import instructions as ins
from ...dockerfile.parser import SyntaxProblem, parse
from ...dockerfile.stages import needed_stages, taken

__all__ = ["expected", "normal"]


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
                for origin, paths in taken(item):
                    name = origin if origin in contexts else ""
                    if not origin or name:
                        found.setdefault(name, set()).update(normal(path) for path in paths if "$" not in path)
    except SyntaxProblem:
        return {}  # told by the build itself
    return {name: frozenset(paths) for name, paths in found.items()}
