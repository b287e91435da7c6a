"""The kit: what every part of the engine works with, wired once in ``engine.wiring`` and handed down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dockyard.engine.events import Events
from dockyard.engine.ports import Network, Rootfs, Runtime, Volumes
from dockyard.engine.reserve import Reserve
from dockyard.engine.store import Store
from dockyard.engine.supervisor import Supervisor
from dockyard.engine.usernamespace import SHARED_WITH_HOST, UserNamespace
from dockyard.lib import clock

if TYPE_CHECKING:
    from dockyard.engine.container import Container


@dataclass(frozen=True, slots=True)
class Kit:
    root: Path
    """Data root, mode 0710 (CVE-2021-41091): ``containers/<id>/`` hold what belongs to one container."""
    store: Store
    rootfs: Rootfs
    volumes: Volumes
    network: Network
    runtime: Runtime
    events: Events = field(default_factory=Events)
    supervisor: Supervisor = field(default_factory=Supervisor)
    now: Callable[[], int] = clock.now
    namespace: UserNamespace = SHARED_WITH_HOST
    """Of containers that do not opt out."""
    boot_id: str = ""
    exit_command: tuple[str, ...] = ()
    """Run by conmon after an exit; the container's ID is appended. It honours policies while no engine runs."""
    containers: dict[str, Container] = field(default_factory=dict)
    """By ID. ``engine.containers`` adds, a finished removal takes away."""

    @property
    def reserve(self) -> Reserve:
        return Reserve(self.root / "reserve")

    def directory(self, container_id: str) -> Path:
        return self.root / "containers" / container_id
