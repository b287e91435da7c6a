"""RUN --mount: one flag value (already expanded) to a typed mount. Raises SyntaxProblem.

Defaults of the reference: bind read-only, cache and tmpfs writable; a secret at /run/secrets/<id> with mode 0400, an
ssh socket with mode 0600; the cache id is the clean target path.
"""

from __future__ import annotations

import csv
import posixpath
from typing import Literal, cast

import msgspec

from .parser import SyntaxProblem
from .suggest import did_you_mean

__all__ = ["Mount", "MountType", "parse_mount"]

MountType = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_KEYS = (
    "type", "from", "source", "src", "target", "dst", "destination", "readonly", "ro", "readwrite", "rw", "id",
    "sharing", "required", "size", "mode", "uid", "gid", "env",
)  # fmt: skip
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_ALLOWED = {
    "bind": {"from", "source", "target", "readonly", "readwrite"},
    "cache": {"from", "source", "target", "readonly", "readwrite", "id", "sharing", "mode", "uid", "gid"},
    "tmpfs": {"target", "size", "readonly", "readwrite"},
    "secret": {"id", "source", "target", "required", "mode", "uid", "gid", "env"},
    "ssh": {"id", "target", "required", "mode", "uid", "gid"},
}
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Mount(msgspec.Struct, frozen=True, omit_defaults=True):
    type: MountType
    target: str = ""
    source: str = ""
    origin: str = ""  # from=
    read_only: bool = False
    id: str = ""
    sharing: Literal["shared", "private", "locked"] = "shared"
    required: bool = False
    size: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    env: str = ""


def parse_mount(text: str) -> Mount:
    values: dict[str, str] = {}
    for field in next(csv.reader([text]), []):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if key not in _KEYS:
            raise SyntaxProblem(f"unexpected key '{key}' in '{field}'{did_you_mean(key, _KEYS)}", 0, field)
        if not equals and key not in ("readonly", "ro", "readwrite", "rw", "required"):
            raise SyntaxProblem(f"invalid field '{field}' must be a key=value pair", 0, field)
        values[_ALIASES.get(key, key)] = value if equals else "true"
    kind = values.pop("type", "bind").lower()
    if kind not in _TYPES:
        raise SyntaxProblem(f"unsupported mount type {kind!r}{did_you_mean(kind, _TYPES)}", 0, kind)
    for key in values.keys() - _ALLOWED[kind]:
        raise SyntaxProblem(f"unexpected key '{key}' for mount type '{kind}'", 0, key)
    return _build(cast("MountType", kind), values)


def _build(kind: MountType, values: dict[str, str]) -> Mount:
    target, source = values.get("target", ""), values.get("source", "")
    if kind in ("bind", "cache", "tmpfs") and not target:
        raise SyntaxProblem(f"invalid mount: target is required for type={kind}", 0, "mount")
    read_only = kind == "bind"
    if "readonly" in values:
        read_only = _boolean(values["readonly"], "readonly")
    elif "readwrite" in values:
        read_only = not _boolean(values["readwrite"], "readwrite")
    sharing = values.get("sharing", "shared").lower()
    if sharing not in ("shared", "private", "locked"):
        raise SyntaxProblem(f"unsupported sharing value {sharing!r}", 0, sharing)
    identity = values.get("id", "")
    if kind == "cache":
        identity = identity or posixpath.normpath("/" + target.lstrip("/"))
    elif kind == "secret":
        identity = identity or posixpath.basename(source or target)
        if not identity:
            raise SyntaxProblem("invalid secret mount: one of source, target or id is required", 0, "secret")
        if not target and "env" not in values:
            target = "/run/secrets/" + posixpath.basename(identity)
        source = ""
    elif kind == "ssh":
        identity = identity or "default"
    return Mount(
        kind, target, source, values.get("from", ""), read_only, identity,
        cast("Literal['shared', 'private', 'locked']", sharing), _boolean(values.get("required", "false"), "required"),
        _size(values.get("size", "")), _mode(values.get("mode")), _number(values, "uid"), _number(values, "gid"),
        values.get("env", ""),
    )  # fmt: skip


def _boolean(value: str, key: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0"):
        raise SyntaxProblem(f"invalid value for {key}: {value}", 0, value)
    return value.lower() in ("true", "1")


def _number(values: dict[str, str], key: str) -> int:
    value = values.get(key, "0")
    if not value.isdigit():
        raise SyntaxProblem(f"invalid value {value} for {key}", 0, value)
    return int(value)


def _mode(value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return int(value, 8) & 0o7777
    except ValueError:
        raise SyntaxProblem(f"invalid value {value} for mode", 0, value) from None


def _size(value: str) -> int:
    text = value.lower().removesuffix("ib").removesuffix("b")
    unit = text[-1:] if text[-1:].isalpha() else ""
    try:
        return int(float(text.removesuffix(unit)) * _SIZES[unit]) if value else 0
    except (ValueError, KeyError):
        raise SyntaxProblem(f"invalid value for size: {value}", 0, value) from None
