"""Errors of Compose files: always with file and line, and the nearest valid word where there is one."""

from __future__ import annotations

from dockyard.errors import Code, Conflict, InvalidParameter, NotFound

BAD_YAML = Code("DY-CMP-001", InvalidParameter, "{where}: {cause}")
UNKNOWN_KEY = Code("DY-CMP-002", InvalidParameter, "{where}: {path}: unknown key '{key}'{nearest}")
WRONG_TYPE = Code("DY-CMP-003", InvalidParameter, "{where}: {path}: must be {expected}, not {found}")
BAD_VALUE = Code("DY-CMP-004", InvalidParameter, "{where}: {path}: {cause}")
MISSING_VARIABLE = Code(
    "DY-CMP-005", InvalidParameter, "{where}: {path}: required variable {name} is missing a value: {message}"
)
BAD_TEMPLATE = Code(
    "DY-CMP-006",
    InvalidParameter,
    "{where}: {path}: invalid interpolation format: {text}",
    hint="write $$ for a dollar sign",
)
UNDEFINED = Code("DY-CMP-007", InvalidParameter, 'service "{service}" refers to undefined {kind} {name}{nearest}')
CYCLE = Code("DY-CMP-008", InvalidParameter, "dependency cycle detected: {path}")
NO_SUCH_SERVICE = Code("DY-CMP-010", NotFound, "no such service: {name}{nearest}")
CANNOT_READ = Code("DY-CMP-011", NotFound, "cannot read {path}: {cause}")
BAD_PROJECT_NAME = Code(
    "DY-CMP-012", InvalidParameter,
    "invalid project name {name!r}: must consist only of lowercase alphanumeric characters, hyphens, and underscores "
    "as well as start with a letter or number",
    hint="give one with -p",
)  # fmt: skip
INCLUDE_CONFLICT = Code("DY-CMP-013", Conflict, "{where}: {kind} {name} conflicts with an imported resource")
EXTENDS_CYCLE = Code("DY-CMP-014", InvalidParameter, "circular reference with extends: {path}")
TOO_LARGE = Code("DY-CMP-015", InvalidParameter, "{where}: file is too large or expands to too much ({limit})")
