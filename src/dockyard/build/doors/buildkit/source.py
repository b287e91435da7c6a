"""The build context of one build: directories on the client's side, synced when they are asked for, each once."""

from __future__ import annotations

import asyncio
import posixpath
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from ...context import Context
from ...context import receive as receive_tar
from ...dockerfile.patterns import read_ignore_file
from ...errors import BAD_CONTEXT, DOCKERFILE_MISSING
from ...fetch import is_git, is_url
from ...progress import Progress, Sink, VertexDone, VertexQueued, VertexStarted
from ...remote import remote_context
from . import filesync
from .expected import normal
from .filesync import Wanted
from .frontend import LOCAL_CONTEXT, LOCAL_DOCKERFILE, UPLOAD_PREFIX
from .session import ClientSession, Sessions
from .spool import Shelf
from .status import vertex_digest

__all__ = ["Place", "SessionSource"]

A = TypeVar("A")
B = TypeVar("B")
IGNORE_FILE = ".dockerignore"
DEFAULT_NAME = "Dockerfile"


@dataclass(frozen=True, slots=True)
class Place:
    """Where contexts are kept: shared by all builds of a door."""

    shelf: Shelf
    executor: Executor

    async def run(self, work: Callable[[A], B], argument: A) -> B:
        """In a thread, and to its end even when the caller is cancelled (it may hold a descriptor)."""
        visit = asyncio.get_running_loop().run_in_executor(self.executor, work, argument)
        try:
            return await asyncio.shield(visit)
        except asyncio.CancelledError:
            await asyncio.wait([visit])
            raise


class SessionSource:
    """Implements ``ports.Source``. ``seed`` tells its vertexes from those of other builds; ``close`` lets go of what was
    synced."""

    def __init__(
        self, place: Place, sessions: Sessions, session: ClientSession, opts: Mapping[str, str], sink: Sink, seed: str
    ) -> None:
        self.place, self.sessions, self.session, self.opts, self.sink = place, sessions, session, opts, sink
        self.seed = seed
        self.filename = opts.get("filename", "") or DEFAULT_NAME
        self.main = opts.get("contextkey", "") or LOCAL_CONTEXT
        self.definitions = opts.get("dockerfilekey", "") or LOCAL_DOCKERFILE
        told = opts.get("context", "")
        self.remote = told if told and not told.startswith(UPLOAD_PREFIX) else ""
        self.uploaded = opts.get("context", "") if opts.get("context", "").startswith(UPLOAD_PREFIX) else ""
        self._expected: Mapping[str, frozenset[str]] = {}
        self._remote = AsyncExitStack()
        self._made: dict[tuple[str, ...], asyncio.Task[Context]] = {}

    async def dockerfile(self, name: str) -> bytes:
        """Raises NotFound."""
        clean = posixpath.normpath("/" + name).lstrip("/")
        if name == IGNORE_FILE:
            content = (await self._ignore_context(self.main)).read_text(IGNORE_FILE)
        else:
            content = _definition(await self._definition_context(), clean)
        if content is None:
            raise DOCKERFILE_MISSING(name=name)
        return content

    async def context(self, name: str, patterns: Sequence[str]) -> Context:
        """Raises InvalidParameter, System."""
        if not name and (whole := await self._whole()) is not None:
            return whole
        specifier = self.opts.get(f"context:{name}", "") if name else f"local:{self.main}"
        if is_git(specifier) or is_url(specifier):
            return await self._fetched(specifier, f"[context {name}] {specifier}")
        if not specifier.startswith("local:"):
            raise BAD_CONTEXT(cause=f"context {name} is {specifier[:200] or 'not given'}, not a directory of the client")
        local = specifier.removeprefix("local:")
        follow = self._follow(name, patterns)

        async def make() -> Context:
            title = f"[context {name}] load from client" if name else "[internal] load build context"
            wanted = Wanted(local, follow=follow, exclude=await self._excluded(name, local))
            return await self._sync(wanted, title, keep=True)

        return await self._once((local, name, *follow), make)

    def expect(self, paths: Mapping[str, frozenset[str]]) -> None:
        """Paths by context that will be asked for: fetched together when the first of them is."""
        self._expected = paths

    def _follow(self, name: str, patterns: Sequence[str]) -> tuple[str, ...]:
        """What the transfer that serves these patterns asks for; () is everything."""
        wanted = {normal(pattern) for pattern in patterns}
        together = self._expected.get(name, frozenset())
        if wanted <= together:
            wanted = set(together)
        return () if "" in wanted else tuple(sorted(wanted))

    async def close(self) -> None:
        tasks = list(self._made.values())
        self._made.clear()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Context):
                result.close()
        await self._remote.aclose()

    async def _once(self, key: tuple[str, ...], make: Callable[[], Awaitable[Context]]) -> Context:
        """Whoever asks first starts it; it ends with the build, not with who asked."""
        if key not in self._made:
            self._made[key] = asyncio.ensure_future(make())
        return await asyncio.shield(self._made[key])

    async def _definition_context(self) -> Context:
        if "dockerfilekey" not in self.opts and (whole := await self._whole()) is not None:
            return whole
        follow = [self.filename, f"{self.filename}{IGNORE_FILE}"]
        if posixpath.basename(self.filename) == DEFAULT_NAME:
            follow.append(posixpath.join(posixpath.dirname(self.filename), DEFAULT_NAME.lower()))
        title = f"[internal] load build definition from {self.filename}"
        wanted = Wanted(self.definitions, follow=follow)
        return await self._once(("\0dockerfile",), lambda: self._sync(wanted, title, keep=False))

    async def _ignore_context(self, local: str) -> Context:
        if local == self.main and (whole := await self._whole()) is not None:
            return whole
        title = f"[internal] load {IGNORE_FILE}"
        wanted = Wanted(local, follow=[IGNORE_FILE])
        return await self._once(("\0ignore", local), lambda: self._sync(wanted, title, keep=False))

    async def _excluded(self, name: str, local: str) -> list[str]:
        """The patterns of the ignore file: the client leaves out what they hide."""
        text = None
        if not name:
            text = (await self._definition_context()).read_text(f"{self.filename}{IGNORE_FILE}")
        if text is None:
            text = (await self._ignore_context(local)).read_text(IGNORE_FILE)
        try:
            return read_ignore_file((text or b"").decode("utf-8", "replace"))
        except ValueError as error:
            raise BAD_CONTEXT(cause=f"{IGNORE_FILE}: {error}") from None

    async def _whole(self) -> Context | None:
        """The main context, where it is no directory of the client."""
        if self.uploaded:
            return await self._upload()
        return await self._fetched(self.remote, "[internal] load remote build context") if self.remote else None

    async def _fetched(self, remote: str, title: str) -> Context:
        async def make() -> Context:
            async with self._vertex(title):
                directory, threads = self.place.shelf.directory, self.place.executor
                context = await remote_context(remote, self.filename, directory, threads, self._remote, self.session.secret)
                context.load_ignore(self.filename)
                return context

        return await self._once(("\0remote", remote), make)

    async def _upload(self) -> Context:
        async def make() -> Context:
            path = "/" + self.uploaded.removeprefix(UPLOAD_PREFIX)
            async with self._vertex("[internal] load remote build context"):
                chunks = self.session.upload(path)
                context = await receive_tar(chunks, self.place.shelf.directory, self.place.executor)
                context.load_ignore(self.filename)
                return context

        return await self._once(("\0upload",), make)

    async def _sync(self, wanted: Wanted, title: str, *, keep: bool) -> Context:
        session = self.session
        other = self.opts.get(f"local-sessionid:{wanted.name}", "")
        if other:
            session = await self.sessions.get(other)
        key = f"{session.shared_key}/{wanted.name}" if keep and session.shared_key else ""
        what = "transferring dockerfile:" if "definition" in title else "transferring context:"
        async with self._vertex(title) as digest:

            def report(size: int, done: bool) -> None:
                self.sink(Progress(digest, what, size, 0, time.time(), done))

            return await filesync.receive(
                session.channel, wanted, self.place.shelf, key, self.place.executor, report=report
            )

    @asynccontextmanager
    async def _vertex(self, name: str) -> AsyncIterator[str]:
        digest = vertex_digest(self.seed, name)
        self.sink(VertexQueued(digest, name))
        self.sink(VertexStarted(digest, time.time()))
        try:
            yield digest
        except BaseException as error:
            self.sink(VertexDone(digest, time.time(), error=str(error) or "cancelled"))
            raise
        self.sink(VertexDone(digest, time.time()))


def _definition(context: Context, name: str) -> bytes | None:
    content = context.read_text(name)
    if content is None and posixpath.basename(name) == DEFAULT_NAME:
        content = context.read_text(posixpath.join(posixpath.dirname(name), DEFAULT_NAME.lower()))
    return content
