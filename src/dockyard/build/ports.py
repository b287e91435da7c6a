"""What the build room needs from others. ``drivers/`` has the real ones, ``fake.py`` verified twins for tests.

A step's file system: ``prepare(key, chain)`` gives a writable root over layers; RUN happens in it; ``diff(key)``
makes a layer of what changed; ``release(key)`` forgets it (always called). COPY prepares a root only to look at it and
commits a tar of its own, so that nothing is ever written through a path that an image controls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .context import Context
from .model import BaseImage, Layer, Request

__all__ = ["BindMount", "Executor", "Images", "Layers", "Networks", "Output", "Process", "Session", "Source"]

Output = Callable[[int, bytes], None]
"""(1 stdout or 2 stderr, data); never waits."""


@dataclass(frozen=True, slots=True)
class BindMount:
    """``source`` is a path of this host that stays valid during the run ("" for tmpfs, then ``size`` bytes or 0)."""

    target: str
    source: str = ""
    read_only: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """``network``: "none", "host" or the path of a network namespace. ``user`` is looked up inside the root."""

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
    async def resolve(self, ref: str, platform: str, request: Request) -> BaseImage:
        """A local image, or a pulled one (always when ``request.pull``). Raises NotFound."""
        ...

    async def register(self, config: bytes, tags: Sequence[str]) -> str:
        """Record an image whose layers are committed; returns its ID. Same bytes, same ID."""
        ...


class Layers(Protocol):
    def has(self, diff_id: str) -> bool: ...

    async def commit(self, pieces: Callable[[], Iterator[bytes]]) -> Layer:
        """Store a layer tar; the generator is made and consumed in a thread."""
        ...

    async def prepare(self, key: str, chain: Sequence[str]) -> Path:
        """Mounted writable root over the layers, lowest first."""
        ...

    async def diff(self, key: str, stubs: frozenset[str]) -> Layer:
        """What changed. ``stubs`` are mount points that the run created ("/run/secrets"): left out where empty."""
        ...

    async def release(self, key: str) -> None: ...

    def keep(self, name: str, chain: Sequence[str]) -> None:
        """The cache holds these layers, across restarts, until ``drop(name)``."""
        ...

    def drop(self, name: str) -> None: ...


class Executor(Protocol):
    async def run(self, process: Process, output: Output) -> int:
        """Exit code (128 + signal). Cancelling kills the process and waits for its end."""
        ...


class Networks(Protocol):
    async def attach(self, network: str, sandbox: str, extra_hosts: Sequence[str]) -> tuple[str, list[BindMount]]:
        """A place on the network ("" or "default" is the default bridge): (mode or namespace path, files to bind, such
        as resolv.conf and hosts). Raises NotFound."""
        ...

    async def detach(self, sandbox: str) -> None: ...


class Session(Protocol):
    """What only the client has."""

    async def secret(self, id: str) -> bytes | None: ...

    async def ssh_socket(self, id: str) -> str | None:
        """Path of a unix socket that leads to the client's agent; valid while the build runs."""
        ...


class Source(Protocol):
    """The build context, however it travels. Doors give one; the solver asks only for what COPY needs."""

    async def dockerfile(self, name: str) -> bytes:
        """Content of the Dockerfile (or of its .dockerignore). Raises NotFound."""
        ...

    async def context(self, name: str, patterns: Sequence[str]) -> Context:
        """The main context ("") or a named one, with at least what ``patterns`` (followed paths) select."""
        ...
