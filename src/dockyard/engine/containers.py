"""The container operations of the Engine API: references resolved, plans made, lifecycle called.

Changing calls run as operations of the engine (``Supervisor.operate``): a client that goes away does not stop them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import msgspec

from dockyard.engine import archive, errors, lifecycle
from dockyard.engine.attach import attachment
from dockyard.engine.container import Container
from dockyard.engine.creation import Creation
from dockyard.engine.kit import Kit
from dockyard.engine.model import Record
from dockyard.engine.plan import create as planning
from dockyard.engine.plan.names import check_name
from dockyard.engine.plan.select import Filters, Selection, match_labels, prune_until
from dockyard.engine.ports import Stream
from dockyard.engine.settings import Defaults
from dockyard.engine.statistics import samples
from dockyard.errors import Conflict, DockyardError
from dockyard.model import ContainerConfig, HostConfig, NetworkingConfig
from dockyard.model.container import Resources, RestartPolicy
from dockyard.model.exchange import AttachQuery, Created, ExitStatus, Frame, LogQuery, PathStat
from dockyard.runtime.signals import parse_signal

Json = dict[str, Any]
Rows = list[Json]
Names = list[str]
WAIT_CONDITIONS = frozenset({"not-running", "next-exit", "removed"})

_encode = msgspec.json.Encoder().encode


class Containers:
    def __init__(self, kit: Kit, defaults: Defaults) -> None:
        self._kit = kit
        self._creation = Creation(kit, defaults, self.find)

    # -- finding --------------------------------------------------------------------------------------------------

    def find(self, ref: str) -> Container:
        """By whole ID, name, or unique ID prefix, in moby's order. Raises NotFound, InvalidParameter if ambiguous."""
        all_ = self._kit.containers
        if (container := all_.get(ref)) is not None:
            return container
        name = ref.removeprefix("/")
        by_prefix = []
        for container in all_.values():
            if container.record.name == name:
                return container
            if ref and container.record.id.startswith(ref):
                by_prefix.append(container)
        if len(by_prefix) > 1:
            raise errors.AMBIGUOUS_PREFIX(ref=ref)
        if not by_prefix:
            raise errors.NO_SUCH_CONTAINER(ref=ref)
        return by_prefix[0]

    # -- reading --------------------------------------------------------------------------------------------------

    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> bytes:
        kit = self._kit
        selection = Selection(
            filters, lambda ref: self.find(ref).record, lambda record: kit.network.networks_of(record.id)
        )
        shows_stopped = all or limit > 0 or selection.looks_at_stopped
        now = kit.now()
        rows: list[Json] = []
        for container in sorted(kit.containers.values(), key=lambda item: item.record.created, reverse=True):
            record = container.record
            if not (shows_stopped or record.live or record.state.status == "restarting"):
                continue
            if filters and not selection(record, self._image_names(record, filters)):
                continue
            row = container.row(now)
            if size:
                row = row | await self._sizes(record)
            rows.append(row)
            if limit > 0 and len(rows) == limit:
                break
        return _encode(rows)

    def _image_names(self, record: Record, filters: Filters) -> tuple[str, ...]:
        if "ancestor" not in filters:
            return ()
        try:
            return self._kit.rootfs.image(record.image_id).names
        except DockyardError:
            return ()

    async def _sizes(self, record: Record) -> Json:
        own, total = await self._kit.rootfs.usage(record.id)
        return {"SizeRw": own, "SizeRootFs": total}

    async def inspect(self, ref: str, *, size: bool) -> bytes:
        container = self.find(ref)
        if not size:
            return container.document()
        from dockyard.engine.view import inspect_document

        own, total = await self._kit.rootfs.usage(container.record.id)
        return _encode(inspect_document(container.record, container.surroundings(size_rw=own, size_root=total)))

    async def top(self, ref: str, ps_args: str) -> Json:
        record = self._running(ref).record
        return await self._kit.runtime.top(record, ps_args or "-ef")

    def _running(self, ref: str) -> Container:
        container = self.find(ref)
        if container.record.state.status == "restarting":
            raise errors.RESTARTING(id=container.record.id)
        if not container.record.live:
            raise errors.NOT_RUNNING(id=container.record.id)
        return container

    async def logs(self, ref: str, query: LogQuery) -> tuple[bool, AsyncIterator[Frame]]:
        record = self.find(ref).record
        if not (query.stdout or query.stderr):
            raise errors.BAD_REQUEST(cause="Bad parameters: you must choose at least one stream")
        if record.host.log_config.type == "none":
            raise errors.LOGS_UNREADABLE()
        return record.config.tty, self._kit.runtime.logs(record, str(self._kit.directory(record.id)), query)

    async def changes(self, ref: str) -> Rows | None:
        record = self.find(ref).record
        return [{"Path": path, "Kind": kind} for kind, path in await self._kit.rootfs.changes(record.id)] or None

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        container = self.find(ref)
        container.emit("export")
        return await self._kit.rootfs.export(container.record.id)

    async def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[Json]:
        return samples(self._kit, self.find(ref), stream=stream, one_shot=one_shot)

    async def wait(self, ref: str, condition: str) -> Awaitable[ExitStatus]:
        if (condition or "not-running") not in WAIT_CONDITIONS:
            raise errors.BAD_CONDITION(condition=condition)
        return self.find(ref).wait(condition or "not-running")

    async def attach(self, ref: str, query: AttachQuery) -> Stream:
        container = self.find(ref)
        match container.record.state.status:
            case "paused":
                raise errors.ATTACH_PAUSED(ref=ref)
            case "restarting":
                raise errors.ATTACH_RESTARTING(ref=ref)
        stream = await attachment(self._kit, container.record, query)
        container.emit("attach")
        return stream

    # -- changing -------------------------------------------------------------------------------------------------

    async def create(
        self, name: str, config: ContainerConfig, host: HostConfig, network: NetworkingConfig, platform: str
    ) -> Created:
        return await self._creation.create(name, config, host, network, platform)

    async def _operate(self, work: Any, name: str) -> None:
        await self._kit.supervisor.operate(work, name)

    async def start(self, ref: str) -> None:
        await self._operate(lifecycle.start(self.find(ref)), f"start {ref}")

    def _stop_terms(self, container: Container, signal: str, timeout: int | None) -> tuple[int, int]:
        config = container.record.config
        seconds = timeout if timeout is not None else config.stop_timeout
        return (
            parse_signal(signal or config.stop_signal or "SIGTERM"),
            lifecycle.DEFAULT_STOP_TIMEOUT if seconds is None else seconds,
        )

    async def stop(self, ref: str, *, signal: str, timeout: int | None) -> None:
        container = self.find(ref)
        number, seconds = self._stop_terms(container, signal, timeout)
        await self._operate(lifecycle.stop(container, number, seconds), f"stop {ref}")

    async def restart(self, ref: str, *, signal: str, timeout: int | None) -> None:
        container = self.find(ref)
        number, seconds = self._stop_terms(container, signal, timeout)
        await self._operate(lifecycle.restart(container, number, seconds), f"restart {ref}")

    async def kill(self, ref: str, signal: str) -> None:
        number = parse_signal(signal or "SIGKILL")
        container = self.find(ref)
        await self._operate(lifecycle.kill(container, number, ref), f"kill {ref}")

    async def pause(self, ref: str) -> None:
        await self._operate(lifecycle.pause(self.find(ref)), f"pause {ref}")

    async def unpause(self, ref: str) -> None:
        await self._operate(lifecycle.unpause(self.find(ref)), f"unpause {ref}")

    async def resize(self, ref: str, height: int, width: int) -> None:
        await self._kit.runtime.resize(self._running(ref).record.id, height, width)

    async def remove(self, ref: str, *, volumes: bool, link: bool, force: bool) -> None:
        if link:
            return await self._unlink(ref)
        await self._operate(lifecycle.remove(self.find(ref), volumes=volumes, force=force), f"remove {ref}")

    async def _unlink(self, ref: str) -> None:
        """``docker rm --link web/db``: web's link with the alias db; a running web keeps what it was started with."""
        parent, _, alias = ref.strip("/").rpartition("/")
        if not parent:
            raise errors.BAD_REQUEST(cause=f"Conflict, cannot remove the default link name of the container: {ref}")
        container = self.find(parent)
        async with container.lock:
            links = container.record.host.links or []
            kept = [item for item in links if planning.parse_link(item)[1] != alias]
            if len(kept) == len(links):
                raise errors.NO_SUCH_LINK(parent=parent, alias=alias)
            container.save(container.record.replace(host=container.record.host.replace(links=kept or None)))

    async def rename(self, ref: str, name: str) -> None:
        container = self.find(ref)
        if not name:
            raise errors.RENAME_EMPTY()
        new, old = check_name(name), container.record.name
        if new == old:
            raise errors.RENAME_SAME()
        async with container.lock:
            container.save(container.record.replace(name=new))
            await self._kit.network.renamed(container.record)
        container.emit("rename", oldName=f"/{old}")

    async def update(self, ref: str, resources: Resources, policy: RestartPolicy | None) -> Names:
        container = self.find(ref)
        planning.check_resources(resources)
        if policy is not None:
            planning.check_restart_policy(policy, auto_remove=False)
            if container.record.host.auto_remove and policy.name not in {"", "no"}:
                raise errors.UPDATE_RESTART_AUTOREMOVE()
        async with container.lock:
            record = container.record
            host = _updated(record.host, resources)
            planning.check_resources(host)
            if record.live:
                await self._kit.runtime.update(record.id, resources)
            if policy is not None and policy.name:
                host = host.replace(restart_policy=policy)
            container.save(record.replace(host=host))
        container.emit("update")
        return []

    async def prune(self, filters: Filters) -> Json:
        until = prune_until(filters, self._kit.now())
        removed: list[str] = []
        reclaimed = 0
        for container in list(self._kit.containers.values()):
            record = container.record
            if record.live or record.state.status == "restarting" or (until and record.created > until):
                continue
            if not _labels_allow(filters, record.config.labels or {}):
                continue
            own, _ = await self._kit.rootfs.usage(record.id)
            try:
                await self._kit.supervisor.operate(lifecycle.remove(container, volumes=False, force=False), "prune")
            except Conflict:
                continue  # Started or being removed by someone else since we looked.
            removed.append(record.id)
            reclaimed += own
        self._kit.events.emit("container", "prune", "", reclaimed=str(reclaimed))
        return {"ContainersDeleted": removed or None, "SpaceReclaimed": reclaimed}

    async def usage(self) -> Json:
        """The containers' part of ``docker system df``."""
        now = self._kit.now()
        return {
            "Containers": [
                item.row(now) | await self._sizes(item.record) for item in list(self._kit.containers.values())
            ]
        }

    # -- files ----------------------------------------------------------------------------------------------------

    async def archive_stat(self, ref: str, path: str) -> PathStat:
        return await archive.stat(self._kit, self.find(ref).record, path)

    async def archive_get(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        container = self.find(ref)
        found = await archive.get(self._kit, container.record, path)
        container.emit("archive-path")
        return found

    async def archive_put(
        self, ref: str, path: str, tar: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        container = self.find(ref)
        await archive.put(
            self._kit, container.record, path, tar, keep_kind=no_overwrite_dir_non_dir, copy_owner=copy_uid_gid
        )
        container.emit("extract-to-dir")


def _labels_allow(filters: Filters, labels: dict[str, str]) -> bool:
    if not match_labels(filters.get("label", ()), labels):
        return False
    return not any(match_labels([item], labels) for item in filters.get("label!", ()))


def _updated(host: HostConfig, changes: Resources) -> HostConfig:
    """Non-zero fields of ``changes`` win (moby container.UpdateContainer)."""
    zero = Resources()
    new = {
        name: value for name in Resources.__struct_fields__ if (value := getattr(changes, name)) != getattr(zero, name)
    }
    if "nano_cpus" in new:
        new |= {"cpu_period": 0, "cpu_quota": 0}
    elif "cpu_quota" in new or "cpu_period" in new:
        new["nano_cpus"] = 0
    return host.replace(**new)
