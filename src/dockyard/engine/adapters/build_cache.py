"""Registries as places where builds keep their caches, and push more than one image."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from dockyard.build.model import Request
from dockyard.build.ports import Compose, Lease, Transferred, Written
from dockyard.engine.adapters.build import auth_for
from dockyard.errors import System
from dockyard.oci import Digest, ImageRef, parse_reference
from dockyard.oci.documents import Descriptor
from dockyard.transfer import Transfer
from dockyard.transfer import manifests as wire
from dockyard.transfer.model import Part, Progress

__all__ = ["BuildRegistries", "push_parts", "told_of"]

Auth = Mapping[str, Any] | None


class BuildRegistries:
    """Implements ``build.ports.Registries``."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer

    def place(self, ref: str, request: Request) -> _Repository:
        name = parse_reference(ref).with_default_tag()
        return _Repository(self._transfer, name, auth_for(name, request.auths))


class _Repository:
    """Implements ``build.ports.BlobPlace``."""

    def __init__(self, transfer: Transfer, name: ImageRef, auth: Auth) -> None:
        self._transfer, self._name, self._auth = transfer, name, auth

    async def manifest(self, digest: str = "") -> bytes:
        return (await self._transfer.manifest(self._name, digest, auth=self._auth)).raw

    async def blob(self, digest: str, limit: int) -> bytes:
        return await self._transfer.blob(self._name, Digest(digest), auth=self._auth, limit=limit)

    async def layer(self, blob: Descriptor, diff_id: str, lease: Lease) -> None:
        described = wire.Descriptor(blob.media_type, blob.size, Digest(blob.digest))
        await self._transfer.layer(self._name, described, Digest(diff_id), auth=self._auth)

    async def write(self, layers: Sequence[str], compose: Compose, told: Transferred) -> Written:
        return await push_parts(self._transfer, self._name, layers, compose, self._auth, told)


async def push_parts(
    transfer: Transfer, name: ImageRef, layers: Sequence[str], compose: Compose, auth: Auth, told: Transferred
) -> Written:
    """Layers of the store and the documents that come of them. The last of these. Raises System and the registry's errors."""
    last: list[Written] = []

    def parts(blobs: Mapping[Digest, wire.Descriptor]) -> list[Part]:
        written = compose({layer: Descriptor(each.media_type, each.digest, each.size) for layer, each in blobs.items()})
        last.append(written[-1])
        return [Part(each.media_type, each.raw, each.manifest) for each in written]

    wanted = [Digest(layer) for layer in layers]
    stream: AsyncIterator[Progress] = await transfer.push_parts(name, wanted, parts, auth=auth)
    async for message in stream:
        if error := message.get("errorDetail"):
            raise System(str(error.get("message", "the push failed")))
        told_of(message, told)
    return last[0]


def told_of(message: Mapping[str, Any], told: Transferred) -> str:
    """Transfer's message as a transfer of the vertex; gives the digest where the message has it."""
    if "aux" in message:
        return str(message["aux"].get("Digest", ""))
    if identity := message.get("id"):
        detail = message.get("progressDetail") or {}
        total, status = int(detail.get("total") or 0), str(message.get("status", ""))
        done = status in ("Pushed", "Layer already exists") or status.startswith("Mounted from")
        told(f"pushing layer {identity}", int(detail.get("current") or total), total, done)
    return ""
