"""The twin of images and writable layers: names and configs, no bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from dockyard.engine.errors import NO_SUCH_IMAGE
from dockyard.engine.ports import ImageInfo
from dockyard.model import ContainerConfig, is_id_prefix
from dockyard.oci import parse_reference

Json = dict[str, Any]
EMPTY_TAR = bytes(1024)


class FakeRootfs:
    def __init__(self, images: dict[str, ImageInfo] | None = None) -> None:
        self.images = images if images is not None else {}
        self.layers: dict[str, str] = {}
        self.mounted: set[str] = set()

    def add_image(self, name: str, digest: str, config: ContainerConfig) -> None:
        self.images[name] = self.images[digest] = ImageInfo(digest, config, "linux/amd64", (name,))

    def image(self, ref: str) -> ImageInfo:
        for key in (ref, f"sha256:{ref}"):
            if key in self.images:
                return self.images[key]
        if not is_id_prefix(ref) and not ref.startswith("sha256:"):
            name = parse_reference(ref).with_default_tag().familiar
            if name in self.images:
                return self.images[name]
        for key, image in self.images.items():
            if len(ref) >= 4 and key.startswith("sha256:" + ref.removeprefix("sha256:")):
                return image
        raise NO_SUCH_IMAGE(ref=ref if ":" in ref else f"{ref}:latest")

    async def prepare(self, container_id: str, image_id: str, *, mapped: bool, durable: bool) -> None:
        self.layers[container_id] = image_id

    async def remove(self, container_id: str) -> None:
        self.mounted.discard(container_id)
        self.layers.pop(container_id, None)

    async def mount(self, container_id: str) -> str:
        self.mounted.add(container_id)
        return f"/nowhere/{container_id}"

    async def unmount(self, container_id: str) -> None:
        self.mounted.discard(container_id)

    async def mount_image(self, container_id: str, ref: str) -> str:
        return f"/nowhere/{self.image(ref).id}"

    def graph_driver(self, container_id: str) -> Json:
        return {"Name": "overlay2", "Data": None}

    async def usage(self, container_id: str) -> tuple[int, int]:
        return 0, 0

    async def changes(self, container_id: str) -> list[tuple[int, str]]:
        return []

    async def export(self, container_id: str) -> AsyncIterator[bytes]:
        return _chunks(EMPTY_TAR)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data
