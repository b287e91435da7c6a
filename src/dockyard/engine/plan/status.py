"""What a state is called: ``Up 5 minutes (healthy)``, ``Exited (0) 2 seconds ago`` (moby container/state.go String)."""

from __future__ import annotations

from dockyard.engine.model import Record, State

_SECOND = 1_000_000_000


def human_duration(nanoseconds: int) -> str:
    """docker/go-units HumanDuration."""
    seconds = nanoseconds // _SECOND
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = (minutes + 30) // 60
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for size, limit, unit in (
        (24, 24 * 7 * 2, "days"),
        (24 * 7, 24 * 30 * 2, "weeks"),
        (24 * 30, 24 * 365 * 2, "months"),
    ):
        if hours < limit:
            return f"{hours // size} {unit}"
    return f"{hours // (24 * 365)} years"


def status_text(state: State, now: int) -> str:
    match state.status:
        case "running" | "paused":
            health = "" if state.health is None else _health_text(state.health.status)
            paused = " (Paused)" if state.status == "paused" else health
            return f"Up {human_duration(now - state.started_at)}{paused}"
        case "restarting":
            return f"Restarting ({state.exit_code}) {human_duration(now - state.finished_at)} ago"
        case "removing":
            return "Removal In Progress"
        case "dead":
            return "Dead"
        case "created":
            return "Created"
    return f"Exited ({state.exit_code}) {human_duration(now - state.finished_at)} ago"


def _health_text(status: str) -> str:
    return " (health: starting)" if status == "starting" else f" ({status})"


def health_status(record: Record) -> str:
    """As ``docker ps --filter health=`` knows it; "none" without a healthcheck."""
    return record.state.health.status if record.state.health else "none"
