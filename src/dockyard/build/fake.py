"""In-memory twins of the ports, for tests of the solver: layers are tars in a dictionary, roots are plain directories
below one temporary one, a RUN is a Python function. No root, no kernel, no network.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dockyard.model.idmap import UNCHANGED
from dockyard.oci.digest import sha256_of
from dockyard.oci.documents import Descriptor

from .context import Context, single_file
from .errors import BAD_CACHE, FETCH_FAILED, NO_CACHE_PLACE
from .image import image_id
from .model import BaseImage, Layer, Request
from .ports import ContentStore, Lease, Output, Place, Process, Stubs, Told
from .tree import ContextTree

__all__ = ["FakeContentStore", "FakeExecutor", "FakeImages", "FakeLayers", "FakeNetworks", "FakeSession", "FakeSource"]

Script = Callable[[Process, Output], int]


class FakeLease:
    def __init__(self) -> None:
        self.held: set[str] = set()

    def hold(self, diff_ids: Iterable[str]) -> None:
        self.held.update(diff_ids)


class FakeLayers:
    ids = UNCHANGED

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tars: dict[str, bytes] = {}
        self.roots: dict[str, tuple[Path, dict[str, bytes]]] = {}
        self.leases: list[FakeLease] = []
        self.holders: list[Callable[[], set[str]]] = []
        self._count = 0

    def size(self, diff_id: str) -> int | None:
        return len(self.tars[diff_id]) if diff_id in self.tars else None

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        lease = FakeLease()
        self.leases.append(lease)
        try:
            yield lease
        finally:
            self.leases.remove(lease)

    def leased(self, diff_id: str) -> bool:
        return any(diff_id in lease.held for lease in self.leases)

    def collect(self) -> None:
        held = {layer for each in self.holders for layer in each()}
        for diff_id in list(self.tars):
            if diff_id not in held and not self.leased(diff_id):
                del self.tars[diff_id]

    def add(self, files: dict[str, bytes]) -> str:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, data in sorted(files.items()):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return self._put(out.getvalue())

    def _put(self, data: bytes) -> str:
        diff_id = "sha256:" + hashlib.sha256(data).hexdigest()
        self.tars[diff_id] = data
        return diff_id

    async def commit(self, pieces: Callable[[], Generator[bytes, None, None]], lease: Lease) -> Layer:
        data = await asyncio.to_thread(lambda: b"".join(pieces()))
        diff_id = self._put(data)
        lease.hold([diff_id])
        return Layer(diff_id, len(data))

    async def ingest(self, chunks: AsyncIterator[bytes], blob: Descriptor, diff_id: str, lease: Lease) -> Layer:
        packed = b"".join([piece async for piece in chunks])
        data = gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed
        if sha256_of(packed) != blob.digest or sha256_of(data) != diff_id:
            raise BAD_CACHE(cause=f"{blob.digest} is not what it says")
        lease.hold([self._put(data)])
        return Layer(diff_id, len(data))

    async def packed(self, diff_id: str) -> AsyncIterator[bytes]:
        yield gzip.compress(self.tars[diff_id], mtime=0)

    def _root(self, chain: Sequence[str]) -> Path:
        self._count += 1
        root = self.directory / f"root{self._count}"
        root.mkdir(parents=True)
        for diff_id in chain:
            with tarfile.open(fileobj=io.BytesIO(self.tars[diff_id])) as archive:
                for item in archive:
                    place = root / item.name
                    if item.isdir():
                        place.mkdir(parents=True, exist_ok=True)
                    elif item.isfile():
                        place.parent.mkdir(parents=True, exist_ok=True)
                        file = archive.extractfile(item)
                        place.write_bytes(file.read() if file else b"")
        return root

    async def merge(self, chain: Sequence[str], lease: Lease) -> Layer:
        diff_id = self.add(_files(self._root(chain)))
        lease.hold([diff_id])
        return Layer(diff_id, self.size(diff_id) or 0)

    def view(self, chain: Sequence[str]) -> int:
        return os.open(self._root(chain), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    async def prepare(self, key: str, chain: Sequence[str]) -> Path:
        root = self._root(chain)
        self.roots[key] = (root, _files(root))
        return root

    async def diff(self, key: str, stubs: Stubs, lease: Lease, epoch: int | None) -> Layer:
        root, before = self.roots[key]
        changed = {name: data for name, data in _files(root).items() if before.get(name) != data}
        if not changed:
            return Layer("")
        diff_id = self.add(changed)
        lease.hold([diff_id])
        return Layer(diff_id, self.size(diff_id) or 0)

    async def release(self, key: str) -> None:
        if key in self.roots:
            shutil.rmtree(self.roots.pop(key)[0])


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


class FakeExecutor:
    """``script`` does what a RUN would, in the process's root."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.ran: list[Process] = []
        self.gate: asyncio.Event | None = None
        """Where set, a run waits for it."""

    async def run(self, process: Process, output: Output) -> int:
        self.ran.append(process)
        if self.gate is not None:
            await self.gate.wait()
        return self.script(process, output)


class FakeImages:
    def __init__(self, layers: FakeLayers) -> None:
        self._layers = layers
        self.known: dict[str, BaseImage] = {}
        self.configs: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        layers.holders.append(self.layers)

    def add(self, ref: str, files: dict[str, bytes], config: dict[str, Any] | None = None) -> BaseImage:
        chain = (self._layers.add(files),)
        document = {"config": config or {}, "rootfs": {"type": "layers", "diff_ids": list(chain)}}
        raw = json.dumps(document).encode()
        image = self.known[ref] = BaseImage(ref, image_id(raw), document, chain)
        return image

    async def resolve(self, ref: str, platform: str, request: Request, told: Told | None = None) -> BaseImage:
        if ref not in self.known:
            raise FETCH_FAILED(url=ref, cause="no such image")
        return self.known[ref]

    def has(self, ref: str) -> bool:
        return ref in self.known or ref in self.tags

    def register(self, config: bytes) -> str:
        self.configs[image_id(config)] = config
        return image_id(config)

    def tag(self, image: str, tags: Sequence[str]) -> None:
        self.tags.update(dict.fromkeys(tags, image))

    def layers(self) -> set[str]:
        documents = [json.loads(raw) for raw in self.configs.values()]
        bases = {layer for image in self.known.values() for layer in image.diff_ids}
        return bases | {layer for document in documents for layer in document["rootfs"]["diff_ids"]}


class FakeNetworks:
    def __init__(self) -> None:
        self.attached: set[str] = set()
        self.made = 0

    async def attach(self, network: str, sandbox: str, extra_hosts: Sequence[str]) -> Place:
        self.attached.add(sandbox)
        self.made += 1
        return Place(sandbox, f"/netns/{sandbox}")

    async def detach(self, sandbox: str) -> None:
        self.attached.discard(sandbox)


class FakeSession:
    def __init__(self, secrets: dict[str, bytes] | None = None) -> None:
        self.secrets = secrets or {}
        self.stores: dict[str, ContentStore] = {}

    async def secret(self, id: str) -> bytes | None:
        return self.secrets.get(id)

    async def ssh_socket(self, id: str) -> str | None:
        return None

    async def content_store(self, name: str) -> ContentStore | None:
        return self.stores.get(name)


class FakeContentStore:
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        if digest not in self.blobs:
            raise NO_CACHE_PLACE(place=digest, cause="no such blob")
        yield self.blobs[digest]

    async def write(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        data = b"".join([piece async for piece in chunks])
        self.blobs[str(sha256_of(data))] = data


class FakeSource:
    """A Dockerfile and the files beside it."""

    def __init__(self, directory: Path, text: str, files: dict[str, bytes] | None = None) -> None:
        self._text = text
        entries = {}
        content = b"".join((files or {}).values())
        spool = single_file(directory, "all", content).tree
        assert isinstance(spool, ContextTree)
        offset = 0
        for name, data in (files or {}).items():
            whole = spool.entries["all"]
            digest = hashlib.sha256(data).digest()
            entries[name] = type(whole)(name, whole.kind, 0o644, size=len(data), digest=digest, offset=offset)
            offset += len(data)
        self._context = Context(ContextTree(entries, spool.spool))

    async def dockerfile(self, name: str) -> bytes:
        return self._text.encode()

    async def context(self, name: str, patterns: Sequence[str]) -> Context:
        return self._context

    def close(self) -> None:
        self._context.close()
