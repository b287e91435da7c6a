"""Time in the form Docker writes it: RFC 3339 with nanoseconds, UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime

ZERO = "0001-01-01T00:00:00Z"
"""Go's zero time: what Docker prints for "never"."""


def now() -> int:
    """Nanoseconds since the epoch."""
    return time.time_ns()


def rfc3339(nanoseconds: int) -> str:
    """``2026-01-02T03:04:05.000000006Z``; trailing zeros are cut as Go's RFC3339Nano does; 0 is Go's zero time."""
    if nanoseconds == 0:
        return ZERO
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def rfc3339_fixed(nanoseconds: int) -> str:
    """As ``rfc3339`` but always with nine digits, as the prefix of a log line has them."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest:09d}Z"


def parse_rfc3339(text: str) -> int:
    """Inverse of ``rfc3339``; accepts any offset. Raises ValueError."""
    if text in {"", ZERO}:
        return 0
    head, dot, tail = text.partition(".")
    if not dot:
        return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) * 1_000_000_000
    digits = tail.rstrip("Zz")
    for sign in "+-":
        digits = digits.split(sign)[0]
    offset = tail[len(digits) :].replace("Z", "+00:00") or "+00:00"
    return int(datetime.fromisoformat(head + offset).timestamp()) * 1_000_000_000 + int(digits[:9].ljust(9, "0"))
