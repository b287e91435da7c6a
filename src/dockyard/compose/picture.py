"""A project at a glance: each service with its instances, its traffic, what is out of date and what is ill. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dockyard.compose.circuit import CLOSED
from dockyard.compose.observe import Container
from dockyard.compose.plan import scale
from dockyard.compose.project import Project
from dockyard.compose.traffic import Flow, Rates
from dockyard.doctor import Finding, Report
from dockyard.doctor.finding import Severity

Json = dict[str, Any]
UP, DEGRADED, STARTING, DOWN, DONE, OFF = "up", "degraded", "starting", "down", "done", "off"
_EXITED = re.compile(r"Exited \((\d+)\)")
_YOUNG = re.compile(r"Up (Less than a second|\d seconds?)\b")
_RANK = {Severity.FAULT: 0, Severity.RISK: 1, Severity.ADVICE: 2}


@dataclass(frozen=True, slots=True)
class Seat:
    """One instance. ``state``: running, restarting, paused, exited, created, dead; ``health``: healthy, unhealthy,
    starting, or "" without a check; ``restarts``: by its restart policy; ``balance``: the balancer's word, "" outside it;
    ``stale``: why it is out of date, "" when it is not."""

    id: str
    name: str
    number: int
    state: str
    health: str
    told: str
    restarts: int = 0
    balance: str = ""
    requests: int = 0
    errors: int = 0
    stale: str = ""


@dataclass(frozen=True, slots=True)
class Ill:
    """A finding of the doctor, in the words that a person needs. ``machine``: the cure can be applied, checked and taken
    back by the doctor; ``key`` names it then."""

    id: str
    severity: str
    what: str
    title: str
    symptom: str
    cause: tuple[str, ...] = ()
    cure: str = ""
    commands: tuple[str, ...] = ()
    machine: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True)
class ServiceLook:
    """``flow`` and ``rates`` are None where nothing is balanced (or no balancer runs)."""

    name: str
    image: str
    state: str
    wanted: int
    seats: tuple[Seat, ...] = ()
    flow: Flow | None = None
    rates: Rates | None = None
    ills: tuple[Ill, ...] = ()

    @property
    def running(self) -> int:
        return sum(seat.state == "running" for seat in self.seats)

    @property
    def restarts(self) -> int:
        return sum(seat.restarts for seat in self.seats)

    @property
    def stale(self) -> str:
        """Why the first instance that is out of date is so."""
        return next((seat.stale for seat in self.seats if seat.stale), "")

    @property
    def health(self) -> str:
        """The worst of the running instances'; "" where none has a check."""
        found = {seat.health for seat in self.seats if seat.state == "running"}
        return next((word for word in ("unhealthy", "starting", "healthy") if word in found), "")


@dataclass(frozen=True, slots=True)
class Picture:
    """``looked``: false before the first look. ``host``: findings that are no service's. ``busy``: what is being done now,
    ``said``: how the last of it ended. ``trails``: requests a second of the last looks, oldest first. ``examined``: whether
    the doctor has looked. ``lost``: why the engine does not answer."""

    project: str
    engine: str
    services: tuple[ServiceLook, ...] = ()
    host: tuple[Ill, ...] = ()
    looked: bool = False
    balanced: bool = False
    examined: bool = False
    busy: str = ""
    said: str = ""
    failed: bool = False
    lost: str = ""
    trails: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def stale(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.services if one.stale)

    def service(self, name: str) -> ServiceLook | None:
        return next((one for one in self.services if one.name == name), None)


def services(
    project: Project, found: Iterable[Container], *, restarts: Mapping[str, int], stale: Mapping[str, str],
    flows: Mapping[str, Flow], rates: Mapping[str, Rates],
) -> tuple[ServiceLook, ...]:  # fmt: skip
    """In the order of the file. ``restarts``: container ID to count; ``stale``: container name to the reason."""
    rows: dict[str, list[Container]] = {}
    for item in found:
        if item.service and not item.oneoff:
            rows.setdefault(item.service, []).append(item)
    known = [*project.services, *sorted(name for name in rows if name not in project.services)]
    looks = []
    for name in known:
        service = project.services.get(name)
        flow = flows.get(name)
        words = {one.number: one for one in flow.instances} if flow else {}
        seats = []
        for item in sorted(rows.get(name, []), key=lambda one: (one.number, one.name)):
            at = words.get(item.number)
            seats.append(Seat(
                item.id, item.name, item.number, item.state, _health(item), str(item.row.get("Status") or ""),
                restarts.get(item.id, 0), at.state if at else "", at.count.requests if at else 0,
                at.count.failed if at else 0, stale.get(item.name, ""),
            ))  # fmt: skip
        # A project that is known by its labels alone wants what it has.
        wanted = scale(service) if service is not None and project.files else len(seats)
        image = str((service or {}).get("image") or (rows[name][0].row.get("Image") if name in rows else "") or "")
        state = _state(wanted, seats)
        if flow is not None and flow.circuit != CLOSED and state == UP:
            state = DEGRADED
        looks.append(ServiceLook(name, image, state, wanted, tuple(seats), flow, rates.get(name)))
    return tuple(looks)


def _health(item: Container) -> str:
    status = str(item.row.get("Status") or "")
    for mark, word in (("(healthy)", "healthy"), ("(unhealthy)", "unhealthy"), ("(health: starting)", "starting")):
        if mark in status:
            return word
    return ""


def _state(wanted: int, seats: Sequence[Seat]) -> str:
    running = [seat for seat in seats if seat.state == "running"]
    if not running and seats and all(_code(seat) == 0 for seat in seats):
        return DONE
    if not wanted and not running:
        return OFF
    # One that its policy has just started again may fall again: for ten seconds it is no better than starting.
    well = [seat for seat in running if seat.health in ("", "healthy") and not (seat.restarts and _YOUNG.match(seat.told))]
    if len(well) >= wanted and len(well) == len(running):
        return UP
    if running and all(seat.health != "unhealthy" for seat in running) and len(running) >= wanted:
        return STARTING
    return DEGRADED if well else DOWN


def _code(seat: Seat) -> int | None:
    match = _EXITED.match(seat.told)
    return int(match[1]) if match else None


def with_findings(
    looks: Sequence[ServiceLook], found: Iterable[Container], report: Report
) -> tuple[tuple[ServiceLook, ...], tuple[Ill, ...]]:
    """The services with what is ill about them, and what is the host's. A finding about a container, or one that names
    containers or networks of a service among those that suffer, is that service's; other people's containers are left out."""
    from dataclasses import replace

    rows = [item for item in found if not item.oneoff]
    of: dict[str, list[Ill]] = {}
    host = []
    for finding in sorted(report.findings, key=lambda one: _RANK[one.severity]):
        if finding.severity is Severity.ADVICE:
            continue
        owners = {item.service for item in rows if _concerns(finding, item)}
        for name in owners:
            of.setdefault(name, []).append(_ill(finding))
        if not owners and (finding.object.kind != "container" and not finding.affects):
            host.append(_ill(finding))
    return tuple(replace(one, ills=tuple(of.get(one.name, ()))) for one in looks), tuple(host)


def _concerns(finding: Finding, item: Container) -> bool:
    about = finding.object
    if about.kind == "container" and (about.name == item.name or (about.id and item.id.startswith(about.id))):
        return True
    ids = {item.id, item.id[:12], *item.networks.values()}
    return bool(ids & set(finding.affects))


def _ill(finding: Finding) -> Ill:
    fix = finding.fix
    return Ill(
        finding.id, finding.severity.value, str(finding.object), finding.title, finding.symptom, tuple(finding.cause),
        fix.text if fix else "", tuple(fix.commands) if fix else (), bool(fix and fix.machine), finding.key,
    )  # fmt: skip


# ---- words that both the terminal and the page show


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.1f}".rstrip("0").rstrip(".") + " ms" if seconds < 0.01 else (
        f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    )  # fmt: skip


def document(picture: Picture) -> Json:
    """For ``--json``."""
    import dataclasses

    told = dataclasses.asdict(picture)
    for one, service in zip(told["services"], picture.services, strict=True):
        one |= {"running": service.running, "restarts": service.restarts, "health": service.health, "stale": service.stale}
        if service.flow is not None:
            one["flow"].pop("histogram")
    told.pop("trails")
    return told
