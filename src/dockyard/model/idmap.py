"""User and group ids of a container and what they are on the host (``userns-remap``; user_namespaces(7))."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OVERFLOW = 65534
"""What the kernel shows for an id that a namespace does not have."""
MAX_RANGES = 340
"""Lines that the kernel takes in one map."""


@dataclass(frozen=True, slots=True)
class IdRange:
    """Ids ``container`` .. + ``size`` of a user namespace are ``host`` .. + ``size`` of this host."""

    container: int
    host: int
    size: int


@dataclass(frozen=True, slots=True)
class IdMaps:
    """Without ranges nothing is mapped: an id is the same on both sides."""

    uids: tuple[IdRange, ...] = ()
    gids: tuple[IdRange, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.uids)

    @property
    def root(self) -> tuple[int, int]:
        """The host's uid and gid of the container's root."""
        return self.outside(0, 0)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """Ids of the host. Raises ValueError for one that the container cannot have."""
        return _mapped(self.uids, uid, out=True), _mapped(self.gids, gid, out=True)

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """Ids as the container sees them: what it does not have is OVERFLOW, as the kernel shows it."""
        return _seen(self.uids, uid), _seen(self.gids, gid)


UNCHANGED = IdMaps()


def subordinate(ranges: Iterable[tuple[int, int]]) -> tuple[IdRange, ...]:
    """(first, size) pairs of /etc/subuid, one after the other from the container's 0 up, as dockerd lines them up:
    sorted by their first id."""
    out: list[IdRange] = []
    for first, size in sorted(ranges):
        start = out[-1].container + out[-1].size if out else 0
        out.append(IdRange(start, first, size))
    return tuple(out)


def _mapped(ranges: Sequence[IdRange], number: int, *, out: bool) -> int:
    for each in ranges:
        base, target = (each.container, each.host) if out else (each.host, each.container)
        if base <= number < base + each.size:
            return target + number - base
    if ranges:
        raise ValueError(f"id {number} is not mapped")
    return number


def _seen(ranges: Sequence[IdRange], number: int) -> int:
    try:
        return _mapped(ranges, number, out=False)
    except ValueError:
        return OVERFLOW
