"""One line of a container's log file as conmon writes it (k8s-file), and back to Docker's meaning. Pure.

    2026-11-24T19:20:19.587451420+00:00 stdout P some of a long li
    2026-11-24T19:20:19.587460000+00:00 stdout F ne

P: a piece without its newline (8 KiB were read, or there was none yet); F: the line ends here.
"""

from __future__ import annotations

import calendar
import re
import time

from dockyard.runtime.model import STDERR, STDOUT, LogLine

OVERHEAD = len("2026-11-24T19:20:19.587451420+00:00 stdout F ")
_STREAMS = {b"stdout": STDOUT, b"stderr": STDERR}
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))\Z")
_second: tuple[bytes, int] = (b"", 0)
"""The last second parsed: neighbouring lines share it (parsing it anew took two thirds of the time)."""


def parse_stamp(text: bytes) -> int | None:
    """RFC 3339 -> nanoseconds since the epoch."""
    global _second
    match = _STAMP.match(text)
    if match is None:
        return None
    second, fraction, sign, hours, minutes = match.groups()
    if second != _second[0]:
        try:
            _second = second, calendar.timegm(time.strptime(second.decode(), "%Y-%m-%dT%H:%M:%S"))
        except ValueError:
            return None
    seconds = _second[1]
    if sign:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds -= offset if sign == b"+" else -offset
    return seconds * 1_000_000_000 + int((fraction or b"0").ljust(9, b"0"))


def parse_line(line: bytes) -> LogLine | None:
    """``line`` is without its newline. None for a line that is damaged (a host that lost power while writing)."""
    words = line.split(b" ", 3)
    if len(words) != 4 or words[2] not in (b"F", b"P") or words[1] not in _STREAMS:
        return None
    stamp = parse_stamp(words[0])
    if stamp is None:
        return None
    partial = words[2] == b"P"
    return LogLine(_STREAMS[words[1]], stamp, words[3] if partial else words[3] + b"\n", partial)


def ends_line(line: bytes) -> bool:
    """Whether an entry ends a line; looks at the tag only."""
    return line.split(b" ", 3)[2:3] == [b"F"]


def format_stamp(ns: int) -> str:
    """As Docker prints it with --timestamps: UTC, nine digits."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
