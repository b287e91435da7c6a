"""Nouns of the runtime room."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from dockyard.kernel.cgroup import Cgroups
from dockyard.kernel.pidfd import Identity

STDIN, STDOUT, STDERR, SYSTEM_ERROR = range(4)
"""Streams, numbered as in Docker's multiplexed stream."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of output; ``data`` is not empty."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LogLine:
    """One message as json-file tells it: ``data`` ends with a newline unless ``partial`` (more of the line follows, or
    the container ended without one). ``ts`` is nanoseconds since the epoch."""

    stream: int
    ts: int
    data: bytes
    partial: bool


class LogLimits(msgspec.Struct, frozen=True):
    """``max_size`` bytes a file, -1 for no rotation."""

    max_size: int = 10 << 20
    max_file: int = 3


class Supervised(msgspec.Struct, frozen=True):
    """Written to the bundle as soon as it is known, so that a daemon that died finds its containers again."""

    id: str
    pid: int
    pid_start: int
    conmon_pid: int
    conmon_start: int
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    log_path: str = ""
    log_limits: LogLimits = LogLimits()
    shared_pid: bool = False
    cgroup: str = ""
    runtime: str = "runc"

    @property
    def init(self) -> Identity:
        return Identity(self.pid, self.pid_start)

    @property
    def conmon(self) -> Identity:
        return Identity(self.conmon_pid, self.conmon_start)


@dataclass(frozen=True, slots=True)
class Created:
    pid: int
    conmon_pid: int
    conmon_start_time: int


@dataclass(frozen=True, slots=True)
class Exit:
    """``at``: nanoseconds since the epoch. ``error`` is set when the code is not the container's own word."""

    code: int
    at: int
    oom_killed: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """``status``: created, running, paused or stopped. ``pid`` is 0 after the end."""

    status: str
    pid: int
    exit: Exit | None = None


@dataclass(frozen=True, slots=True)
class Alive:
    """Created or running; ``started`` tells which. The container is supervised again."""

    pid: int
    started: bool
    paused: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """Neither a process nor an exit file: the host was rebooted or somebody cleaned up. Docker reports 255."""

    reason: str


Recovered = Alive | Exit | Lost


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """One OCI runtime binary. ``works`` is found by a trial, ``reason`` says why not."""

    name: str
    path: str
    version: str
    works: bool
    reason: str = ""
    features: tuple[str, ...] = ()
    """Mount options and the like that ``runc features`` names (rro needs it)."""
    before: tuple[str, ...] = ()
    """What it is started through (``probe.LEGACY_VIEW``), or nothing."""

    @property
    def command(self) -> tuple[str, ...]:
        return (*self.before, self.path)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What this host can do, found once at start."""

    runtime: RuntimeFacts
    runtimes: tuple[RuntimeFacts, ...]
    conmon_path: str
    conmon_version: str
    cgroup: Cgroups
    capabilities: frozenset[str]
    """Permitted to this process, e.g. CAP_SYS_ADMIN."""
    kernel: tuple[int, int]
    kernel_release: str
    arch: str
    """Docker's word: amd64, arm64 ..."""
    cpus: int
    memory: int
    seccomp: bool
    apparmor: bool
    apparmor_default: str
    """docker-default where that profile is loaded, else ""."""
    init_path: str
    rlimits: dict[str, tuple[int, int]] = field(default_factory=dict)
    thermal_throttle: tuple[str, ...] = ()
    boot_id: str = ""

    @property
    def can_raise_limits(self) -> bool:
        return "CAP_SYS_RESOURCE" in self.capabilities


@dataclass(frozen=True, slots=True)
class Plan:
    """``spec`` is an OCI runtime configuration; ``warnings`` are sentences for the answer of create."""

    spec: dict[str, Any]
    warnings: list[str]
