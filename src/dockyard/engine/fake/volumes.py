"""The twin of volumes: names and who uses them."""

from __future__ import annotations

from dockyard.engine.model import MountPoint
from dockyard.model import new_id


class FakeVolumes:
    def __init__(self) -> None:
        self.users: dict[str, set[str]] = {}

    async def ensure(self, point: MountPoint, container_id: str) -> MountPoint:
        if point.type != "volume":
            return point
        name = point.name or new_id()
        self.users.setdefault(name, set()).add(container_id)
        import msgspec

        return msgspec.structs.replace(point, name=name, driver="local", source=f"/nowhere/volumes/{name}/_data")

    async def copy_up(self, point: MountPoint, rootfs: str) -> None:
        return None

    async def mount(self, point: MountPoint, container_id: str) -> str:
        return point.source

    async def unmount(self, point: MountPoint, container_id: str) -> None:
        return None

    async def remove_anonymous(self, point: MountPoint, container_id: str) -> None:
        if self.users.get(point.name, set()) <= {container_id}:
            self.users.pop(point.name, None)

    async def release(self, container_id: str) -> None:
        for users in self.users.values():
            users.discard(container_id)
