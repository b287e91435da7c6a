"""The engine on its twins: the whole API, no root, nothing executed (``dockyard dryrun``)."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator
from pathlib import Path

from dockyard.engine.builds import NoBuilds
from dockyard.engine.containers import Containers
from dockyard.engine.engine import Engine
from dockyard.engine.execs import Execs
from dockyard.engine.fake import FakeNetwork, FakeRootfs, FakeRuntime, FakeVolumes
from dockyard.engine.fake.services import NOT_SIMULATED, FakeImages, FakeNetworkService, FakeVolumeService
from dockyard.engine.kit import Kit
from dockyard.engine.settings import Defaults
from dockyard.engine.store import Store
from dockyard.engine.system import HostReport, System
from dockyard.model.exchange import PathStat

_LIMITS = dict.fromkeys(
    ("MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit", "OomKillDisable"), True
)
"""Simulated containers keep any limit."""


class DryContainers(Containers):
    """Simulated containers have no files to copy."""

    async def archive_stat(self, ref: str, path: str) -> PathStat:
        self.find(ref)
        raise NOT_SIMULATED(what="copying files")

    async def archive_get(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        self.find(ref)
        raise NOT_SIMULATED(what="copying files")

    async def archive_put(
        self, ref: str, path: str, tar: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        self.find(ref)
        raise NOT_SIMULATED(what="copying files")


def dry_engine(root: Path) -> Engine:
    """An engine whose records live below ``root`` (a directory of its own) and whose containers are simulated."""
    root.mkdir(parents=True, exist_ok=True)
    rootfs, volumes = FakeRootfs(), FakeVolumes()
    network = FakeNetwork()
    kit = Kit(
        root=root, store=Store(root / "engine.db"), rootfs=rootfs, volumes=volumes, network=network,
        runtime=FakeRuntime(), boot_id="dryrun",
    )  # fmt: skip
    networks = FakeNetworkService(kit.events)
    network.identify = networks.identify
    containers = DryContainers(kit, Defaults(hostname=platform.node(), runtime="runc"))
    report = HostReport(engine_id="dryrun", storage={"Driver": "overlay2", "DriverStatus": [["Simulated", "true"]]}, runtime=_LIMITS)
    return Engine(
        kit=kit,
        containers=containers,
        execs=Execs(kit, containers),
        images=FakeImages(rootfs, kit.events),
        builds=NoBuilds(),
        volumes=FakeVolumeService(volumes.users, kit.events),
        networks=networks,
        system=System(kit, report, lambda: len({image.id for image in rootfs.images.values()}), {}),
    )
