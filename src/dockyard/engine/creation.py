"""Create: from a request to a prepared container, or to nothing at all.

The record is stored as pending before anything else is made; a crash or an error in between takes away what there is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

import msgspec

from dockyard.engine import errors, lifecycle
from dockyard.engine.container import Container
from dockyard.engine.kit import Kit
from dockyard.engine.model import MountPoint, Record
from dockyard.engine.plan import create as planning
from dockyard.engine.plan.mounts import resolve_mounts
from dockyard.engine.plan.names import check_name, suggest_name
from dockyard.engine.ports import ImageInfo
from dockyard.engine.settings import Defaults
from dockyard.errors import NotFound
from dockyard.lib.faultpoint import faultpoint
from dockyard.model import ContainerConfig, HostConfig, NetworkingConfig, new_id
from dockyard.model.container import LogConfig
from dockyard.model.exchange import Created
from dockyard.runtime.security import normalize_capabilities, parse_security_options
from dockyard.runtime.signals import parse_signal


class Creation:
    def __init__(self, kit: Kit, defaults: Defaults, find: Callable[[str], Container]) -> None:
        self._kit = kit
        self._defaults = defaults
        self._find = find
        self._random = random.Random()

    async def create(
        self, name: str, config: ContainerConfig, host: HostConfig, network: NetworkingConfig, platform: str
    ) -> Created:
        return await self._kit.supervisor.operate(self._create(name, config, host, network, platform), "create")

    async def _create(
        self, name: str, config: ContainerConfig, host: HostConfig, network: NetworkingConfig, platform: str
    ) -> Created:
        kit = self._kit
        planning.check_config(config)
        image = kit.rootfs.image(config.image) if config.image else None
        _check_platform(platform, image)
        merged = planning.merge(config, image.config if image else None)
        planning.check_config(merged)
        if merged.stop_signal:
            parse_signal(merged.stop_signal)
        host = self._complete(host)
        planning.check_host(host, config)
        if kit.namespace.of(host).ids:
            planning.check_remapped(host)
        for option, names in (("CapAdd", host.cap_add), ("CapDrop", host.cap_drop)):
            normalize_capabilities(names, option)
        parse_security_options(host.security_opt or ())
        warnings = kit.runtime.check(host)
        host = self._resolve_targets(host)
        # Named before anything is made: a crash then knows which volumes are this container's.
        mounts = tuple(
            msgspec.structs.replace(point, name=new_id()) if point.anonymous else point
            for point in resolve_mounts(merged, host, self._mounts_of)
        )
        container_id = new_id()
        record = Record(
            id=container_id,
            name=check_name(name) if name else self._free_name(),
            created=kit.now(),
            image_id=image.id if image else "",
            config=merged.replace(hostname=merged.hostname or self._hostname(host, container_id)),
            host=host,
            path=_argv(merged)[0],
            args=tuple(_argv(merged)[1:]),
            mounts=mounts,
            pending="create",
        )
        container = Container(kit, record)
        container.save(record)
        kit.containers[container_id] = container
        try:
            await self._prepare(container, network)
        except BaseException:
            await asyncio.shield(self._abandon(container))
            raise
        container.emit("create")
        return Created(container_id, warnings)

    async def _prepare(self, container: Container, network: NetworkingConfig) -> None:
        kit, record = self._kit, container.record
        faultpoint("create.recorded")
        directory = kit.directory(record.id)
        directory.parent.mkdir(mode=0o711, exist_ok=True)
        directory.mkdir(mode=0o711)
        await kit.rootfs.prepare(record.id, record.image_id, mapped=record.host.userns_mode != "host", durable=not record.host.auto_remove)
        faultpoint("create.rootfs")
        record = record.replace(mounts=tuple([await kit.volumes.ensure(point, record.id) for point in record.mounts]))
        faultpoint("create.volumes")
        fresh = [point for point in record.mounts if point.type == "volume" and point.copy]
        if fresh:
            rootfs = await kit.rootfs.mount(record.id)
            for point in fresh:
                await kit.volumes.copy_up(point, rootfs)
            await kit.rootfs.unmount(record.id)
        try:
            await kit.network.connect(record, network)
        except NotFound:  # As dockerd: refused at start. A 404 here is "no such image" to the docker CLI, which pulls.
            record = record.replace(networking=network)
        faultpoint("create.network")
        container.save(record.replace(pending=""))

    async def _abandon(self, container: Container) -> None:
        container.save(container.record.replace(remove_volumes=True))
        async with container.lock:
            await lifecycle.remove_locked(container, volumes=True, silent=True)

    def _complete(self, host: HostConfig) -> HostConfig:
        """The host config as Docker stores it: defaults written out."""
        log = host.log_config
        self._defaults.check_log_driver(log.type, log.config or {})
        return host.replace(
            log_config=LogConfig(type=log.type or self._defaults.log_driver, config=log.config or {}),
            network_mode="bridge" if host.network_mode in {"", "default"} else host.network_mode,
            ipc_mode=host.ipc_mode or self._defaults.ipc_mode,
            cgroupns_mode=host.cgroupns_mode or self._defaults.cgroupns_mode,
            shm_size=host.shm_size or self._defaults.shm_size,
            runtime=self._defaults.chosen_runtime(host.runtime),
            restart_policy=host.restart_policy.replace(name=host.restart_policy.name or "no"),
            oom_kill_disable=bool(host.oom_kill_disable),
            masked_paths=host.masked_paths,
        )

    def _resolve_targets(self, host: HostConfig) -> HostConfig:
        """``container:NAME`` becomes ``container:ID``, so that a rename changes nothing. As dockerd: one that is not there
        is a bad request, for a 404 is "no such image" to the docker CLI, which pulls; a network's is refused at start."""

        def resolved(mode: str) -> str:
            if not mode.startswith("container:"):
                return mode
            try:
                return f"container:{self._find(mode[10:]).record.id}"
            except NotFound as missing:
                if mode == host.network_mode:
                    return mode
                raise errors.BAD_REQUEST(cause=str(missing)) from None

        return host.replace(
            network_mode=resolved(host.network_mode), pid_mode=resolved(host.pid_mode), ipc_mode=resolved(host.ipc_mode)
        )

    def _mounts_of(self, ref: str) -> Iterable[MountPoint]:
        return self._find(ref).record.mounts

    def _hostname(self, host: HostConfig, container_id: str) -> str:
        shares = host.network_mode == "host" or host.uts_mode == "host"
        return self._defaults.hostname if shares else container_id[:12]

    def _free_name(self) -> str:
        taken = {container.record.name for container in self._kit.containers.values()}
        attempt = 0
        while (name := suggest_name(self._random, attempt)) in taken:
            attempt += 1
        return name


def _argv(config: ContainerConfig) -> list[str]:
    return [*(planning.words(config.entrypoint) or []), *(planning.words(config.cmd) or [])]


def _check_platform(platform: str, image: ImageInfo | None) -> None:
    if platform and image and image.platform and not _same_platform(platform, image.platform):
        raise errors.NO_SUCH_IMAGE(
            ref=f"image with reference {image.names[0] if image.names else image.id} was found but its platform "
            f"({image.platform}) does not match the specified platform ({platform})"
        )


def _same_platform(wanted: str, have: str) -> bool:
    want, got = wanted.split("/"), have.split("/")
    return want == got[: len(want)] or (len(want) == 1 and want[0] in got)
