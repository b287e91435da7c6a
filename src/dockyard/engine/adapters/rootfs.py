"""``dockyard.storage`` behind the engine's Rootfs port: images as configs, containers' writable layers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from dockyard.engine.plan.names import no_such_image
from dockyard.engine.ports import ImageInfo
from dockyard.errors import NotFound
from dockyard.model import ContainerConfig
from dockyard.model.wire import convert
from dockyard.storage import Store

Json = dict[str, Any]


class RootfsAdapter:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._configs: dict[str, ContainerConfig] = {}

    def image(self, ref: str) -> ImageInfo:
        try:
            image = self._store.images.get(ref)
        except NotFound:
            raise no_such_image(ref) from None
        config = self._configs.get(image.id)
        if config is None:
            config = self._configs[image.id] = convert(image.config.document.config or {}, ContainerConfig)
        document = image.config.document
        platform = "/".join(filter(None, (document.os, document.architecture, document.variant)))
        return ImageInfo(image.id, config, platform, image.repo_tags)

    async def prepare(self, container_id: str, image_id: str, *, mapped: bool, durable: bool) -> None:
        self._store.prepare(container_id, image_id or None, mapped=mapped, durable=durable)

    async def remove(self, container_id: str) -> None:
        for key in (container_id, *self._image_mounts(container_id)):
            try:
                await self._store.unmount(key)
                self._store.remove(key)
            except NotFound:
                continue

    def _image_mounts(self, container_id: str) -> list[str]:
        return [item.key for item in self._store.snapshots.all() if item.key.startswith(f"{container_id}.image")]

    async def mount(self, container_id: str) -> str:
        return str(self._store.mount(container_id))

    async def unmount(self, container_id: str) -> None:
        try:
            await self._store.unmount(container_id)
        except NotFound:
            return

    async def mount_image(self, container_id: str, ref: str) -> str:
        key = f"{container_id}.image.{self.image(ref).id.removeprefix('sha256:')[:12]}"
        if not any(item.key == key for item in self._store.snapshots.all()):
            self._store.prepare(key, ref, mapped=bool(self._store.snapshots.ids(container_id)))
        return str(self._store.mount(key))

    def graph_driver(self, container_id: str) -> Json:
        try:
            base = str(self._store.path(container_id).parent)
        except NotFound:
            return {"Name": "overlay2", "Data": None}
        snapshots = self._store.snapshots
        lower = ":".join(snapshots.lower_paths(snapshots.get(container_id)))
        data = {"MergedDir": f"{base}/merged", "UpperDir": f"{base}/upper", "WorkDir": f"{base}/work", "LowerDir": lower}
        return {"Name": "overlay2", "Data": data}

    async def usage(self, container_id: str) -> tuple[int, int]:
        own, _ = await self._store.usage(container_id)
        snapshot = self._store.snapshots.get(container_id)
        return own, own + sum(self._store.layers.get(layer).size for layer in snapshot.diff_ids)

    async def changes(self, container_id: str) -> list[tuple[int, str]]:
        return [(int(kind), path) for kind, path in await self._store.changes(container_id)]

    async def export(self, container_id: str) -> AsyncIterator[bytes]:
        return self._store.export(container_id)
