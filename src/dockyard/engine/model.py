"""The engine's nouns: what a container is, as a record that survives the daemon.

States and moves (moby's container/state.go)::

    created --start--> running --exit--> exited --start--> running
                         |  ^                 \\--policy--> restarting --timer--> running
                     pause  unpause
                         v  |
                        paused            any --remove--> removing --> (gone)

A record is replaced, never changed; only the ``Container`` that owns it replaces it, and stores it before the effect
that it announces. Times are nanoseconds since the epoch, 0 for never.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dockyard.model import ContainerConfig, HostConfig, NetworkingConfig

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]

LIVE: frozenset[str] = frozenset({"running", "paused"})
"""States in which the container has a process."""


class HealthResult(msgspec.Struct, frozen=True):
    start: int
    end: int
    exit_code: int
    output: str


class Health(msgspec.Struct, frozen=True):
    status: Literal["starting", "healthy", "unhealthy"] = "starting"
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


class State(msgspec.Struct, frozen=True):
    status: Status = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    """Why it could not be started; whoever waits is told."""
    why: str = ""
    """Why it ended at once, where that can be seen: shown by inspect alone, for the exit code is the program's own."""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    health: Health | None = None


class MountPoint(msgspec.Struct, frozen=True):
    """A mount as resolved at create. ``source`` is a host path ("" until a volume is looked up)."""

    type: Literal["bind", "volume", "tmpfs", "image"]
    target: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    anonymous: bool = False
    copy: bool = True
    subpath: str = ""
    create_source: bool = False
    options: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    driver_opts: dict[str, str] = {}
    from_mounts: bool = False
    """Asked for by HostConfig.Mounts (inspect shows those there, not in Binds)."""


class Record(msgspec.Struct, frozen=True):
    id: str
    name: str
    created: int
    image_id: str
    config: ContainerConfig
    host: HostConfig
    path: str
    args: tuple[str, ...]
    mounts: tuple[MountPoint, ...] = ()
    state: State = State()
    restart_count: int = 0
    stopped_by_user: bool = False
    platform: str = "linux"
    pending: Literal["", "create", "start", "remove"] = ""
    """The operation under way: what recovery must finish or roll back."""
    remove_volumes: bool = False
    networking: NetworkingConfig | None = None
    """What create asked of networks when one of them did not exist: the next start connects to them, or fails."""
    conmon_pid: int = 0
    conmon_start: int = 0
    boot_id: str = ""

    def replace(self, **changes: Any) -> Record:
        return msgspec.structs.replace(self, **changes)

    def with_state(self, **changes: Any) -> Record:
        return msgspec.structs.replace(self, state=msgspec.structs.replace(self.state, **changes))

    @property
    def live(self) -> bool:
        return self.state.status in LIVE
