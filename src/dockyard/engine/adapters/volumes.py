"""Volumes and binds of containers over ``dockyard.storage``, and the volumes of the Engine API."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dockyard.engine.errors import BAD_REQUEST
from dockyard.engine.kit import Kit
from dockyard.engine.model import MountPoint
from dockyard.engine.plan.select import Filters, flag, match_labels
from dockyard.engine.ports import Json
from dockyard.errors import DockyardError, NotFound
from dockyard.kernel import safefs
from dockyard.model import new_id
from dockyard.storage import Store, Volume

ANONYMOUS_LABEL = "com.docker.volume.anonymous"


class VolumeAdapter:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def ensure(self, point: MountPoint, container_id: str) -> MountPoint:
        if point.type == "bind":
            return self._bind(point, self._store.ids.root)
        if point.type != "volume":
            return point
        if point.driver not in {"", "local"}:
            raise BAD_REQUEST(cause=f'error looking up volume plugin {point.driver}: plugin "{point.driver}" not found')
        name = point.name or new_id()
        labels = dict(point.labels) | ({ANONYMOUS_LABEL: ""} if point.anonymous else {})
        volume = self._store.volumes.create(name, point.driver_opts, labels)
        return msgspec.structs.replace(point, name=name, driver="local", source=volume.mountpoint)

    @staticmethod
    def _bind(point: MountPoint, owner: tuple[int, int]) -> MountPoint:
        """``owner`` (uid, gid) of a source that is made."""
        if not os.path.exists(point.source):
            if not point.create_source:
                raise BAD_REQUEST(
                    cause=f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
                )
            with safefs.root_fd("/") as root:
                os.close(safefs.make_dirs(root, point.source, owner=owner))
        return point

    async def copy_up(self, point: MountPoint, rootfs: str) -> None:
        await self._store.fill_volume(point.name, Path(rootfs), point.target)

    async def mount(self, point: MountPoint, container_id: str) -> str:
        return self._store.volumes.attach(point.name)

    async def unmount(self, point: MountPoint, container_id: str) -> None:
        self._store.volumes.detach(point.name)

    async def remove_anonymous(self, point: MountPoint, container_id: str) -> None:
        try:
            self._store.volumes.remove(point.name)
        except DockyardError:
            return  # Gone already, or another container has it through --volumes-from.

    async def release(self, container_id: str) -> None:
        return None


class Volumes:
    """Volumes as the API sees them."""

    def __init__(self, store: Store, kit: Kit) -> None:
        self._store = store
        self._kit = kit

    def _users(self) -> Mapping[str, list[str]]:
        users: dict[str, list[str]] = {}
        for container in self._kit.containers.values():
            for point in container.record.mounts:
                if point.type == "volume":
                    users.setdefault(point.name, []).append(container.record.id)
        return users

    @staticmethod
    def _document(volume: Volume) -> Json:
        return {
            "CreatedAt": volume.created, "Driver": volume.driver, "Labels": dict(volume.labels) or None,
            "Mountpoint": volume.mountpoint, "Name": volume.name, "Options": dict(volume.options) or None, "Scope": "local",
        }  # fmt: skip

    async def list(self, filters: Filters) -> Json:
        users = self._users()
        rows = [self._document(volume) for volume in self._store.volumes.all() if _selected(volume, filters, users)]
        return {"Volumes": rows, "Warnings": None}

    async def create(self, name: str, driver: str, options: dict[str, str], labels: dict[str, str]) -> Json:
        if driver != "local":
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        if not name:
            name, labels = new_id(), labels | {ANONYMOUS_LABEL: ""}
        known = {volume.name for volume in self._store.volumes.all()}
        volume = self._store.volumes.create(name, options, labels)
        if name not in known:
            self._kit.events.emit("volume", "create", name, driver=driver)
        return self._document(volume)

    async def inspect(self, name: str) -> Json:
        return self._document(self._store.volumes.get(name))

    async def remove(self, name: str, *, force: bool) -> None:
        try:
            self._store.volumes.remove(name, self._users().get(name, ()))
        except NotFound:
            if force:
                return
            raise
        self._kit.reserve.hold()
        self._kit.events.emit("volume", "destroy", name, driver="local")

    async def prune(self, filters: Filters) -> Json:
        """Anonymous ones only, unless ``all``: API 1.42."""
        every = flag(filters, "all", False)
        users = self._users()
        gone: list[str] = []
        freed = 0
        for volume in self._store.volumes.all():
            if users.get(volume.name) or not (every or ANONYMOUS_LABEL in volume.labels):
                continue
            if not match_labels(filters.get("label", ()), volume.labels):
                continue
            if any(match_labels([item], volume.labels) for item in filters.get("label!", ())):
                continue
            freed += self._store.volumes.usage(volume.name)
            await self.remove(volume.name, force=True)
            gone.append(volume.name)
        self._kit.events.emit("volume", "prune", "", reclaimed=str(freed))
        return {"VolumesDeleted": gone, "SpaceReclaimed": freed}

    async def usage(self) -> Json:
        users = self._users()
        rows = []
        for volume in self._store.volumes.all():
            size = self._store.volumes.usage(volume.name)
            rows.append(
                self._document(volume) | {"UsageData": {"RefCount": len(users.get(volume.name, ())), "Size": size}}
            )
        return {"Volumes": rows}


def _selected(volume: Volume, filters: Filters, users: Mapping[str, Any]) -> bool:
    if not match_labels(filters.get("label", ()), volume.labels):
        return False
    if (names := filters.get("name")) and not any(name in volume.name for name in names):
        return False
    if (drivers := filters.get("driver")) and volume.driver not in drivers:
        return False
    dangling = flag(filters, "dangling")
    return dangling is None or dangling == (not users.get(volume.name))
