"""Storage and transfer behind the exporters of BuildKit's door."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

import msgspec

from dockyard.build.doors.buildkit.ports import Package, PushProgress
from dockyard.build.model import BaseImage, Request
from dockyard.build.ports import Written
from dockyard.build.service import Result
from dockyard.engine.adapters.build import DOCKER_HUB, BuildImages
from dockyard.engine.adapters.build_cache import push_parts, told_of
from dockyard.errors import System
from dockyard.lib.clock import parse_rfc3339
from dockyard.oci import Digest, parse_reference, sha256_of
from dockyard.oci.archive import SavedImage
from dockyard.oci.attestations import Described, image_index
from dockyard.oci.documents import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor
from dockyard.storage import Store
from dockyard.transfer import Transfer
from dockyard.transfer import manifests as wire

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

    def save(self, packages: Sequence[Package], names: Sequence[str]) -> AsyncGenerator[bytes, None]:
        refs = [parse_reference(name).with_default_tag() for name in names]
        first, *others = [self._saved(package, tuple((str(ref), ref.familiar) for ref in refs)) for package in packages]
        return self._store.save_unrecorded(replace(first, others=tuple(others)))

    def _saved(self, package: Package, names: tuple[tuple[str, str], ...]) -> SavedImage:
        result = package.result
        layers = [Digest(diff_id) for diff_id in result.diff_ids]
        created = msgspec.json.decode(result.config).get("created") or ""
        return SavedImage(
            result.config, tuple((layer, self._store.layers.get(layer).size) for layer in layers), names,
            parse_rfc3339(created), package.attestations, (), package.annotations,
        )  # fmt: skip

    async def push_index(
        self, name: str, packages: Sequence[Package], auth: Mapping[str, str], progress: PushProgress
    ) -> Written:
        ref = parse_reference(name).with_default_tag()
        layers = list(dict.fromkeys(layer for package in packages for layer in package.result.diff_ids))

        def documents(blobs: Mapping[str, Descriptor]) -> list[Written]:
            return _index_of(packages, ref.familiar, blobs)

        return await push_parts(self._transfer, ref, layers, documents, auth or None, progress)

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


def _index_of(packages: Sequence[Package], name: str, blobs: Mapping[str, Descriptor]) -> list[Written]:
    """Configs and manifests of the images, then what is attested about them, the index last."""
    written: list[Written] = []
    described = []
    for package in packages:
        config = package.result.config
        about = wire.Descriptor(OCI_CONFIG, len(config), sha256_of(config))
        layers = [
            wire.Descriptor(wire.to_oci(blobs[layer].media_type), blobs[layer].size, Digest(blobs[layer].digest))
            for layer in package.result.diff_ids
        ]
        manifest = wire.write_oci_manifest(about, layers, package.annotations.manifest)
        written += [Written(OCI_CONFIG, config), Written(manifest.media_type, manifest.raw, manifest=True)]
        row = package.annotations.row(
            {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.raw)}
        )
        described.append(Described(config, row, package.attestations))
    if len(packages) == 1 and packages[0].alone:
        return written
    _, made = image_index(described, [name], packages[0].annotations.index)
    return written + [Written(kind, raw, manifest=kind in (OCI_MANIFEST, OCI_INDEX)) for kind, raw in made]
