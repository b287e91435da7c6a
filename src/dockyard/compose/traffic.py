"""What goes through a project's balancer: read from its runtime socket, and what two readings tell. Pure but for `read`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dockyard.compose.circuit import CLOSED, FREE, NOBODY, NOTHING, Count, counted
from dockyard.compose.haproxy import RuntimeSocket
from dockyard.compose.layout import BUCKETS, LATENCIES, Layout


@dataclass(frozen=True, slots=True)
class Instance:
    """``state``: HAProxy's word (UP, DOWN, DRAIN, no check), or OUT when the judge took it out. ``sessions``: under way.
    ``latency``: HAProxy's average of the last 1024 answers, in seconds. ``downs``: how often it went down."""

    number: int
    address: str
    state: str
    sessions: int
    count: Count
    latency: float
    downs: int


@dataclass(frozen=True, slots=True)
class Flow:
    """One service since the balancer's start. ``histogram``: answers not slower than each of `BUCKETS`, then all.
    ``refused``: by the open circuit."""

    circuit: str = CLOSED
    opened: int = 0
    retries: str = FREE
    refused: int = 0
    count: Count = NOTHING
    histogram: tuple[int, ...] = ()
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class Traffic:
    """``at``: seconds of the monotonic clock. ``flows``: by service."""

    at: float
    flows: Mapping[str, Flow] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rates:
    """Between two readings. ``errors`` in percent of what clients asked, refusals included; latencies in seconds, None
    without an answer."""

    requests: float
    errors: float
    p50: float | None
    p95: float | None
    p99: float | None


def read(control: RuntimeSocket, layout: Layout, at: float) -> Traffic:
    """Raises Unavailable when no balancer runs."""
    rows = control.rows()
    table = control.ask(f"show table {LATENCIES}")
    states = control.ask(f"show map {Path(control.path).with_name('states.map')}")
    return Traffic(at, flows(layout, rows, table, states))


def flows(layout: Layout, rows: Sequence[Mapping[str, str]], table: str, states: str) -> dict[str, Flow]:
    """From the answers to ``show stat`` (rows), ``show table`` and ``show map``."""
    counts, told, histograms = counted(rows), read_map(states), read_table(table)
    servers: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        if row["svname"].startswith("s"):
            servers.setdefault(row["pxname"], []).append(row)
    found = {}
    for service in layout.services.values():
        backend = service.backend
        out = told.get(f"{backend}/out", NOBODY)
        outside = set() if out == NOBODY else {int(slot) for slot in out.split(",")}
        instances = [_instance(row, counts, outside) for row in servers.get(backend, [])]
        found[service.service] = Flow(
            circuit=told.get(backend, CLOSED), opened=int(told.get(f"{backend}/opened", "0")),
            retries=told.get(f"{backend}/retries", FREE),
            refused=counts.get((service.refusing, "BACKEND"), NOTHING).requests,
            count=counts.get((backend, "BACKEND"), NOTHING), histogram=histograms.get(backend, ()),
            # A slot in maintenance is empty again, unless the judge put its instance there.
            instances=tuple(one for one in instances if not one.state.startswith("MAINT")),
        )  # fmt: skip
    return found


def _instance(row: Mapping[str, str], counts: Mapping[tuple[str, str], Count], outside: set[int]) -> Instance:
    number = int(row["svname"].removeprefix("s"))
    state = "OUT" if number in outside else row["status"]
    return Instance(
        number, row.get("addr", ""), state, int(row.get("scur") or 0), counts[row["pxname"], row["svname"]],
        int(row.get("ttime") or 0) / 1000, int(row.get("chkdown") or 0),
    )  # fmt: skip


def read_map(text: str) -> dict[str, str]:
    """``0x56… key value`` a line."""
    words = [line.split() for line in text.splitlines()]
    return {line[1]: line[2] for line in words if len(line) == 3}


def read_table(text: str) -> dict[str, tuple[int, ...]]:
    """Key to its counters: ``0x56…: key=b_web use=0 exp=0 gpc0=1 …``."""
    found = {}
    for line in text.splitlines():
        fields = dict(word.partition("=")[::2] for word in line.split() if "=" in word)
        if "key" in fields:
            numbers = sorted((int(name[3:]), int(value)) for name, value in fields.items() if name.startswith("gpc"))
            found[fields["key"]] = tuple(value for _, value in numbers)
    return found


def rates(before: Flow, after: Flow, seconds: float) -> Rates:
    """A balancer that began anew meanwhile counts from its start."""
    fresh = after.count.requests < before.count.requests
    base = Flow() if fresh else before
    count = after.count - base.count
    refused = after.refused - base.refused
    asked = count.requests + refused
    old = base.histogram or (0,) * len(after.histogram)
    histogram = [new - at for new, at in zip(after.histogram, old, strict=True)]
    p50, p95, p99 = (percentile(histogram, share) for share in (0.50, 0.95, 0.99))
    errors = 100.0 * (count.failed + refused) / asked if asked else 0.0
    return Rates(asked / seconds if seconds > 0 else 0.0, min(100.0, errors), p50, p95, p99)


def percentile(histogram: Iterable[int], share: float) -> float | None:
    """Seconds that this share of the answers did not exceed, by straight lines within a bucket (as Prometheus does); the
    last bound where it is beyond. None without answers."""
    found = list(histogram)
    if not found or found[-1] <= 0:
        return None
    rank = share * found[-1]
    low, under = 0.0, 0
    for bound, count in zip(BUCKETS, found, strict=False):
        if count >= rank and count > under:
            return low + (bound - low) * (rank - under) / (count - under)
        low, under = bound, count
    return BUCKETS[-1]
