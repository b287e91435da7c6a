"""What the cache holds, and what prune takes: decided here, from values.

Sizes are true: a layer counts once, and what an image holds as well counts as shared and frees nothing. Order of
removal is least recently used first; nothing in use is removed. Filters are those of ``docker builder prune`` and
``buildx prune``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .dockerfile.instructions import duration
from .dockerfile.parser import SyntaxProblem
from .errors import BAD_OPTION

__all__ = ["CacheRecord", "Limits", "choose_pruned", "parse_filters"]

FILTERS = ("description", "id", "inuse", "parent", "private", "shared", "type", "until", "unused-for")


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """A row of ``docker system df -v`` and ``buildx du``. Times are nanoseconds since the epoch; sizes are bytes.
    ``keys`` are the records behind it: a layer may have more than one."""

    id: str
    kind: str  # regular, exec.cachemount, source.local
    description: str
    size: int
    created: int
    last_used: int
    uses: int
    in_use: bool = False
    shared: bool = False
    parents: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes; 0 is no limit. ``reserved`` is kept whatever it is, ``max_used`` never exceeded, ``min_free`` left free on
    the disk, of which ``free`` is free now."""

    reserved: int = 0
    max_used: int = 0
    min_free: int = 0
    free: int = 0


Test = Callable[[CacheRecord], bool]


def parse_filters(filters: Mapping[str, Sequence[str]], now: int) -> Test:
    """Values of one name are alternatives, names must all hold. Raises InvalidParameter."""
    tests: list[Test] = []
    for name, values in filters.items():
        wanted = list(values)
        if name not in FILTERS:
            raise BAD_OPTION(text=f"invalid filter '{name}'")
        if name in ("until", "unused-for"):
            if len(wanted) != 1:
                raise BAD_OPTION(text=f"filter '{name}' takes exactly one value")
            limit = now - _age(name, wanted[0])
            tests.append(lambda r, limit=limit: r.last_used <= limit)  # type: ignore[misc]
        elif name in ("inuse", "shared", "private"):
            flag = not wanted or wanted[0].lower() in ("", "1", "true")
            field = {"inuse": "in_use", "shared": "shared", "private": "shared"}[name]
            flag = flag != (name == "private")
            tests.append(lambda r, f=field, flag=flag: getattr(r, f) == flag)  # type: ignore[misc]
        elif name == "parent":
            tests.append(lambda r, w=wanted: any(p.startswith(x) for p in r.parents for x in w))  # type: ignore[misc]
        else:
            tests.append(lambda r, n=name, w=wanted: any(_matches(r, n, x) for x in w))  # type: ignore[misc]
    return lambda record: all(test(record) for test in tests)


def _age(name: str, text: str) -> int:
    try:
        return duration(text, name)
    except SyntaxProblem:
        raise BAD_OPTION(text=f"invalid filter '{name}={text}': not a duration such as 24h") from None


def _matches(record: CacheRecord, name: str, value: str) -> bool:
    if name == "id":
        return record.id.startswith(value)
    if name == "type":
        return record.kind == value
    return bool(re.search(re.escape(value), record.description))


def choose_pruned(records: Sequence[CacheRecord], wanted: Test, limits: Limits, *, all: bool) -> list[CacheRecord]:
    """Which go. Without a limit everything that may; with limits only until they are kept. Without ``all`` what images
    use too stays: removing it frees nothing."""
    total = sum(record.size for record in records)
    free = limits.free
    gone = []
    for record in sorted(records, key=lambda r: r.last_used):
        if record.in_use or not wanted(record) or (record.shared and not all):
            continue
        if limits.reserved and total - record.size < limits.reserved and total <= max(limits.max_used, limits.reserved):
            continue
        bounded = limits.max_used or limits.min_free or limits.reserved
        over = (
            (limits.max_used and total > limits.max_used)
            or (limits.min_free and free < limits.min_free)
            or (limits.reserved and not limits.max_used and not limits.min_free and total > limits.reserved)
        )
        if bounded and not over:
            continue
        gone.append(record)
        total -= record.size
        free += record.size
    return gone
