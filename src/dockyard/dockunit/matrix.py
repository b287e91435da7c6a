"""Dockunit.json: what it says, checked by field. Pure."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from dockyard.dockunit.errors import BAD_FILE
from dockyard.dockunit.stub import Stub, parse_stubs

MAX_BYTES = 1 << 20
_FIELDS = {"prettyName": str, "image": str, "testCommand": str, "beforeScripts": list}


@dataclass(frozen=True, slots=True)
class Entry:
    """One container of the matrix. ``number`` counts from 1, as --du-container does."""

    number: int
    name: str
    image: str
    test_command: str
    before_scripts: tuple[str, ...] = ()

    def prepared_key(self, image_id: str, tree: str) -> str:
        """What a prepared image depends on: the image, the scripts and the files that they saw."""
        told = json.dumps([image_id, self.before_scripts, tree])
        return hashlib.sha256(told.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Matrix:
    """``stubs`` is a key of ours beside "containers"; the old tool passes over it."""

    entries: tuple[Entry, ...]
    stubs: tuple[Stub, ...] = ()


def parse(text: str, path: str) -> Matrix:
    """Raises InvalidParameter with the place and the nearest field."""
    if len(text) > MAX_BYTES:
        raise BAD_FILE(path=path, cause=f"larger than {MAX_BYTES} bytes")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise BAD_FILE(path=path, cause=str(wrong)) from None
    rows = tree.get("containers") if isinstance(tree, dict) else None
    return Matrix(tuple(parse_entries(rows, path)), parse_stubs(tree.get("stubs") if isinstance(tree, dict) else None, path))


def parse_entries(rows: Any, path: str) -> list[Entry]:
    """Raises InvalidParameter."""
    if not isinstance(rows, list) or not rows:
        raise BAD_FILE(path=path, cause='it has no list "containers"')
    return [_entry(row, number, path) for number, row in enumerate(rows, 1)]


def _entry(row: Any, number: int, path: str) -> Entry:
    where = f"containers[{number - 1}]"
    if not isinstance(row, dict):
        raise BAD_FILE(path=path, cause=f"{where} is not an object")
    for key, value in row.items():
        kind = _FIELDS.get(key)
        if kind is None:
            near = difflib.get_close_matches(key, _FIELDS, 1)
            raise BAD_FILE(
                path=path, cause=f"{where}: unknown field {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
        if not isinstance(value, kind):
            raise BAD_FILE(
                path=path, cause=f"{where}.{key} must be a {'list of strings' if kind is list else 'string'}"
            )
    for key in ("prettyName", "image", "testCommand"):
        if not row.get(key):
            raise BAD_FILE(path=path, cause=f"{where} has no {key}")
    scripts = row.get("beforeScripts") or []
    if not all(isinstance(script, str) for script in scripts):
        raise BAD_FILE(path=path, cause=f"{where}.beforeScripts must be a list of strings")
    return Entry(number, row["prettyName"], row["image"], row["testCommand"], tuple(scripts))
