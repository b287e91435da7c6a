"""What the engine's lifecycle needs from the rooms below, as Protocols.

``engine.adapters`` fits the real rooms to them; ``engine.fake`` holds in-memory twins that let the whole engine run
without root (tests of decisions, ``dockyard dryrun``). Undo halves stand beside their doing halves and are idempotent:
after a crash they are called for things that may never have been made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dockyard.engine.model import MountPoint, Record
from dockyard.model import ContainerConfig, HostConfig, NetworkingConfig
from dockyard.model.container import Resources
from dockyard.model.exchange import Frame, LogQuery

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ImageInfo:
    id: str
    config: ContainerConfig
    platform: str
    names: tuple[str, ...] = ()
    """Repository tags, as ``docker images`` shows them."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended; ``at`` in nanoseconds since the epoch."""

    code: int
    at: int
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    conmon_pid: int
    conmon_start: int


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount point with everything looked up: ``source`` is the host path to bind, "" for tmpfs."""

    point: MountPoint
    source: str


@dataclass(frozen=True, slots=True)
class StartRequest:
    """All that a bundle is made of."""

    record: Record
    rootfs: str
    mounts: Sequence[Mounted]
    netns: str
    """Path of the network namespace; "" for the host's."""
    hostname: str
    pid_of: Mapping[str, int]
    """Processes of the containers whose namespaces are joined, as the host config names these."""
    directory: str
    exit_command: Sequence[str]
    environment: Sequence[str] = ()
    """Variables that links bring (``DB_PORT_5432_TCP_ADDR``); the container's own win."""
    joined_memory: str = ""
    """The directory of the shared memory that is joined (``--ipc container:``)."""


class Rootfs(Protocol):
    """Images and the writable layers of containers."""

    def image(self, ref: str) -> ImageInfo: ...
    async def prepare(self, container_id: str, image_id: str, *, mapped: bool, durable: bool) -> None:
        """``mapped``: for a container in the engine's user namespace, where there is one. ``durable``: its record must
        survive a loss of power."""
        ...

    async def remove(self, container_id: str) -> None: ...
    async def mount(self, container_id: str) -> str: ...
    async def unmount(self, container_id: str) -> None: ...
    async def mount_image(self, container_id: str, ref: str) -> str:
        """An image as a read-only directory, for ``--mount type=image``; released with ``unmount``."""
        ...

    def graph_driver(self, container_id: str) -> Json: ...
    async def usage(self, container_id: str) -> tuple[int, int]:
        """Bytes of the writable layer, and of the whole root file system."""
        ...

    async def changes(self, container_id: str) -> list[tuple[int, str]]:
        """(kind, path), kind 0 modified, 1 added, 2 deleted."""
        ...

    async def export(self, container_id: str) -> AsyncIterator[bytes]: ...


class Volumes(Protocol):
    async def ensure(self, point: MountPoint, container_id: str) -> MountPoint:
        """Creates the volume if need be; returns ``point`` with name, driver and source filled in."""
        ...

    async def copy_up(self, point: MountPoint, rootfs: str) -> None:
        """Fills a new empty volume from what the image has at its target."""
        ...

    async def mount(self, point: MountPoint, container_id: str) -> str: ...
    async def unmount(self, point: MountPoint, container_id: str) -> None: ...
    async def remove_anonymous(self, point: MountPoint, container_id: str) -> None: ...
    async def release(self, container_id: str) -> None: ...


class Network(Protocol):
    async def connect(self, record: Record, network: NetworkingConfig) -> None:
        """Records the endpoints that the container will have; those that it has stay. Raises NotFound, with nothing
        recorded, when one of the networks does not exist."""
        ...

    async def forget(self, container_id: str) -> None: ...
    async def setup(self, record: Record, directory: str) -> str:
        """Sandbox, endpoints, ports and the hosts, hostname, resolv.conf files in ``directory``; the netns path. The
        interfaces in it may follow meanwhile: see ``wired``."""
        ...

    async def wired(self, container_id: str) -> None:
        """After ``setup``: until interfaces, rules and names are there. Raises what went wrong; ``teardown`` follows."""
        ...

    async def teardown(self, container_id: str) -> None: ...
    async def recover(self, live: Mapping[str, int]) -> None:
        """Compares the kernel with what ``live`` containers (ID -> pid) must have; heals by difference."""
        ...

    def settings(self, container_id: str) -> Json: ...
    def networks_of(self, container_id: str) -> Sequence[str]: ...
    async def renamed(self, record: Record) -> None: ...


class Stream(Protocol):
    """One client's bounded view of a container's or an exec's stdio."""

    tty: bool

    def frames(self) -> AsyncIterator[Frame]: ...
    async def write(self, data: bytes) -> None: ...
    async def write_eof(self) -> None: ...
    async def close(self) -> None: ...


class Runtime(Protocol):
    def check(self, host: HostConfig) -> list[str]:
        """Raises InvalidParameter for what no start here could do; sentences about what will be left out."""
        ...

    async def create(self, request: StartRequest) -> tuple[Process, list[str]]:
        """Bundle, conmon, runtime create. Raises a start failure with runc's wording and forensics."""
        ...

    async def start(self, container_id: str) -> None: ...
    async def explain(self, record: Record, directory: str) -> str:
        """Why the program of a container that ended at once cannot run here, with the remedy; "" if nothing is seen.
        Its mounts must still be there."""
        ...

    async def delete(self, container_id: str) -> None: ...
    async def kill(self, container_id: str, signal: int) -> None: ...
    async def pause(self, container_id: str) -> None: ...
    async def resume(self, container_id: str) -> None: ...
    async def update(self, container_id: str, limits: Resources) -> None: ...
    async def resize(self, container_id: str, height: int, width: int) -> None: ...
    async def wait(self, container_id: str) -> Ended: ...
    async def recover(self, record: Record, directory: str) -> Process | Ended | None:
        """What became of a container that was live: still there, ended, or lost without a trace (None)."""
        ...

    def attach(self, record: Record, *, stdin: bool, stdout: bool, stderr: bool) -> Stream:
        """Also before start: output of a later start arrives."""
        ...

    def logs(self, record: Record, directory: str, query: LogQuery) -> AsyncIterator[Frame]: ...
    async def top(self, record: Record, ps_args: str) -> Json: ...
    async def stats(self, record: Record) -> Json:
        """One sample in Docker's form, without ``precpu_stats``."""
        ...

    async def exec_start(
        self, record: Record, exec_id: str, process: Json, *, tty: bool, stdin: bool, size: tuple[int, int] | None
    ) -> ExecProcess: ...


class ExecProcess(Protocol):
    @property
    def pid(self) -> int: ...
    @property
    def stream(self) -> Stream: ...

    async def wait(self) -> int: ...
    async def resize(self, height: int, width: int) -> None: ...
    async def kill(self) -> None: ...
