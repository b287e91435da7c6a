"""What the planner is given: the wish (ContainerConfig, HostConfig) and all that had to be looked up for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dockyard.model import ContainerConfig, HostConfig
from dockyard.model.idmap import UNCHANGED, IdMaps
from dockyard.runtime.users import User

ROOT = User()
PRIVATE, HOST = "", "host"
"""Modes of a namespace; anything else is the path of one to join (/proc/<pid>/ns/pid, /run/.../netns/<id>)."""


@dataclass(frozen=True, slots=True)
class Namespaces:
    net: str = PRIVATE
    pid: str = PRIVATE
    ipc: str = PRIVATE
    uts: str = PRIVATE
    cgroup: str = ""
    """"" is Docker's default: private on cgroup v2, the host's on v1; ``private`` and ``host`` ask for one."""
    user: str = PRIVATE
    """Counts only with ``SpecRequest.ids``."""


@dataclass(frozen=True, slots=True)
class ResolvedMount:
    """A bind of ``source`` (exists already, on this host) at ``target``. ``options`` are Docker's words: ro, rw, a
    propagation (rprivate, rshared, rslave, private, shared, slave), ``bind`` (not recursive), ro-non-recursive,
    ro-force-recursive, and kernel flags (nosuid, nodev, noexec). SELinux' z and Z are taken and mean nothing here.

    With ``kind`` tmpfs there is no source and ``options`` go to the mount as they are."""

    source: str
    target: str
    options: tuple[str, ...] = ()
    kind: str = "bind"


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """``kind`` c, b or p; ``permissions`` of the device cgroup, some of "rwm"."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class SpecRequest:
    """``config`` is merged with the image's already; ``argv`` is entrypoint + command; ``env`` is image + user.

    ``shm_source``: a host directory for a shared /dev/shm (ipc shareable, container:, host); "" makes a private one,
    except with ``ipc none`` in the host config, which has none."""

    id: str
    rootfs: str
    config: ContainerConfig
    host: HostConfig
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = ROOT
    hostname: str = ""
    mounts: tuple[ResolvedMount, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    host_devices: tuple[DeviceNode, ...] = ()
    """All of the host's, for privileged (``devices.host_devices()``)."""
    block_numbers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Path -> major, minor of the devices that blkio limits name (``devices.block_numbers()``)."""
    namespaces: Namespaces = Namespaces()
    shm_source: str = ""
    shm_size: int = 64 << 20
    cgroup_parent: str = "/dockyard"
    init: bool = False
    default_ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Name -> (soft, hard) of the daemon's configuration; the container's own win."""
    ids: IdMaps = UNCHANGED
    """Of the user namespace; none without ranges. ``namespaces.user`` may be the path of one that has them."""
