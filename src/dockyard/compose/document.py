"""YAML with places: every mapping and list remembers the line it stands on, tags ``!reset`` and ``!override`` are kept.

Bounded on purpose: a file's size, the nodes it expands to through aliases, and its depth (YAML bombs double at each
level). Duplicate keys are an error, as in compose-go; so are keys that are no strings. Plain scalars mean what they
mean to Go's reader, which Compose uses: ``yes`` and ``22:22`` are text, ``0o17`` and ``017`` are fifteen.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import yaml

from dockyard.compose.errors import BAD_YAML, TOO_LARGE

MAX_BYTES = 4 << 20
MAX_NODES = 200_000
MAX_DEPTH = 64


_Base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast


class _Loader(_Base):  # type: ignore[valid-type,misc]
    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


for _tag, _pattern, _first in (
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
     "-+0123456789."),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), list(_first))


class Map(dict[str, Any]):
    """A mapping with its place. ``lines`` holds the line of each key; ``tag`` is "", reset or override."""

    line: int = 0
    tag: str = ""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lines: dict[str, int] = {}


class Seq(list[Any]):
    line: int = 0
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Tagged:
    """A scalar under ``!reset`` or ``!override``."""

    tag: str
    value: Any


class _Builder:
    def __init__(self, file: str, loader: Any) -> None:
        self._file = file
        self._loader = loader
        self._count = 0

    def build(self, node: yaml.Node, depth: int = 0) -> Any:
        self._count += 1
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            raise TOO_LARGE(where=self._file, limit=f"{MAX_NODES} nodes, depth {MAX_DEPTH}")
        tag = node.tag.removeprefix("!") if node.tag in {"!reset", "!override"} else ""
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth, tag)
        if isinstance(node, yaml.SequenceNode):
            made = Seq(self.build(item, depth + 1) for item in node.value)
            made.line, made.tag = node.start_mark.line + 1, tag
            return made
        if tag:
            node.tag = self._loader.resolve(yaml.ScalarNode, node.value, (True, False))
            return Tagged(tag, self._loader.construct_object(node))
        return self._loader.construct_object(node)

    def _mapping(self, node: yaml.MappingNode, depth: int, tag: str) -> Map:
        made, merged = Map(), Map()
        made.line, made.tag = node.start_mark.line + 1, tag
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                self._merge_key(merged, value_node, depth)
                continue
            key = self._loader.construct_object(key_node)
            if not isinstance(key, str):
                key = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(key)
            if key in made:
                raise BAD_YAML(
                    where=f"{self._file}:{line}", cause=f"mapping key '{key}' already defined at line {made.lines[key]}"
                )
            made[key] = self.build(value_node, depth + 1)
            made.lines[key] = line
        for key, value in merged.items():
            if key not in made:
                made[key] = value
                made.lines[key] = merged.lines.get(key, made.line)
        return made

    def _merge_key(self, into: Map, node: yaml.Node, depth: int) -> None:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            mapping = self.build(source, depth + 1)
            if not isinstance(mapping, Map):
                raise BAD_YAML(where=f"{self._file}:{node.start_mark.line + 1}", cause="a merge key needs a mapping")
            for key, value in mapping.items():
                if key not in into:
                    into[key] = value
                    into.lines[key] = mapping.lines.get(key, mapping.line)


def parse(text: str, file: str) -> list[Map]:
    """All documents of a file (usually one). Raises InvalidParameter with file and line."""
    if len(text) > MAX_BYTES:
        raise TOO_LARGE(where=file, limit=f"{MAX_BYTES} bytes")
    loader = _Loader(text)
    documents: list[Map] = []
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                break
            built = _Builder(file, loader).build(node)
            if built is None:
                continue
            if not isinstance(built, Map):
                raise BAD_YAML(where=f"{file}:{node.start_mark.line + 1}", cause="top-level object must be a mapping")
            documents.append(built)
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise BAD_YAML(where=where, cause=broken.problem or "invalid YAML") from None
    except (yaml.YAMLError, RecursionError, ValueError) as broken:
        raise BAD_YAML(where=file, cause=str(broken).splitlines()[0]) from None
    finally:
        loader.dispose()
    return documents


def place(file: str, holder: Any, key: str | None = None) -> str:
    """``file:line`` of a key, or of the holder itself."""
    line = (
        holder.lines.get(key, holder.line)
        if key is not None and isinstance(holder, Map)
        else getattr(holder, "line", 0)
    )
    return f"{file}:{line}" if line else file


def nearest(word: str, words: Iterable[str]) -> str:
    """``; did you mean 'image'?`` or nothing."""
    found = difflib.get_close_matches(str(word), list(words), 1, 0.6)
    return f"; did you mean '{found[0]}'?" if found else ""
