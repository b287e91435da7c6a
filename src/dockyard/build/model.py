"""Nouns of the build room.

*Request*: what the caller wants. *Graph*: stages that the target needs, each a line of *steps*. A step's operation says
what it does to the file system (Exec, Copy, Workdir) or that it only changes the image config (Meta). *Layer*: what a
step left behind. Image configs are plain dictionaries with Docker's capitals: fields nobody here knows must survive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .dockerfile.mounts import Mount

__all__ = [
    "BaseImage", "Copy", "Exec", "Graph", "Layer", "Meta", "Operation", "Origin", "PlannedStage", "Request", "Step",
    "Workdir",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class BaseImage:
    """What FROM stands on. ``document`` is the whole parsed image config; ``id`` is "" for scratch."""

    ref: str
    id: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)
    diff_ids: tuple[str, ...] = ()
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """``diff_id`` is "" where a step changed nothing: no layer is made of it."""

    diff_id: str
    size: int = 0


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where COPY or a mount reads from: exactly one is set; none means the build context."""

    stage: int | None = None
    image: str = ""
    context: str = ""  # a named context of --build-context


class Exec(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """``hidden_env`` (proxy ARGs) reaches the process but not the key or the history."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    mounts: tuple[Mount, ...] = ()
    origins: tuple[Origin, ...] = ()  # one per mount
    network: str = ""
    security: str = "sandbox"
    files: tuple[tuple[str, str], ...] = ()  # heredoc scripts: (name below /dev/pipes, content)
    hidden_env: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()


class Copy(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """``inline``: (name, content) of heredoc sources. ``target`` is absolute; its trailing slash means a directory."""

    sources: tuple[str, ...]
    target: str
    origin: Origin = Origin()
    inline: tuple[tuple[str, str], ...] = ()
    chown: str = ""
    chmod: str = ""
    exclude: tuple[str, ...] = ()
    parents: bool = False
    link: bool = False
    add: bool = False
    unpack: bool | None = None
    checksum: str = ""
    keep_git_dir: bool = False


class Workdir(msgspec.Struct, frozen=True, tag=True):
    path: str
    user: str = ""


class Meta(msgspec.Struct, frozen=True, tag=True):
    """The text that changed the config (for the key)."""

    text: str


Operation = Exec | Copy | Workdir | Meta


@dataclass(frozen=True, slots=True)
class Step:
    """``text`` is what is shown, ``history`` what the image remembers; ``number`` counts from 1 within the graph."""

    number: int
    text: str
    operation: Operation
    history: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """``base`` is an image or the index of an earlier stage; ``config`` is the image config's inner ``config``."""

    index: int
    name: str
    base: BaseImage | int
    from_text: str
    steps: tuple[Step, ...]
    config: Mapping[str, Any]
    author: str
    needs: frozenset[int]
    number: int = 0  # of the FROM line, among all steps


@dataclass(frozen=True, slots=True)
class Graph:
    """Stages in the file's order, only those that the target needs."""

    stages: tuple[PlannedStage, ...]
    target: int
    platform: tuple[str, str, str]  # os, architecture, variant
    total: int
    warnings: tuple[str, ...] = ()
    epoch: int | None = None
    images: Mapping[str, BaseImage] = field(default_factory=dict)  # by reference, what COPY --from and mounts name

    def stage(self, index: int) -> PlannedStage:
        return next(s for s in self.stages if s.index == index)


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """A build, whichever door it came through. ``platform`` is "os/arch[/variant]" or "" for the host's."""

    dockerfile: str = "Dockerfile"
    classic: bool = False
    """Came through POST /build: the image's history is told as moby's own builder does, not as BuildKit."""
    tags: tuple[str, ...] = ()
    target: str = ""
    platform: str = ""
    build_args: dict[str, str | None] = {}
    labels: dict[str, str] = {}
    quiet: bool = False
    no_cache: bool = False
    no_cache_stages: tuple[str, ...] = ()
    pull: bool = False
    squash: bool = False
    network: str = ""
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cgroup_parent: str = ""
    ulimits: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    remote: str = ""
    entitlements: tuple[str, ...] = ()
    isolation: str = ""
    id: str = ""
    keep_failed: bool = False
    auths: dict[str, dict[str, str]] = {}
    contexts: dict[str, str] = {}
