"""Storage and transfer behind the exporters of BuildKit's door."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec

from dockyard.build.doors.buildkit.ports import PushProgress
from dockyard.build.model import BaseImage, Request
from dockyard.build.service import Result
from dockyard.engine.adapters.build import DOCKER_HUB, BuildImages
from dockyard.engine.adapters.build_cache import told_of
from dockyard.errors import System
from dockyard.lib.clock import parse_rfc3339
from dockyard.oci import Digest, parse_reference
from dockyard.oci.archive import SavedImage
from dockyard.oci.attestations import Attestation
from dockyard.storage import Store
from dockyard.transfer import Transfer

__all__ = ["BuildShelf"]

LENT = "dockyard.internal/lent/"
"""No registry: references to results that are not recorded."""


class BuildShelf:
    """Implements ``doors.buildkit.ports.ImageShelf``."""

    def __init__(self, store: Store, transfer: Transfer, bases: BuildImages) -> None:
        self._store, self._transfer, self._bases = store, transfer, bases

    async def register(self, result: Result, tags: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        names = tuple(dict.fromkeys(str(parse_reference(tag).with_default_tag()) for tag in tags))
        image = result.image
        if Digest(image) not in self._store.images:
            image = self._bases.register(result.config)
        self._bases.tag(image, names)
        return image, names

    def lend(self, result: Result) -> str:
        reference = f"{LENT}{secrets.token_hex(8)}"
        document = msgspec.json.decode(result.config)
        self._bases.lent[reference] = BaseImage(reference, result.image, document, result.diff_ids)
        return reference

    def take_back(self, reference: str) -> None:
        self._bases.lent.pop(reference, None)

    def save(
        self, result: Result, names: Sequence[str], attestations: Sequence[Attestation]
    ) -> AsyncGenerator[bytes, None]:
        refs = [parse_reference(name).with_default_tag() for name in names]
        layers = [Digest(diff_id) for diff_id in result.diff_ids]
        created = msgspec.json.decode(result.config).get("created") or ""
        image = SavedImage(
            result.config, tuple((layer, self._store.layers.get(layer).size) for layer in layers),
            tuple((str(ref), ref.familiar) for ref in refs), parse_rfc3339(created), tuple(attestations),
        )  # fmt: skip
        return self._store.save_unrecorded(image)

    async def push(self, name: str, auth: Mapping[str, str], progress: PushProgress) -> str:
        digest = ""
        async for message in await self._transfer.push(parse_reference(name), auth=auth or None):
            if error := message.get("errorDetail"):
                raise System(str(error.get("message", "the push failed")))
            digest = told_of(message, progress) or digest
        return digest

    async def config(self, ref: str, platform: str, auth: Mapping[str, str]) -> tuple[str, bytes]:
        name = parse_reference(ref).with_default_tag()
        key = DOCKER_HUB if name.domain == "docker.io" else name.domain
        base = await self._bases.resolve(str(name), platform, Request(auths={key: dict(auth)} if auth else {}))
        return base.digest or base.id, self._store.get_image(base.id).config.raw
