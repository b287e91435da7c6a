"""Whether and when an ended container starts again (moby internal/restartmanager)."""

from __future__ import annotations

from dockyard.engine.model import Record

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
SETTLED_AFTER = 10.0
"""A run of at least this many seconds takes the delay back to its start."""


def should_restart(record: Record, exit_code: int, *, daemon_start: bool = False) -> bool:
    """``daemon_start``: decided when the engine comes up rather than when the container ended."""
    policy = record.host.restart_policy
    if record.pending == "remove":
        return False
    match policy.name:
        case "always":
            return daemon_start or not record.stopped_by_user
        case "unless-stopped":
            return not record.stopped_by_user
        case "on-failure" | "unhealthy":
            limit = policy.maximum_retry_count
            return not record.stopped_by_user and exit_code != 0 and (limit == 0 or record.restart_count < limit)
    return False


def next_delay(previous: float, ran_for: float) -> float:
    """Seconds to wait: 0.1 doubling to 60; a run that lasted starts anew."""
    if previous == 0 or ran_for >= SETTLED_AFTER:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)
