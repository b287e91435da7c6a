"""What a step reads besides the layers below it: of the context, another stage, an image, a URL. First its name for the
key, then the thing itself; nothing is opened that a name will do for.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from . import keys
from .adding import Adding
from .model import BaseImage, Copy, Exec, Origin
from .ports import Layers, Lease, Session, Source
from .records import Records, StepRecord
from .steps import Material, Steps, choose, opened_tree

__all__ = ["Reading"]


@dataclass(frozen=True, slots=True)
class Reading:
    images: Mapping[str, BaseImage]
    source: Source
    session: Session
    layers: Layers
    records: Records
    adding: Adding
    steps: Steps
    lease: Lease
    stage: Callable[[int], Awaitable[tuple[Sequence[str], str]]]
    """(layers, state) of another stage, when it is done."""

    async def definition(self, operation: Copy) -> str:
        """What a COPY reads, named without opening a file; "" for the context, which has no such name."""
        origin = operation.origin
        if origin.stage is not None:
            return "state " + (await self.stage(origin.stage))[1]
        if origin.image:
            return "state " + keys.state_of(self.images[origin.image].diff_ids)
        return self.adding.definition(operation) if operation.add else ""

    async def _chain_of(self, origin: Origin) -> Sequence[str]:
        if origin.stage is not None:
            return (await self.stage(origin.stage))[0]
        return self.images[origin.image].diff_ids

    async def material(self, operation: Copy, stack: AsyncExitStack) -> Material:
        """What is to be copied; stays open on the stack. Raises NotFound."""
        origin = operation.origin
        if origin.stage is not None or origin.image:
            tree = await stack.enter_async_context(opened_tree(self.layers, await self._chain_of(origin)))
            return await choose(operation, tree)
        if operation.add:
            return await self.adding.material(operation, self.source, self.session, stack)
        context = await self.source.context(origin.context, operation.sources)
        return await choose(operation, context.tree, context.ignore)

    async def bound_content(self, operation: Exec) -> list[str]:
        """States and content of what a RUN mounts, in order."""
        found = []
        for mount, origin in zip(operation.mounts, operation.origins, strict=True):
            if mount.type != "bind":
                continue
            if origin.stage is not None or origin.image:
                found.append("state " + keys.state_of(await self._chain_of(origin)))
            else:
                found.append("files " + (await self._context_files(origin, mount.source)).key)
        return found

    async def _context_files(self, origin: Origin, path: str) -> Material:
        context = await self.source.context(origin.context, [path or "."])
        return await choose(_bound(path, origin), context.tree, context.ignore)

    async def mount_chain(self, origin: Origin, path: str) -> tuple[Sequence[str], str]:
        """For mounts: (layers, path in them). Files of the context become a layer of their own, kept by their content."""
        if origin.stage is not None or origin.image:
            return await self._chain_of(origin), path
        material = await self._context_files(origin, path)
        operation = _bound(path, origin)
        top = next((item for item in material.chosen if not item.into), None)
        inside = "/context" if top is not None else "/context/" + material.chosen[0].relative
        key = keys.step_key(operation, "", ["files " + material.key])
        record = self.records.get(key)
        if record is None or self.layers.size(record.layer) is None:
            layer = await self.steps.files_layer(operation, material, self.lease)
            now = time.time_ns()
            record = StepRecord(key, layer.diff_id, layer.size, "source.local", f"context {path or '.'}", now, now)
            self.records.put(record)
        self.lease.hold([record.layer])
        return (record.layer,), inside


def _bound(path: str, origin: Origin) -> Copy:
    """The COPY that a bind mount of context files amounts to."""
    return Copy((path or ".",), "/context/", origin)
