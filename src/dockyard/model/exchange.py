"""What passes between the API and the engine besides documents: small frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Created:
    id: str
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ExitStatus:
    code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of output. ``stream``: 0 stdin, 1 stdout, 2 stderr, 3 error of the daemon. ``data`` is not empty."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Times are nanoseconds since the epoch (0 = unset); ``tail`` is a number of lines, -1 for all."""

    stdout: bool
    stderr: bool
    follow: bool = False
    since: int = 0
    until: int = 0
    timestamps: bool = False
    details: bool = False
    tail: int = -1


@dataclass(frozen=True, slots=True)
class AttachQuery:
    logs: bool = False
    stream: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False


@dataclass(frozen=True, slots=True)
class PathStat:
    """As the header ``X-Docker-Container-Path-Stat`` tells it; ``mode`` is Go's os.FileMode."""

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str
