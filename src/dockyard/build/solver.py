"""Walking the graph: stages side by side, the steps of one in order, each looked up before it is done.

::

    stage task:  base ─► step ─► step ─► ...         a stage that COPYs from another waits for it just there
    step:        key ─► record? ─► shared run ─► record

A step is looked up by what it does and the layers below it; COPY from another stage first by that stage's state (no file
is opened), then by the content of the files it takes. Tasks live in one group: the first failure ends the others.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from dockyard.errors import DockyardError
from dockyard.lib.faultpoint import faultpoint

from . import embedded, keys
from .adding import Adding
from .image import COMMENT, history_row, image_config, image_id
from .model import Copy, Exec, Graph, Layer, Meta, Operation, PlannedStage, Request, Step, Workdir
from .ports import Layers, Lease, Session, Source
from .progress import Output, Running, Sink, VertexDone, VertexQueued, VertexStarted
from .reading import Reading
from .records import Records, StepRecord
from .remotecache import BuiltCache, Imports
from .shared import Listener, SharedSteps
from .steps import Material, Steps, stands_alone

__all__ = ["Solve", "StageResult", "Tools"]


@dataclass(frozen=True, slots=True)
class Tools:
    """What all builds of one builder share."""

    layers: Layers
    records: Records
    steps: Steps
    adding: Adding
    shared: SharedSteps
    register: Callable[[bytes], str]
    """Records an image by its config."""
    slots: asyncio.Semaphore
    """How many steps run at the same time."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a stage is: ``token`` names its file system for keys, ``line`` all that came before for meta steps."""

    chain: tuple[str, ...]
    token: str
    line: str
    document: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    created: int = 0
    steps: int = 0
    base: str = ""
    base_layers: int = 0
    records: tuple[StepRecord, ...] = ()
    """Of the steps so far, under each key that leads to them."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """``config`` is the image config's bytes; ``image`` their digest, or the base's ID where nothing was done to it."""

    state: State
    config: bytes
    image: str


@dataclass(frozen=True, slots=True)
class _Found:
    """A step's key with what a new record of it must say; ``record`` where the cache has it."""

    key: str
    record: StepRecord | None
    parts: Mapping[str, str]
    material: Material | None = None
    aliases: tuple[str, ...] = ()


@dataclass
class Solve:
    """One build under way."""

    graph: Graph
    request: Request
    source: Source
    session: Session
    sink: Sink
    tools: Tools
    lease: Lease
    id: str
    imports: Imports | None = None
    """What the caches named by --cache-from say."""
    results: dict[int, asyncio.Task[StageResult]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reading = Reading(
            self.graph.images, self.source, self.session, self.tools.layers, self.tools.records, self.tools.adding,
            self.tools.steps, self.lease, self._state_of,
        )  # fmt: skip

    async def run(self) -> StageResult:
        """The target's result. Raises what the first failing step raised."""
        for stage in self.graph.stages:
            self._announce(stage)
        try:
            async with asyncio.TaskGroup() as group:
                for stage in self.graph.stages:
                    self.results[stage.index] = group.create_task(self._stage(stage))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        finally:
            self.tools.records.flush()
        return self.results[self.graph.target].result()

    def cache(self) -> BuiltCache:
        """What the finished build knows, for others."""
        states = [task.result().state for task in self.results.values()]
        every = {record.key: record for state in states for record in state.records}
        return BuiltCache(self.results[self.graph.target].result().state.records, tuple(every.values()))

    def vertex(self, number: int) -> str:
        """The name of a step in progress events."""
        return "sha256:" + hashlib.sha256(f"{self.id} {number}".encode()).hexdigest()

    def _announce(self, stage: PlannedStage) -> None:
        total, count = self.graph.total, len(stage.steps) + 1
        before = self.vertex(stage.number)
        below = (self.vertex(self._last_number(stage.base)),) if isinstance(stage.base, int) else ()
        self.sink(VertexQueued(before, stage.from_text, below, stage.number, total, stage.name, (1, count)))
        for place, step in enumerate(stage.steps, 2):
            others = tuple(self.vertex(self._last_number(index)) for index in _needs(step.operation))
            digest = self.vertex(step.number)
            queued = VertexQueued(digest, step.text, (before, *others), step.number, total, stage.name, (place, count))
            self.sink(queued)
            before = digest

    def _last_number(self, index: int) -> int:
        stage = self.graph.stage(index)
        return stage.steps[-1].number if stage.steps else stage.number

    # -- stages -----------------------------------------------------------------------------------------------------

    async def _stage(self, stage: PlannedStage) -> StageResult:
        state = await self._base(stage)
        for place, step in enumerate(stage.steps):
            state = await self._step(stage, step, state, last=place + 1 == len(stage.steps))
        return self._result(stage, state)

    async def _base(self, stage: PlannedStage) -> State:
        digest = self.vertex(stage.number)
        if isinstance(stage.base, int):
            below = await self._await_stage(stage.base)
            self._started(digest)
            self._done(digest, cached=True, result=below.image)
            return below.state
        base = stage.base
        self._started(digest)
        self.lease.hold(base.diff_ids)
        token = keys.state_of(base.diff_ids)
        history = tuple(base.document.get("history") or ())
        self._done(digest, cached=True, result=base.id)
        return State(
            base.diff_ids, token, keys.lineage("", token + base.id), base.document, history, base=base.id,
            base_layers=len(base.diff_ids),
        )  # fmt: skip

    async def _await_stage(self, index: int) -> StageResult:
        """Shielded: a waiter that is cancelled does not take the other stage with it."""
        return await asyncio.shield(self.results[index])

    async def _state_of(self, index: int) -> tuple[Sequence[str], str]:
        state = (await self._await_stage(index)).state
        return state.chain, state.token

    def _result(self, stage: PlannedStage, state: State) -> StageResult:
        epoch = self.graph.epoch
        created = state.created if epoch is None else epoch * 1_000_000_000
        config = image_config(
            state.document, stage.config, self.graph.platform, state.chain, state.history, created, stage.author
        )
        if not state.steps and state.base:
            return StageResult(state, config, state.base)
        if stage.index == self.graph.target and embedded.is_wanted(self.request):
            document = embedded.embed(msgspec.json.decode(config), state.records, state.chain)
            config = msgspec.json.encode(document, order="deterministic")
        return StageResult(state, config, image_id(config))

    # -- steps ------------------------------------------------------------------------------------------------------

    async def _step(self, stage: PlannedStage, step: Step, state: State, *, last: bool) -> State:
        digest = self.vertex(step.number)
        await self._wait_for_needs(step.operation)
        try:
            async with AsyncExitStack() as stack:
                self._started(digest)
                found = await self._find(stage, step, state, stack)
                why = "cached"
                record = found.record
                if record is None:
                    before = self.tools.records.last(self._slot(stage, step))
                    why = "asked to" if self._no_cache(stage) else keys.explain(before.parts if before else None, found.parts)
                    record = await self._make(stage, step, state, found)
        except BaseException as error:
            self._done(digest, error=str(error) or type(error).__name__)
            raise
        following = self._advance(step, state, found, record, stage.author)
        result = self._result(stage, following).image if last else "sha256:" + following.line
        self._done(digest, cached=found.record is not None, why=why, result=result)
        return following

    async def _wait_for_needs(self, operation: Operation) -> None:
        for index in _needs(operation):
            await self._await_stage(index)

    def _advance(self, step: Step, state: State, found: _Found, record: StepRecord, author: str) -> State:
        meta = isinstance(step.operation, Meta)
        chain, token = state.chain, state.token
        if record.layer:
            chain = (*chain, record.layer)
            token = keys.state_of(chain)
        elif isinstance(step.operation, Exec):
            token = keys.after_empty(token, found.key)
        epoch = self.graph.epoch
        created = record.created if epoch is None else epoch * 1_000_000_000
        # Not by the key: a step may be found under more than one.
        line = keys.lineage(state.line, keys.step_key(step.operation, "", [record.layer]))
        comment = "" if self.request.classic else COMMENT
        row = history_row(step.history, created, author, empty=meta or not record.layer, comment=comment)
        return State(
            chain, token, line, state.document, (*state.history, row),
            max(state.created, record.created), state.steps + 1, state.base, state.base_layers,
            (*state.records, *_named(record, found)),
        )  # fmt: skip

    # -- looking up -------------------------------------------------------------------------------------------------

    async def _find(self, stage: PlannedStage, step: Step, state: State, stack: AsyncExitStack) -> _Found:
        operation, epoch = step.operation, self.graph.epoch
        material: Material | None = None
        aliases: tuple[str, ...] = ()
        if isinstance(operation, Meta):
            key = keys.step_key(operation, "", [state.line])
        elif isinstance(operation, Workdir):
            key = keys.step_key(operation, state.token, [], epoch)
        elif isinstance(operation, Exec):
            key = keys.step_key(operation, state.token, await self.reading.bound_content(operation), epoch)
        else:
            below = "" if stands_alone(operation) else state.token
            definition = await self.reading.definition(operation)
            if definition:
                key = keys.step_key(operation, below, [definition], epoch)
                record = self._lookup(stage, key) or await self._from_elsewhere(stage, key)
                if record is not None:
                    return _Found(key, record, {})
                aliases = (key,)
            material = await self.reading.material(operation, stack)
            key = keys.step_key(operation, below, ["files " + material.key], epoch)
        record = self._lookup(stage, key) or await self._from_elsewhere(stage, key)
        if record is not None:
            if aliases and record.kind != "imported":
                self._alias(record, aliases)
            return _Found(key, record, {}, material, aliases)
        files = material.files() if material is not None else {}
        return _Found(key, None, keys.parts_of(step.text, operation, state.token, files, epoch), material, aliases)

    def _lookup(self, stage: PlannedStage, key: str) -> StepRecord | None:
        """A usable record: asked for, and its layer still here."""
        records, layers = self.tools.records, self.tools.layers
        record = records.get(key)
        if record is None or self._no_cache(stage) or (record.layer and layers.size(record.layer) is None):
            return None
        records.touch(key, time.time_ns())
        if record.layer:
            self.lease.hold([record.layer])
        return record

    async def _from_elsewhere(self, stage: PlannedStage, key: str) -> StepRecord | None:
        if not self.imports or self._no_cache(stage):
            return None
        return await self.imports.find(key, self.lease)

    def _no_cache(self, stage: PlannedStage) -> bool:
        return self.request.no_cache or stage.name in self.request.no_cache_stages

    # -- doing ------------------------------------------------------------------------------------------------------

    async def _make(self, stage: PlannedStage, step: Step, state: State, found: _Found) -> StepRecord:
        if isinstance(step.operation, Meta):
            return self._record(stage, step, found, Layer(""), "meta")
        digest = self.vertex(step.number)
        listener = Listener(
            lambda fd, data: self.sink(Output(digest, fd, data, time.time())),
            lambda sandbox: self.sink(Running(digest, sandbox, time.time())),
        )

        async def work(told: Listener) -> Layer:
            async with self.tools.slots:
                with self.tools.layers.lease() as lease:
                    lease.hold(state.chain)
                    layer = await self._perform(step.operation, state, found, lease, told)
                    faultpoint("build.committed")
                    self._record(stage, step, found, layer, "regular")
                    faultpoint("build.recorded")
                    return layer

        # A COPY reads what only this build has open; who was told not to use the cache uses no other build either.
        alone = self._no_cache(stage) or not isinstance(step.operation, Exec)
        key = f"{self.id} {step.number}" if alone else found.key
        layer = await self.tools.shared.run(key, listener, work)
        if layer.diff_id:
            self.lease.hold([layer.diff_id])
        return self.tools.records.get(found.key) or self._record(stage, step, found, layer, "regular")

    async def _perform(
        self, operation: Operation, state: State, found: _Found, lease: Lease, told: Listener
    ) -> Layer:
        steps, epoch = self.tools.steps, self.graph.epoch
        if isinstance(operation, Exec):
            try:
                return await steps.run(
                    operation, state.chain, self.request, self.reading.mount_chain, self.session, lease, told.output,
                    told.started, epoch,
                )  # fmt: skip
            except DockyardError as error:
                if isinstance(kept := error.evidence.get("kept"), Layer):
                    error.evidence["image"] = self._keep(operation, state, kept)
                raise
        if isinstance(operation, Workdir):
            return await steps.workdir(operation, state.chain, lease, epoch)
        assert isinstance(operation, Copy)
        assert found.material is not None
        return await steps.copy(operation, found.material, state.chain, lease, epoch)

    def _keep(self, operation: Exec, state: State, layer: Layer) -> str:
        """The root of a failed step as an image, to be opened with ``docker run -it IMAGE sh``; its ID."""
        config = {"Env": list(operation.env), "WorkingDir": operation.cwd, "User": operation.user, "Cmd": list(operation.args)}
        chain = (*state.chain, *([layer.diff_id] if layer.diff_id else []))
        now = time.time_ns()
        row = history_row(f"failed: {' '.join(operation.args)}", now, "", empty=not layer.diff_id)
        history = (*state.history, row)
        raw = image_config(state.document, config, self.graph.platform, chain, history, now, "")
        return self.tools.register(raw)

    def _record(self, stage: PlannedStage, step: Step, found: _Found, layer: Layer, kind: str) -> StepRecord:
        now = time.time_ns()
        slot = self._slot(stage, step)
        record = StepRecord(found.key, layer.diff_id, layer.size, kind, step.text, now, now, 1, slot, found.parts)
        self.tools.records.put(record)
        self._alias(record, found.aliases)
        return record

    def _alias(self, record: StepRecord, aliases: Sequence[str]) -> None:
        for key in aliases:
            self.tools.records.put(replace(record, key=key, slot="", content=record.key))

    def _slot(self, stage: PlannedStage, step: Step) -> str:
        """A place in somebody's Dockerfile: where to look for what was made there the last time."""
        who = self.request.tags[0] if self.request.tags else self.request.remote
        text = "\0".join([who, self.request.dockerfile, stage.name, str(step.number - stage.number)])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _started(self, digest: str) -> None:
        self.sink(VertexStarted(digest, time.time()))

    def _done(self, digest: str, *, cached: bool = False, error: str = "", why: str = "", result: str = "") -> None:
        self.sink(VertexDone(digest, time.time(), cached, error, why, result))


def _named(record: StepRecord, found: _Found) -> list[StepRecord]:
    """By what the step read, and by the definitions that name the same, whose ``content`` is the former."""
    content = record.content or found.key
    names = dict.fromkeys(key for key in (found.key, *found.aliases) if key != content)
    return [replace(record, key=content, content=""), *(replace(record, key=key, content=content) for key in names)]


def _needs(operation: Operation) -> list[int]:
    if isinstance(operation, Copy):
        return [] if operation.origin.stage is None else [operation.origin.stage]
    if isinstance(operation, Exec):
        return [origin.stage for origin in operation.origins if origin.stage is not None]
    return []


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    for failure in failures.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            return _first(failure)
        if not isinstance(failure, asyncio.CancelledError):
            return failure
    return failures.exceptions[0]
