"""A picture in Prometheus' text format (version 0.0.4). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dockyard.compose.circuit import CLOSED, HALF_OPEN, OPEN, SPENT
from dockyard.compose.layout import BUCKETS
from dockyard.compose.picture import Picture

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_CIRCUITS = (CLOSED, OPEN, HALF_OPEN)
Sample = tuple[str, Mapping[str, str], float]
Family = tuple[str, str, str, Iterable[Sample]]


def render(picture: Picture) -> bytes:
    lines = []
    for name, kind, told, samples in _families(picture):
        lines += [f"# HELP dockyard_{name} {told}", f"# TYPE dockyard_{name} {kind}"]
        for suffix, labels, value in samples:
            words = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"project": picture.project, **labels}.items())
            lines.append(f"dockyard_{name}{suffix}{{{words}}} {value:.15g}")
    return ("\n".join(lines) + "\n").encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _families(picture: Picture) -> list[Family]:
    services = picture.services
    balanced = [(one, one.flow) for one in services if one.flow is not None]

    def each(value: str) -> list[Sample]:
        return [("", {"service": one.name}, float(getattr(one, value))) for one in services]

    histogram: list[Sample] = []
    for one, flow in balanced:
        for bound, count in zip([*(f"{bound:g}" for bound in BUCKETS), "+Inf"], flow.histogram, strict=False):
            histogram.append(("_bucket", {"service": one.name, "le": bound}, count))
        if flow.histogram:
            histogram.append(("_count", {"service": one.name}, flow.histogram[-1]))
    return [
        ("engine_up", "gauge", "Whether the engine answers.", [("", {}, not picture.lost)]),
        ("service_instances_wanted", "gauge", "Instances that the file asks for.", each("wanted")),
        ("service_instances_running", "gauge", "Instances that run.", each("running")),
        ("service_restarts_total", "counter", "Restarts by the restart policies of the instances that are there.",
         each("restarts")),
        ("service_up", "gauge", "Whether all wanted instances run and are healthy.",
         [("", {"service": one.name}, one.state in ("up", "done", "off")) for one in services]),
        ("service_outdated", "gauge", "Instances that are not as the file or the registry says.",
         [("", {"service": one.name}, sum(bool(seat.stale) for seat in one.seats)) for one in services]),
        ("instance_healthy", "gauge", "Result of the health check of an instance that has one.",
         [("", {"service": one.name, "container": seat.name}, seat.health == "healthy")
          for one in services for seat in one.seats if seat.health]),
        ("service_findings", "gauge", "Findings of the doctor.",
         [("", {"service": one.name, "severity": word}, sum(ill.severity == word for ill in one.ills))
          for one in services for word in ("fault", "risk")] if picture.examined else []),
        ("requests_total", "counter", "Requests that reached the service's balancer and its circuit let through.",
         [("", {"service": one.name}, flow.count.requests) for one, flow in balanced]),
        ("request_failures_total", "counter", "Of these, answered with 5xx.",
         [("", {"service": one.name}, flow.count.failed) for one, flow in balanced]),
        ("request_retries_total", "counter", "Second tries.",
         [("", {"service": one.name}, flow.count.retries) for one, flow in balanced]),
        ("requests_refused_total", "counter", "Requests refused by the open circuit.",
         [("", {"service": one.name}, flow.refused) for one, flow in balanced]),
        ("circuit_state", "gauge", "1 for the state that the circuit is in.",
         [("", {"service": one.name, "state": word}, flow.circuit == word) for one, flow in balanced for word in _CIRCUITS]),
        ("circuit_opened_total", "counter", "How often the circuit has opened.",
         [("", {"service": one.name}, flow.opened) for one, flow in balanced]),
        ("retry_budget_spent", "gauge", "Whether the retry budget is spent.",
         [("", {"service": one.name}, flow.retries == SPENT) for one, flow in balanced]),
        ("request_seconds", "histogram", "Seconds from a request to its answer.", histogram),
    ]  # fmt: skip
