"""Circuits, outliers and retries, judged from HAProxy's counters: what should be switched, and why. Pure.

::

             failed >= breaker % of >= volume
    closed ────────────────────────────────────► open      refused at once (503), for `pause`, twice as long each time
      ▲                                          │  ▲
      │ TRIALS answers, none failed      `pause` │  │ one failed
      └───────────────────── half-open ◄─────────┘──┘      one request at a time goes through

An *outlier* is an instance that fails while the others do not: it is out for `eject` x how often it has been, never more
than half of a service's instances. The *retry budget* is spent while more than `budget` percent of the requests of the
window were retries: then there are none, so that a service in trouble does not get its load several times over.

The states live in a map of HAProxy (`STATES`), so whoever may ask its socket can see them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dockyard.compose.layout import Balanced, Layout

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"
FREE, SPENT = "free", "spent"
NOBODY = "-"
TRIALS = 3
"""Answers that close a circuit that is half open."""
LONGEST = 8
"""The pause of a circuit doubles up to so many times its own length."""
LEAST_RETRIES = 10
MOST_OUT = 0.5
"""So many of a service's instances may be out at once."""


@dataclass(frozen=True, slots=True)
class Count:
    """What has been counted since the balancer's start."""

    requests: int = 0
    failed: int = 0
    retries: int = 0

    def __sub__(self, other: Count) -> Count:
        return Count(self.requests - other.requests, self.failed - other.failed, self.retries - other.retries)

    @property
    def percent(self) -> float:
        return 100.0 * self.failed / self.requests if self.requests > 0 else 0.0


NOTHING = Count()
Counts = Mapping[tuple[str, str], Count]


def counted(rows: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], Count]:
    """(backend, "BACKEND" or a slot's name) to its counters, of ``show stat``. A backend's failures are what clients got,
    a server's what it did, also where a retry made it good."""

    def number(row: Mapping[str, str], key: str) -> int:
        return int(row.get(key) or 0)

    found = {}
    for row in rows:
        name = row["svname"]
        if name == "FRONTEND":
            continue
        failed = number(row, "hrsp_5xx")
        if name != "BACKEND":
            failed += number(row, "econ") + number(row, "eresp")
        requests = max(number(row, "req_tot"), failed if name != "BACKEND" else 0)
        found[row["pxname"], name] = Count(requests, failed, number(row, "wretr"))
    return found


@dataclass(slots=True)
class _Circuit:
    """``until``: when what is now ends. ``opened``: how often it has opened. ``mark``: the counters at half-open."""

    state: str = CLOSED
    until: float = 0.0
    opened: int = 0
    length: float = 1.0
    mark: Count = NOTHING
    retries: str = FREE
    out: dict[int, float] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    seen: deque[tuple[float, Counts]] = field(default_factory=deque)

    def states(self, backend: str) -> dict[str, str]:
        out = ",".join(str(slot) for slot in sorted(self.out)) or NOBODY
        return {backend: self.state, f"{backend}/retries": self.retries, f"{backend}/out": out,
                f"{backend}/opened": str(self.opened)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """``states``: keys of the map to their new values. ``out`` and ``back``: slots to take out and to bring back.
    ``told``: a sentence for each change."""

    states: dict[str, str] = field(default_factory=dict)
    out: list[tuple[str, int]] = field(default_factory=list)
    back: list[tuple[str, int]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


class Judge:
    """Remembers the window of each service."""

    def __init__(self, layout: Layout) -> None:
        self._services = {one.backend: one for one in layout.services.values()}
        self._circuits = {backend: _Circuit() for backend in self._services}
        self._told = self.states()

    def states(self) -> dict[str, str]:
        """All keys of the map."""
        return {key: value for name, one in self._circuits.items() for key, value in one.states(name).items()}

    def forget(self, backend: str, slot: int) -> None:
        """Another instance has this slot, or none."""
        one = self._circuits[backend]
        one.out.pop(slot, None)
        one.times.pop(slot, None)
        one.seen.clear()

    def look(self, now: float, counts: Counts, filled: Iterable[tuple[str, int]]) -> Verdict:
        """``filled``: the slots that hold an instance. ``now``: seconds of a clock that never goes back."""
        slots: dict[str, list[int]] = {}
        for backend, slot in filled:
            slots.setdefault(backend, []).append(slot)
        verdict = Verdict()
        for backend, service in self._services.items():
            one = self._circuits[backend]
            names = ["BACKEND", *(f"s{slot}" for slot in slots.get(backend, []))]
            seen = {(backend, name): counts.get((backend, name), NOTHING) for name in names}
            one.seen.append((now, seen))
            while len(one.seen) > 2 and one.seen[1][0] <= now - service.window:
                one.seen.popleft()
            window = {key: value - one.seen[0][1].get(key, value) for key, value in seen.items()}
            _judge_circuit(one, service, now, seen[backend, "BACKEND"], window[backend, "BACKEND"], verdict)
            _judge_retries(one, service, window[backend, "BACKEND"], verdict)
            if service.eject:
                _judge_instances(one, service, now, window, slots.get(backend, []), verdict)
        told, self._told = self._told, self.states()  # `forget` changes them, too
        verdict.states.update({key: value for key, value in self._told.items() if told[key] != value})
        return verdict


def _judge_circuit(one: _Circuit, service: Balanced, now: float, total: Count, window: Count, verdict: Verdict) -> None:
    name = service.service
    if one.state == CLOSED:
        if service.breaker and window.requests >= service.volume and window.percent >= service.breaker:
            one.length = 1.0
            _open(one, service, now)
            verdict.told.append(f"{name}: circuit open ({window.percent:.0f} % of {window.requests} requests failed)")
    elif one.state == OPEN:
        if now >= one.until:
            one.state, one.mark = HALF_OPEN, total
            verdict.told.append(f"{name}: circuit half open, one request at a time")
    else:
        tried = total - one.mark
        if tried.failed:
            one.length = min(one.length * 2, LONGEST)
            _open(one, service, now)
            verdict.told.append(f"{name}: circuit open again")
        elif tried.requests >= TRIALS:
            one.state = CLOSED
            one.seen.clear()
            verdict.told.append(f"{name}: circuit closed")


def _open(one: _Circuit, service: Balanced, now: float) -> None:
    one.state, one.until = OPEN, now + service.pause * one.length
    one.opened += 1
    one.seen.clear()


def _judge_retries(one: _Circuit, service: Balanced, window: Count, verdict: Verdict) -> None:
    over = window.retries * 100 > service.budget * max(1, window.requests) and service.budget < 100
    wanted = SPENT if over and window.retries >= LEAST_RETRIES else FREE
    if wanted != one.retries:
        one.retries = wanted
        told = f"spent ({window.retries} retries of {window.requests} requests)" if wanted == SPENT else "free again"
        verdict.told.append(f"{service.service}: retry budget {told}")


def _judge_instances(
    one: _Circuit, service: Balanced, now: float, window: Counts, slots: list[int], verdict: Verdict
) -> None:
    for slot, until in list(one.out.items()):
        if now >= until:
            del one.out[slot]
            one.seen.clear()  # what it did before does not count against it
            verdict.back.append((service.backend, slot))
            verdict.told.append(f"{service.service}-{slot}: back on trial")
    least = max(3, service.volume // 4)
    for slot in slots:
        mine = window.get((service.backend, f"s{slot}"), NOTHING)
        rest = [window[service.backend, f"s{other}"] for other in slots if other not in (slot, *one.out)]
        others = Count(sum(each.requests for each in rest), sum(each.failed for each in rest))
        ill = mine.requests >= least and mine.percent >= max(1, service.breaker)
        if slot in one.out or not ill or not others.requests or others.percent * 2 > mine.percent:
            continue
        if len(one.out) + 1 > len(slots) * MOST_OUT:
            continue
        one.times[slot] = one.times.get(slot, 0) + 1
        one.out[slot] = now + service.eject * one.times[slot]
        verdict.out.append((service.backend, slot))
        verdict.told.append(
            f"{service.service}-{slot}: out for {service.eject * one.times[slot]:g} s "
            f"({mine.percent:.0f} % of {mine.requests} answers failed, {others.percent:.0f} % of the others')"
        )
