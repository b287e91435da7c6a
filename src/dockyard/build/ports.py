"""What the build room needs from others. ``drivers/`` has the real ones, ``fake.py`` verified twins for tests.

A step's file system: ``prepare(key, chain)`` gives a writable root over layers; RUN happens in it; ``diff(key)``
makes a layer of what changed; ``release(key)`` forgets it (always called). COPY only looks at a ``view`` of its target
and commits a tar of its own, so that nothing is ever written through a path that an image controls.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dockyard.model import IdMaps
from dockyard.oci.documents import Descriptor

from .context import Context
from .model import BaseImage, Layer, Request

__all__ = [
    "BindMount", "BlobPlace", "Compose", "ContentStore", "Executor", "Images", "Layers", "Lease", "Networks", "Output",
    "Place", "Process", "Registries", "Session", "Source", "Stubs", "Told", "Transferred", "Written",
]  # fmt: skip

Output = Callable[[int, bytes], None]
"""(1 stdout or 2 stderr, data); never waits."""


Told = Callable[[str, str, int, int], None]
"""Of a pull: (layer or "", Docker's status word, bytes so far, bytes in all or 0); never waits."""


@dataclass(frozen=True, slots=True)
class BindMount:
    """``source`` is a path of this host that stays valid during the run ("" for tmpfs, then ``size`` bytes or 0)."""

    target: str
    source: str = ""
    read_only: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """``network``: "host" or the path of a network namespace. ``user`` is looked up inside the root. ``id`` is 64 hex
    digits."""

    id: str
    root: Path
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    mounts: tuple[BindMount, ...]
    network: str
    insecure: bool
    limits: Request


class Images(Protocol):
    async def resolve(self, ref: str, platform: str, request: Request, told: Told | None = None) -> BaseImage:
        """A local image, or a pulled one (always when ``request.pull``). Raises NotFound."""
        ...

    def has(self, ref: str) -> bool:
        """Whether such an image is here."""
        ...

    def register(self, config: bytes) -> str:
        """Record an image whose layers are committed; returns its ID. Same bytes, same ID."""
        ...

    def tag(self, image: str, tags: Sequence[str]) -> None:
        """Full references; they move to the image."""
        ...

    def layers(self) -> set[str]:
        """Diff IDs that images hold."""
        ...


@dataclass(frozen=True, slots=True)
class Stubs:
    """What mounts of a run leave in its root: ``made`` mount points ("run/secrets", parents first) that were not there,
    and the directories they were made in, with (mode, uid, gid) from before. ``diff`` leaves both out where nothing else
    came of them; nothing is ever deleted by name (CVE-2024-23652)."""

    made: tuple[str, ...] = ()
    parents: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)


class Lease(Protocol):
    def hold(self, diff_ids: Iterable[str]) -> None:
        """These layers stay while the lease lives, whatever is pruned meanwhile."""
        ...


class Layers(Protocol):
    @property
    def ids(self) -> IdMaps:
        """How owners in a prepared root differ from those in its layers (a user namespace)."""
        ...

    def size(self, diff_id: str) -> int | None:
        """None where the layer is not here (any more)."""
        ...

    def lease(self) -> AbstractContextManager[Lease]: ...

    def leased(self, diff_id: str) -> bool: ...

    def collect(self) -> None:
        """Remove layers that nothing holds."""
        ...

    async def commit(self, pieces: Callable[[], Generator[bytes, None, None]], lease: Lease) -> Layer:
        """Store a layer tar; the generator is made and consumed in a thread."""
        ...

    async def ingest(self, chunks: AsyncIterator[bytes], blob: Descriptor, diff_id: str, lease: Lease) -> Layer:
        """A layer that was made elsewhere, packed or not. Raises DataLoss where it is not what both digests say."""
        ...

    def packed(self, diff_id: str) -> AsyncIterator[bytes]:
        """A layer's tar in gzip, the same bytes each time."""
        ...

    async def merge(self, chain: Sequence[str], lease: Lease) -> Layer:
        """All of these as one layer; what they hide of layers below them stays hidden."""
        ...

    def view(self, chain: Sequence[str]) -> int:
        """A descriptor of the layers' root, lowest first, read-only; the caller closes it."""
        ...

    async def prepare(self, key: str, chain: Sequence[str]) -> Path:
        """Mounted writable root over the layers."""
        ...

    async def diff(self, key: str, stubs: Stubs, lease: Lease, epoch: int | None) -> Layer:
        """What changed, as a layer; no time in it is after ``epoch`` (seconds)."""
        ...

    async def release(self, key: str) -> None:
        """Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """A document that goes to a place of blobs; a ``manifest`` is what its name may lead to."""

    media_type: str
    raw: bytes
    manifest: bool = False


Compose = Callable[[Mapping[str, Descriptor]], Sequence[Written]]
"""The documents, once it is known what the layers (by diff ID) are called there; pure, may be called in a thread."""

Transferred = Callable[[str, int, int, bool], None]
"""(what, bytes so far, bytes in all or 0, done); never waits."""


class BlobPlace(Protocol):
    """A repository of a registry, or a directory of the client: where a cache is kept."""

    async def manifest(self, digest: str = "") -> bytes:
        """What the place's name leads to, or one by its digest. Raises NotFound, Unavailable, Unauthorized."""
        ...

    async def blob(self, digest: str, limit: int) -> bytes:
        """Verified."""
        ...

    async def layer(self, blob: Descriptor, diff_id: str, lease: Lease) -> None:
        """Into the store, verified against both digests; the lease holds it already."""
        ...

    async def write(self, layers: Sequence[str], compose: Compose, told: Transferred) -> Written:
        """Layers of the store, then the documents; gives back the last, which the name leads to from now on."""
        ...


class Registries(Protocol):
    def place(self, ref: str, request: Request) -> BlobPlace:
        """With the credentials of the request. Raises InvalidParameter for a bad name."""
        ...


class ContentStore(Protocol):
    """A store of blobs on the client's side."""

    def read(self, digest: str) -> AsyncIterator[bytes]:
        """Raises NotFound."""
        ...

    async def write(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """``name``: of the upload; the blob is called by its digest."""
        ...


class Executor(Protocol):
    async def run(self, process: Process, output: Output) -> int:
        """Exit code (128 + signal). Cancelling kills the process and waits for its end. Raises System where it cannot
        be started."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """A place on a network. ``mode``: "host" or the path of a network namespace; ``files``: content by target path, such
    as /etc/hosts and /etc/resolv.conf."""

    sandbox: str
    mode: str
    files: Mapping[str, bytes] = field(default_factory=dict)


class Networks(Protocol):
    async def attach(self, network: str, sandbox: str, extra_hosts: Sequence[str]) -> Place:
        """``network``: "" or "default" is the default bridge; host, none, container:NAME or a network's name. Raises
        NotFound."""
        ...

    async def detach(self, sandbox: str) -> None:
        """Idempotent."""
        ...


class Session(Protocol):
    """What only the client has."""

    async def secret(self, id: str) -> bytes | None: ...

    async def ssh_socket(self, id: str) -> str | None:
        """Path of a unix socket that leads to the client's agent; valid while the build runs."""
        ...

    async def content_store(self, name: str) -> ContentStore | None:
        """None where the client offers none of that name."""
        ...


class Source(Protocol):
    """The build context, however it travels. Doors give one; the solver asks only for what COPY needs."""

    async def dockerfile(self, name: str) -> bytes:
        """Content of the Dockerfile (or of its .dockerignore). Raises NotFound."""
        ...

    async def context(self, name: str, patterns: Sequence[str]) -> Context:
        """The main context ("") or a named one, with at least what ``patterns`` (followed paths) select."""
        ...
