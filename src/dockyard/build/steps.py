"""Doing one step: RUN, COPY, WORKDIR; each from the layers before it to one new layer.

Everything that a step opens stands on an exit stack and is given back however it ends: snapshot, mounts, network place,
process. What was decided (operation, key, selection) comes in as values; nothing here looks into the cache.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dockyard.kernel import safefs
from dockyard.lib.faultpoint import faultpoint
from dockyard.model import new_id
from dockyard.oci import tar

from .copy import Packing, Selected, TargetRoot, pack, place, select, selection_key
from .dockerfile.patterns import Patterns
from .errors import ENTITLEMENT, RUN_FAILED
from .model import Copy, Exec, Layer, Request, Workdir
from .mounts import Chain, Mounts
from .places import Places
from .ports import BindMount, Executor, Layers, Lease, Output, Place, Process, Session
from .stubs import find_stubs
from .tree import RootTree, Tree

__all__ = ["Material", "Steps", "choose", "opened_tree", "stands_alone"]

NOTHING = Patterns(())
WRITE_LIMIT = 60.0
"""Seconds that giving back one thing of a step may take."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a COPY takes: entries of a tree, and the key of their content."""

    tree: Tree
    chosen: list[Selected]
    key: str

    def files(self) -> dict[str, str]:
        """Digests by name, to explain a changed key."""
        return {
            item.relative or item.entry.path or ".": (item.entry.digest.hex() or f"{item.entry.size}")
            for item in self.chosen
            if item.entry.kind == tar.REG
        }


async def choose(operation: Copy, tree: Tree, ignore: Patterns = NOTHING) -> Material:
    """In a thread: reads what has no digest yet. Raises NotFound."""

    def work() -> Material:
        chosen = select(operation, tree, ignore)
        return Material(tree, chosen, selection_key(chosen, tree))

    return await asyncio.to_thread(work)


@asynccontextmanager
async def opened_tree(layers: Layers, chain: Sequence[str]) -> AsyncIterator[RootTree]:
    fd = layers.view(chain)
    try:
        yield RootTree(fd)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Steps:
    layers: Layers
    executor: Executor
    places: Places
    mounts: Mounts
    directory: Path
    allowed: frozenset[str]
    """Entitlements that this builder grants at all."""
    now: Callable[[], int]

    # -- RUN --------------------------------------------------------------------------------------------------------

    async def run(
        self, operation: Exec, chain: Sequence[str], request: Request, sources: Chain, session: Session, lease: Lease,
        output: Output, started: Callable[[str], None], epoch: int | None,
    ) -> Layer:  # fmt: skip
        """Raises System when the command fails; nothing of the step is left then."""
        self._check_entitlements(operation, request)
        run = new_id()
        async with AsyncExitStack() as stack:
            stack.callback(self._forget_directory, run)
            (self.directory / run).mkdir(mode=0o700, parents=True)
            insecure = operation.security == "insecure"
            place = await stack.enter_async_context(
                self.places.take(operation.network, operation.extra_hosts, own=insecure)
            )
            table = await self.mounts.resolve(stack, run, operation, sources, session)
            stack.push_async_callback(_bounded, self.layers.release, run)
            root = await self.layers.prepare(run, chain)
            faultpoint("build.prepared")
            binds = (*self._network_files(run, place), *table.binds)
            with safefs.root_fd(str(root)) as fd:
                stubs = find_stubs(fd, [bind.target for bind in binds], self.layers.ids)
            started(run)
            code = await self.executor.run(
                Process(
                    run, root, operation.args, (*operation.env, *operation.hidden_env, *table.env), operation.cwd,
                    operation.user, binds, place.mode, insecure, request,
                ),
                output,
            )  # fmt: skip
            faultpoint("build.ran")
            if code:
                kept = await self.layers.diff(run, stubs, lease, epoch) if request.keep_failed else None
                raise RUN_FAILED(command=" ".join(operation.args), exit_code=code, kept=kept)
            return await self.layers.diff(run, stubs, lease, epoch)

    def _network_files(self, run: str, place: Place) -> list[BindMount]:
        binds = []
        for number, (target, content) in enumerate(place.files.items()):
            path = self.directory / run / f"file{number}"
            path.write_bytes(content)
            path.chmod(0o644)
            os.chown(path, *self.layers.ids.root)
            binds.append(BindMount(target, str(path)))
        return binds

    def _check_entitlements(self, operation: Exec, request: Request) -> None:
        """One check for every way to run. A network that the whole build was given needs none of its own."""
        needed = []
        if operation.security == "insecure":
            needed.append("security.insecure")
        if operation.network == "host" and request.network != "host":
            needed.append("network.host")
        for each in needed:
            if each not in request.entitlements or each not in self.allowed:
                raise ENTITLEMENT(entitlement=each)

    def _forget_directory(self, run: str) -> None:
        shutil.rmtree(self.directory / run, ignore_errors=True)

    # -- COPY, ADD --------------------------------------------------------------------------------------------------

    async def copy(
        self, operation: Copy, material: Material, chain: Sequence[str], lease: Lease, epoch: int | None
    ) -> Layer:
        """Raises Conflict where a file and a directory meet, NotFound for a --chown that the root does not know."""
        if stands_alone(operation):
            chain = ()
        fd = self.layers.view(chain) if chain else None
        try:
            root = TargetRoot(fd)
            placed = await asyncio.to_thread(place, operation, material.chosen, root)
            if not placed:
                return Layer("")
            packing = Packing(
                root.owner(operation.chown) if operation.chown else None, operation.chmod, epoch, self.now()
            )
            return await self.layers.commit(lambda: pack(placed, material.tree, packing), lease)
        finally:
            if fd is not None:
                os.close(fd)

    # -- WORKDIR ----------------------------------------------------------------------------------------------------

    async def workdir(self, operation: Workdir, chain: Sequence[str], lease: Lease, epoch: int | None) -> Layer:
        fd = self.layers.view(chain) if chain else None
        try:
            base, missing = TargetRoot(fd).resolve(operation.path)
        finally:
            if fd is not None:
                os.close(fd)
        if not missing:
            return Layer("")
        moment = self.now() if epoch is None else epoch * 1_000_000_000

        def pieces() -> Generator[bytes, None, None]:
            name = base
            for part in missing:
                name = f"{name}/{part}" if name else part
                yield tar.encode_header(tar.TarHeader(os.fsencode(name) + b"/", tar.DIR, 0o755, mtime_ns=moment))
            yield tar.END_OF_ARCHIVE

        return await self.layers.commit(pieces, lease)

    async def files_layer(self, operation: Copy, material: Material, lease: Lease) -> Layer:
        """A layer of its own of some context files, for a bind mount."""
        placed = await asyncio.to_thread(place, operation, material.chosen, TargetRoot(None))
        return await self.layers.commit(lambda: pack(placed, material.tree, Packing(now_ns=self.now())), lease)


def _named_owner(operation: Copy) -> bool:
    return any(part and not part.isdigit() for part in operation.chown.split(":"))


def stands_alone(operation: Copy) -> bool:
    """COPY --link: the layer is the same whatever is below it."""
    return operation.link and not _named_owner(operation)


async def _bounded(work: Callable[[str], Awaitable[None]], argument: str) -> None:
    """Cleanup that must finish, also when the step is being cancelled, within a limit."""
    task = asyncio.ensure_future(work(argument))
    try:
        async with asyncio.timeout(WRITE_LIMIT):
            await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=WRITE_LIMIT)
        raise

