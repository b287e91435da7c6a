"""Filters of ``GET /containers/json`` and of the prunes (moby daemon/list.go, daemon/prune.go)."""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

from dockyard.engine.errors import BAD_FILTER
from dockyard.engine.model import Record
from dockyard.engine.plan.status import health_status

Filters = Mapping[str, Sequence[str]]
STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


def match_labels(wanted: Iterable[str], labels: Mapping[str, str] | None) -> bool:
    """Every ``key`` or ``key=value`` of ``wanted`` is met."""
    have = labels or {}
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in have or (equals and have[key] != value):
            return False
    return True


_TRUE, _FALSE = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})


def flag(filters: Filters, name: str, default: bool | None = None) -> bool | None:
    """A filter that is true or false. Raises InvalidParameter for another value, and for both at once."""
    values = {value.lower() for value in filters.get(name, ())}
    if not values:
        return default
    if values <= _TRUE or values <= _FALSE:
        return values <= _TRUE
    raise BAD_FILTER(name=name, value=",".join(filters[name]))


def prune_until(filters: Filters, now: int) -> int:
    """The ``until`` filter in nanoseconds: a Unix time, a duration before ``now`` (``10m``), or a date; 0 if absent."""
    values = filters.get("until", ())
    if len(values) > 1:
        raise BAD_FILTER(name="until", value=",".join(values))
    return parse_moment(values[0], now) if values else 0


def parse_moment(text: str, now: int) -> int:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|us|ns|h|m|s)", text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return now - int(sum(float(number) * units[unit] for number, unit in parts) * 1e9)
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise BAD_FILTER(name="until", value=text) from None
    stamp = moment.timestamp() if moment.tzinfo else time.mktime(moment.timetuple())
    return int(stamp * 1e9)


class Selection:
    """A compiled container filter. ``find`` resolves a reference (name or ID) and raises NotFound.

    Raises InvalidParameter for a value no container can have, NotFound for before/since of an unknown container.
    """

    def __init__(
        self, filters: Filters, find: Callable[[str], Record], networks_of: Callable[[Record], Collection[str]]
    ) -> None:
        self._filters = filters
        self._networks_of = networks_of
        for status in filters.get("status", ()):
            if status not in STATUSES:
                raise BAD_FILTER(name="status", value=status)
        for health in filters.get("health", ()):
            if health not in {"starting", "healthy", "unhealthy", "none"}:
                raise BAD_FILTER(name="health", value=health)
        self._exited = [self._number("exited", value) for value in filters.get("exited", ())]
        self._before = min((find(ref).created for ref in filters.get("before", ())), default=0)
        self._since = max((find(ref).created for ref in filters.get("since", ())), default=0)
        self._names = [_pattern(value) for value in filters.get("name", ())]
        self._ids = [_pattern(value) for value in filters.get("id", ())]

    @property
    def looks_at_stopped(self) -> bool:
        """Filters that make ``docker ps`` show stopped containers without ``-a``."""
        return bool(self._filters.get("status") or self._exited or self._before or self._since)

    @staticmethod
    def _number(name: str, value: str) -> int:
        try:
            return int(value)
        except ValueError:
            raise BAD_FILTER(name=name, value=value) from None

    def __call__(self, record: Record, image_names: Collection[str] = ()) -> bool:
        filters, state = self._filters, record.state
        if (self._before and record.created >= self._before) or (self._since and record.created <= self._since):
            return False
        checks = (
            not self._names or any(p.search(record.name) or p.search("/" + record.name) for p in self._names),
            not self._ids or any(p.search(record.id) for p in self._ids),
            not (wanted := filters.get("status")) or state.status in wanted,
            not self._exited or (state.status == "exited" and state.exit_code in self._exited),
            not (wanted := filters.get("health")) or health_status(record) in wanted,
            match_labels(filters.get("label", ()), record.config.labels),
            not (wanted := filters.get("ancestor")) or self._descends(record, wanted, image_names),
            not (wanted := filters.get("volume")) or any(_has_volume(record, item) for item in wanted),
            not (wanted := filters.get("network")) or bool(set(wanted) & set(self._networks_of(record))),
            not (wanted := filters.get("publish")) or any(_publishes(record, item) for item in wanted),
            not (wanted := filters.get("expose")) or any(_exposes(record, item) for item in wanted),
            not (wanted := filters.get("is-task")) or "false" in wanted or "0" in wanted,
        )
        return all(checks)

    @staticmethod
    def _descends(record: Record, wanted: Sequence[str], image_names: Collection[str]) -> bool:
        for item in wanted:
            if item == record.config.image or item in image_names or f"{item}:latest" in image_names:
                return True
            if len(item) >= 4 and record.image_id.removeprefix("sha256:").startswith(item.removeprefix("sha256:")):
                return True
        return False


def _pattern(value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error:
        return re.compile(re.escape(value))


def _has_volume(record: Record, item: str) -> bool:
    wanted = posixpath.normpath(item) if item.startswith("/") else item
    return any(wanted in {point.name, point.target, point.source} - {""} for point in record.mounts)


def _publishes(record: Record, item: str) -> bool:
    return any(_in_range(port, item) for port in record.host.port_bindings or {})


def _exposes(record: Record, item: str) -> bool:
    return any(_in_range(port, item) for port in record.config.exposed_ports or {})


def _in_range(port: str, wanted: str) -> bool:
    number, _, protocol = port.partition("/")
    span, _, wanted_protocol = wanted.partition("/")
    first, _, last = span.partition("-")
    if (wanted_protocol or "tcp") != (protocol or "tcp") or not first.isdigit() or not (last or first).isdigit():
        return False
    return number.isdigit() and int(first) <= int(number) <= int(last or first)
