"""Docker's JSON, read as Go reads it and written with Docker's capitals.

Go's decoder takes keys in any case and reads ``null`` as the zero value of the field; clients depend on both (some send
``hostconfig``, most send ``"Cmd": null``). ``decode`` therefore normalises against the type before msgspec checks it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Hashable
from typing import Any, Self, TypeVar, cast

import msgspec

from dockyard.errors import Code, InvalidParameter
from dockyard.lib.notjson import NOT_JSON

T = TypeVar("T")

MALFORMED = Code("DY-MODEL-001", InvalidParameter, "invalid JSON: {cause}", hint="check the request body")
WRONG_TYPE = Code("DY-MODEL-002", InvalidParameter, "invalid JSON: {cause}", hint="see the Engine API definition")

# Words that Docker writes wholly in capitals when they stand alone in a field name.
_CAPITALS = {"ip": "IP", "id": "ID", "ids": "IDs", "ipam": "IPAM", "dns": "DNS", "ips": "IPs"}


def docker_name(field: str) -> str:
    """``ip_address`` -> ``IPAddress``; irregular names are given with ``msgspec.field(name=...)``."""
    return "".join(_CAPITALS.get(word) or word[:1].upper() + word[1:] for word in field.split("_"))


class Document(msgspec.Struct, frozen=True, kw_only=True, rename=docker_name):
    """Base of all nouns in Docker's JSON form."""

    def replace(self, **changes: Any) -> Self:
        return msgspec.structs.replace(self, **changes)


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def decode(data: bytes, kind: type[T]) -> T:
    """Reads ``data`` into ``kind``. Raises InvalidParameter with msgspec's one-line cause and path."""
    try:
        tree = msgspec.json.decode(data)
    except NOT_JSON as broken:
        raise MALFORMED(cause=str(broken)) from None
    return convert(tree, kind)


def convert(tree: Any, kind: type[T]) -> T:
    """As ``decode``, from an already parsed tree."""
    try:
        return msgspec.convert(_normal(tree, _shape(cast(Hashable, kind))), kind, strict=True)
    except msgspec.ValidationError as wrong:
        raise WRONG_TYPE(cause=str(wrong)) from None


@functools.cache
def _shape(kind: Any) -> msgspec.inspect.Type:
    """Kept, for msgspec works a create request's type out anew each time, in 8 ms."""
    return msgspec.inspect.type_info(kind)


def _normal(value: Any, kind: msgspec.inspect.Type) -> Any:
    """Folds key case and drops nulls where ``kind`` is a document; leaves the rest for msgspec to judge, which knows no
    bounds of int64."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise WRONG_TYPE(cause=f"cannot unmarshal number {value} into Go value of type int64")
    kind = _without_none(kind)
    if isinstance(value, dict) and isinstance(kind, msgspec.inspect.StructType):
        fields = _fields(kind.cls)
        out: dict[str, Any] = {}
        for key, item in value.items():
            known = fields.get(key) or fields.get(_folded(key))
            if known is not None and item is not None:
                out[known.encode_name] = _normal(item, known.type)
        return out
    if isinstance(value, dict) and isinstance(kind, msgspec.inspect.DictType):
        return {key: _normal(_zero(item, kind.value_type), kind.value_type) for key, item in value.items()}
    if isinstance(value, list) and isinstance(kind, msgspec.inspect.ListType):
        return [_normal(_zero(item, kind.item_type), kind.item_type) for item in value]
    return value


def _without_none(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    if isinstance(kind, msgspec.inspect.UnionType):
        rest = [option for option in kind.types if not isinstance(option, msgspec.inspect.NoneType)]
        # `list[str] | str` (Go's strslice): the container type decides how to walk, msgspec checks the rest.
        return rest[0] if rest else kind
    return kind


def _zero(item: Any, kind: msgspec.inspect.Type) -> Any:
    return (
        {}
        if item is None and isinstance(_without_none(kind), (msgspec.inspect.StructType, msgspec.inspect.DictType))
        else item
    )


@functools.cache
def _fields(cls: type) -> dict[str, msgspec.inspect.Field]:
    info = msgspec.inspect.type_info(cls)
    assert isinstance(info, msgspec.inspect.StructType)
    exact = {field.encode_name: field for field in info.fields}
    return {_folded(name): field for name, field in exact.items()} | exact


@functools.lru_cache(maxsize=4096)
def _folded(key: str) -> str:
    return re.sub(r"[A-Z]", lambda match: match[0].lower(), key)
