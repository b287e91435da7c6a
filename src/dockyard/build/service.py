"""The builder: what both doors call.

::

    door ── Request, Source, Session ──► Builder.build ──► events to the sink ... Result
                                              │
            parse ─► plan ─► solve (stages, steps, cache) ─► image config ─► register and tag
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dockyard.lib import clock
from dockyard.model import new_id
from dockyard.oci import parse_reference

from .adding import Adding
from .cachekeeper import CacheRecord, Limits, choose_pruned, parse_filters
from .caches import CacheMounts
from .context import ContextLimits
from .dockerfile.parser import Dockerfile, SyntaxProblem, parse
from .dockerfile.suggest import explain
from .dockerfile.syntax import asked_frontend, is_dockerfiles
from .errors import BAD_DOCKERFILE, BAD_OPTION, BUILD_CANCELLED, FOREIGN_FRONTEND, NO_SUCH_BUILD
from .image import image_id, squashed
from .model import BaseImage, Graph, Request
from .mounts import Mounts
from .places import Places
from .plan import NeedImages, host_platform, plan
from .ports import Executor, Images, Layers, Lease, Networks, Registries, Session, Source
from .progress import Progress, Sink, VertexDone, VertexQueued, VertexStarted, Warned
from .records import Records, StepRecord
from .remotecache import BuiltCache, RemoteCaches, wanted_exports
from .shared import SharedSteps
from .solver import Solve, StageResult, Tools
from .space import build_of_full_disk
from .steps import Steps

__all__ = ["Builder", "BuilderSettings", "CacheRecord", "Pruned", "Result"]

MAX_BARE_RECORDS = 20_000
"""Records of steps that made no layer; they take no disk, only room here."""
STREAMS = 2
"""Cache mounts that travel at the same time."""
BIG_DOCKERFILE = 256 << 10
"""Above this a Dockerfile is parsed in a thread."""


@dataclass(frozen=True, slots=True)
class Result:
    """``image`` is the digest of ``config`` (the image config's exact bytes). ``metadata`` has buildx's keys
    (``containerimage.config.digest``, ``image.name``, ...)."""

    image: str
    config: bytes
    diff_ids: tuple[str, ...]
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    cache: BuiltCache = field(default_factory=BuiltCache)
    """Where the request wants it exported."""


@dataclass(frozen=True, slots=True)
class Pruned:
    deleted: tuple[str, ...]
    freed: int


@dataclass(frozen=True, slots=True)
class BuilderSettings:
    """``max_cache``: bytes that the cache may hold by itself, 0 = a fifth of the disk, -1 = no limit. ``allowed``:
    entitlements that may be asked for at all; as in moby ``security.insecure`` must be allowed by the administrator."""

    max_cache: int = 0
    parallel: int = 0
    allowed: frozenset[str] = frozenset({"network.host"})
    context: ContextLimits = field(default_factory=ContextLimits)


@dataclass(slots=True)
class _Build:
    task: asyncio.Task[Any]
    cancelled: bool = False


class Builder:
    def __init__(
        self, directory: Path, images: Images, layers: Layers, executor: Executor, networks: Networks, records: Records,
        settings: BuilderSettings | None = None, now: Callable[[], int] = clock.now, registries: Registries | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings or BuilderSettings()
        self.directory = directory
        self._images, self._layers, self._records, self._now = images, layers, records, now
        run = directory / "run"
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / "spool").mkdir(mode=0o700, exist_ok=True)
        self._caches = CacheMounts(directory / "caches", records, layers, now)
        mounts = Mounts(layers, self._caches, run)
        self._places = Places(networks)
        steps = Steps(layers, executor, self._places, mounts, run, self.settings.allowed, now)
        adding = Adding(directory / "fetch", self.settings.context)
        slots = asyncio.Semaphore(self.settings.parallel or max(4, 2 * (os.cpu_count() or 1)))
        self._remote = RemoteCaches(images, layers, records, registries)
        self._tools = Tools(layers, records, steps, adding, SharedSteps(), images.register, slots)
        self._streams = ThreadPoolExecutor(STREAMS, "cache-mounts")
        self._builds: dict[str, _Build] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def spool(self) -> Path:
        """Where doors put a context while it is used."""
        return self.directory / "spool"

    # -- building ---------------------------------------------------------------------------------------------------

    async def build(
        self, request: Request, source: Source, session: Session, sink: Sink, *, register: bool = True
    ) -> Result:
        """Builds to the end. With ``register`` the image is recorded under ``request.tags``; without, only its layers
        are kept (by the cache). Cancelling the call stops what only this build waits for.

        Raises InvalidParameter (Dockerfile, options), NotFound (image, stage, file), System (a step failed),
        Exhausted (a full disk, limits), Cancelled."""
        with self._known(request) as identity, build_of_full_disk(), self._layers.lease() as lease:
            exported = bool(wanted_exports(request))
            graph = await self.check(request, source, sink)
            imports = await self._remote.open(request, "/".join(graph.platform).rstrip("/"), session, sink, lease)
            solve = Solve(graph, request, source, session, sink, self._tools, lease, identity, imports)
            found = await solve.run()
            cache = solve.cache() if exported else BuiltCache()
            if request.squash and found.state.steps:
                found = await self._squash(found, lease)
            result = replace(self._finish(request, found, sink, identity, register=register), cache=cache)
            if register and exported:
                await self.export_cache(request, [result], session, sink)
        self._bound_cache()
        return result

    async def export_cache(
        self, request: Request, results: Sequence[Result], session: Session, sink: Sink
    ) -> dict[str, str]:
        """What --cache-to asks for, of one build or of its several platforms; for who builds without ``register``, while
        the results are held. Answers with the exporter's response. Raises what the place of the cache raises."""
        return await self._remote.export(request, [result.cache for result in results], session, sink)

    @contextmanager
    def _known(self, request: Request) -> Iterator[str]:
        """The build under its ID, so that ``cancel`` finds it."""
        identity = request.id or new_id()
        task = asyncio.current_task()
        assert task is not None
        build = self._builds[identity] = _Build(task)
        try:
            yield identity
        except asyncio.CancelledError:
            if build.cancelled:
                task.uncancel()
                raise BUILD_CANCELLED() from None
            raise
        finally:
            if self._builds.get(identity) is build:
                del self._builds[identity]
            self._later(self._places.drain())

    async def check(self, request: Request, source: Source, sink: Sink | None = None) -> Graph:
        """Parses and plans, resolving base images, but runs nothing; raises as ``build``."""
        parsed = await self.parse(request, source)
        graph = await self._plan(parsed, request, sink or _unheard)
        if sink is not None:
            for warning in graph.warnings:
                sink(Warned(warning))
        return graph

    async def parse(self, request: Request, source: Source) -> Dockerfile:
        """The Dockerfile alone. Raises InvalidParameter with file, line and the line itself."""
        raw = await source.dockerfile(request.dockerfile)
        try:
            return await asyncio.to_thread(parse, raw) if len(raw) > BIG_DOCKERFILE else parse(raw)
        except SyntaxProblem as problem:
            asked, line = asked_frontend(raw)
            if asked and not is_dockerfiles(asked):  # no wonder
                raise FOREIGN_FRONTEND(name=asked[:200], where=f", which {request.dockerfile}:{line} asks for,") from None
            lines = tuple(raw.decode("utf-8", "replace").splitlines())
            raise BAD_DOCKERFILE(text=explain(problem, request.dockerfile, lines)) from None

    async def _plan(self, parsed: Dockerfile, request: Request, sink: Sink) -> Graph:
        here = host_platform(platform.machine())
        images: dict[tuple[str, str], BaseImage] = {}
        while True:
            try:
                return plan(parsed, request, images, here)
            except SyntaxProblem as problem:
                raise BAD_DOCKERFILE(text=explain(problem, request.dockerfile, parsed.lines)) from None
            except NeedImages as needed:
                refs = sorted(needed.refs)
                found = await asyncio.gather(*(self._resolve(ref, wanted, request, sink) for ref, wanted in refs))
                images.update(zip(refs, found, strict=True))

    async def _resolve(self, ref: str, wanted: str, request: Request, sink: Sink) -> BaseImage:
        vertex = "sha256:" + new_id()
        sink(VertexQueued(vertex, f"[internal] load metadata for {ref}"))
        sink(VertexStarted(vertex, time.time()))
        try:
            image = await self._images.resolve(
                ref, wanted, request,
                lambda layer, status, current, total: sink(
                    Progress(vertex, layer or ref, current, total, time.time(), status=status)
                ),
            )  # fmt: skip
        except BaseException as error:
            sink(VertexDone(vertex, time.time(), error=str(error) or type(error).__name__))
            raise
        sink(VertexDone(vertex, time.time(), result=image.id))
        return image

    async def _squash(self, found: StageResult, lease: Lease) -> StageResult:
        """Everything above the base's layers in one; the steps' own layers stay in the cache."""
        kept = found.state.base_layers
        above = found.state.chain[kept:]
        layer = above[0] if len(above) == 1 else (await self._layers.merge(above, lease)).diff_id if above else ""
        config = squashed(found.config, kept, layer)
        chain = (*found.state.chain[:kept], *([layer] if layer else []))
        return StageResult(replace(found.state, chain=chain), config, image_id(config))

    def _finish(
        self, request: Request, found: StageResult, sink: Sink, identity: str, *, register: bool
    ) -> Result:
        tags = tuple(dict.fromkeys(str(parse_reference(tag).with_default_tag()) for tag in request.tags))
        if register:
            vertex = "sha256:" + new_id()
            sink(VertexQueued(vertex, "exporting to image"))
            sink(VertexStarted(vertex, time.time()))
            if found.state.steps or not found.state.base:
                self._images.register(found.config)
            self._images.tag(found.image, tags)
            sink(VertexDone(vertex, time.time(), result=found.image))
        metadata: dict[str, Any] = {"containerimage.config.digest": found.image, "buildx.build.ref": identity}
        if tags:
            metadata["image.name"] = ",".join(tags)
        return Result(found.image, found.config, found.state.chain, tags, metadata)

    @contextmanager
    def held(self, result: Result) -> Iterator[None]:
        """The layers of a result stay, whatever is pruned meanwhile: for what is exported later. The limit of the cache
        holds again afterwards."""
        with self._layers.lease() as lease:
            lease.hold([*result.diff_ids, *result.cache.layers()])
            yield
        if not self._closed:
            self._bound_cache()

    @asynccontextmanager
    async def root(self, result: Result) -> AsyncIterator[int]:
        """A descriptor of the image's root file system (read-only), for exports of files."""
        with self._layers.lease() as lease:
            lease.hold(result.diff_ids)
            fd = self._layers.view(result.diff_ids)
            try:
                yield fd
            finally:
                os.close(fd)

    def cancel(self, build_id: str) -> None:
        """Raises NotFound."""
        build = self._builds.get(build_id)
        if build is None:
            raise NO_SUCH_BUILD(id=build_id)
        build.cancelled = True
        build.task.cancel()

    async def close(self) -> None:
        """Ends what is being built, and waits for its cleanup."""
        self._closed = True
        tasks = [build.task for build in self._builds.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._background, return_exceptions=True)
        self._streams.shutdown(wait=False, cancel_futures=True)
        self._records.close()

    def has_image(self, ref: str) -> bool:
        return self._images.has(ref)

    # -- the cache --------------------------------------------------------------------------------------------------

    def usage(self) -> list[CacheRecord]:
        """One row a layer (however many steps came to it) and one a cache mount."""
        shared = self._images.layers()
        by_layer: dict[str, list[StepRecord]] = {}
        for record in self._records.steps.values():
            if record.layer and self._layers.size(record.layer) is not None:
                by_layer.setdefault(record.layer, []).append(record)
        rows = [self._row(layer, records, layer in shared) for layer, records in by_layer.items()]
        for mount in self._records.mounts.values():
            rows.append(
                CacheRecord(
                    f"mount{mount.number}", "exec.cachemount", f"cached mount {mount.text}", mount.size, mount.created,
                    mount.used, mount.uses, self._caches.in_use(mount.number),
                )
            )  # fmt: skip
        return rows

    def _row(self, layer: str, records: Sequence[StepRecord], shared: bool) -> CacheRecord:
        newest = max(records, key=lambda r: r.used)
        kind = "regular" if newest.kind == "imported" else newest.kind
        return CacheRecord(
            layer.removeprefix("sha256:")[:25], kind, newest.text, self._layers.size(layer) or 0,
            min(r.created for r in records), newest.used, sum(r.uses for r in records),
            in_use=self._layers.leased(layer), shared=shared, keys=tuple(r.key for r in records),
        )  # fmt: skip

    def export_mount(self, id: str) -> AsyncIterator[bytes]:
        """A cache mount as a tar. Raises NotFound, Conflict."""
        return self._caches.packed(id, self._streams)

    async def import_mount(self, id: str, chunks: AsyncIterator[bytes]) -> None:
        """A tar as the whole content of a cache mount, made where there is none. Raises Conflict, InvalidParameter."""
        if not id:
            raise BAD_OPTION(text="a cache mount has an id: that of RUN --mount=type=cache,id=ID, else its target")
        await self._caches.unpack(id, chunks, self._streams)
        self._bound_cache()

    async def prune(
        self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None, reserved: int = 0,
        max_used: int = 0, min_free: int = 0,
    ) -> Pruned:  # fmt: skip
        """Removes cache, least recently used first. ``reserved`` bytes are kept, ``max_used`` is never exceeded."""
        wanted = parse_filters(filters or {}, self._now())
        stat = os.statvfs(self.directory)
        limits = Limits(reserved, max_used, min_free, stat.f_bavail * stat.f_frsize)
        return await self._remove(choose_pruned(self.usage(), wanted, limits, all=all), everything=all and not filters)

    async def _remove(self, gone: Sequence[CacheRecord], *, everything: bool = False) -> Pruned:
        freed = sum(record.size for record in gone if not record.shared)
        self._records.drop(key for record in gone for key in record.keys)
        if everything:  # what holds no bytes goes with the rest
            self._records.drop([r.key for r in self._records.steps.values() if not r.layer])
        for record in gone:
            if record.kind == "exec.cachemount":
                await asyncio.to_thread(self._caches.remove, int(record.id.removeprefix("mount")))
        self._layers.collect()
        return Pruned(tuple(record.id for record in gone), freed)

    def _bound_cache(self) -> None:
        """The hard limit, after each build: oldest first, images' own layers not counted."""
        if self.settings.max_cache >= 0 and not any(task.get_name() == "bound" for task in self._background):
            self._later(self._bound(), "bound")

    def _later(self, work: Coroutine[Any, Any, None], name: str = "") -> None:
        """What a build's caller need not wait for; ``close`` does."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _bound(self) -> None:
        stat = os.statvfs(self.directory)
        limit = self.settings.max_cache or stat.f_blocks * stat.f_frsize // 5
        own = [record for record in self.usage() if not record.shared]
        if sum(record.size for record in own) > limit:
            await self._remove(choose_pruned(own, lambda _record: True, Limits(max_used=limit), all=True))
        self._forget_the_useless()

    def _forget_the_useless(self) -> None:
        """Records whose layer is gone, and the oldest of those that hold none where there are very many."""
        steps = list(self._records.steps.values())
        gone = [record for record in steps if record.layer and self._layers.size(record.layer) is None]
        bare = sorted((record for record in steps if not record.layer), key=lambda record: record.used)
        useless = [*gone, *bare[: max(0, len(bare) - MAX_BARE_RECORDS)]]
        if useless:
            self._records.drop(record.key for record in useless)


def _unheard(_event: object) -> None:
    """For who asks for a plan only."""
