"""POST /build: a context in the body (or a URL) and the classic builder's transcript as the answer.

The whole language is served, not the classic subset. What is wrong with query, context or Dockerfile is raised before
the stream begins, so that it becomes an HTTP status; what fails later is told in the stream. A client that goes away
ends its build.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from dockyard.errors import DockyardError
from dockyard.model import new_id
from dockyard.oci import parse_reference

from ..context import Context, receive
from ..errors import BAD_OPTION, DOCKERFILE_MISSING, RUN_FAILED
from ..model import Request
from ..progress import Event, Output, VertexQueued
from ..remote import remote_context
from ..service import Builder, Result
from .query import parse_build_query
from .steprows import StepRows
from .transcript import Transcript

__all__ = ["ClassicDoor", "NoSession"]

Json = dict[str, Any]
READERS = 8
MAX_QUEUED = 8 << 20
"""Bytes of output that wait for a slow client; what comes above is dropped and told."""


class NoSession:
    """POST /build has none: no secrets, no agent."""

    async def secret(self, id: str) -> bytes | None:
        return None

    async def ssh_socket(self, id: str) -> str | None:
        return None

    async def content_store(self, name: str) -> None:
        return None


class ContextSource:
    """A context that is here already. ``inline`` is a Dockerfile that came without one."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def dockerfile(self, name: str) -> bytes:
        return self._context.dockerfile(name)

    async def context(self, name: str, patterns: Sequence[str]) -> Context:
        if name:
            raise BAD_OPTION(text=f"no build context {name!r} was given")
        return self._context


class ClassicDoor:
    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._threads = ThreadPoolExecutor(READERS, "build-context")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def build(
        self, query: Mapping[str, Sequence[str]], auths: Mapping[str, Any], body: AsyncIterator[bytes]
    ) -> AsyncIterator[Json]:
        """Raises what deserves a status; the iterator is the transcript. Closing it cancels the build."""
        wish = parse_build_query(query, auths, new_id())
        request = self._only_given_cache(wish.request)
        async with AsyncExitStack() as stack:
            context = await self._context(request, body, stack)
            context.load_ignore(request.dockerfile)
            source = ContextSource(context)
            await self._builder.parse(request, source)
            feed = _Feed()
            task = asyncio.ensure_future(self._builder.build(request, source, NoSession(), feed.put))
            task.add_done_callback(lambda _task: feed.end())
            stack.push_async_callback(_ended, task)
            await feed.begun()
            if task.done() and (error := task.exception()) is not None and not feed.told:
                raise error
            transcript = Transcript(remove=wish.remove)
            rows = StepRows() if wish.steps else None
            return _messages(feed, task, transcript, stack.pop_all(), quiet=wish.quiet, rows=rows)

    def _only_given_cache(self, request: Request) -> Request:
        """As moby's: with cachefrom these images alone are trusted as a cache; where none of them is here, nothing is."""
        bare = [text for text in request.cache_from if "=" not in text]
        if bare and len(bare) == len(request.cache_from) and not any(self._builder.has_image(ref) for ref in bare):
            return msgspec.structs.replace(request, no_cache=True)
        return request

    async def _context(self, request: Request, body: AsyncIterator[bytes], stack: AsyncExitStack) -> Context:
        remote, spool = request.remote, self._builder.spool
        if not remote or remote == "-":
            context = await receive(body, spool, self._threads, self._builder.settings.context)
        else:
            return await remote_context(remote, request.dockerfile, spool, self._threads, stack)
        stack.callback(context.close)
        return context


class _Feed:
    """Events on their way to the client; never waits, never holds more than ``MAX_QUEUED`` bytes of output."""

    def __init__(self) -> None:
        self._events: deque[Event | None] = deque()
        self._more = asyncio.Event()
        self._size = 0
        self._dropping = False
        self.told = False

    def put(self, event: Event) -> None:
        if isinstance(event, Output):
            if self._size > MAX_QUEUED:
                if not self._dropping:
                    self._dropping = True
                    notice = b"\n[output clipped: the client reads too slowly]\n"
                    self._events.append(Output(event.digest, 1, notice, event.at))
                return
            self._size += len(event.data)
        self.told = self.told or isinstance(event, VertexQueued)
        self._events.append(event)
        self._more.set()

    def end(self) -> None:
        self._events.append(None)
        self._more.set()

    async def begun(self) -> None:
        """There is something: an event, or the end."""
        await self._more.wait()

    async def events(self) -> AsyncIterator[Event]:
        while True:
            while self._events:
                event = self._events.popleft()
                if event is None:
                    return
                if isinstance(event, Output):
                    self._size -= len(event.data)
                    self._dropping = self._dropping and self._size > MAX_QUEUED // 2
                yield event
            self._more.clear()
            await self._more.wait()


async def _messages(
    feed: _Feed, task: asyncio.Task[Result], transcript: Transcript, stack: AsyncExitStack, *, quiet: bool,
    rows: StepRows | None,
) -> AsyncIterator[Json]:  # fmt: skip
    async with stack:
        async for event in feed.events():
            if rows is not None and (row := rows.feed(event)) is not None:
                yield row
            for message in transcript.feed(event):
                if not quiet:
                    yield message
        try:
            result = task.result()
        except DockyardError as error:
            for message in transcript.rest():
                yield message
            if kept := error.evidence.get("image"):
                short = kept.removeprefix("sha256:")[:12]
                yield {"stream": f" ---> Kept as {short}: docker run -it --rm {short} sh\n"}
            yield _failure(error)
            return
        if quiet:
            yield {"stream": result.image + "\n"}
            return
        for message in _success(result, transcript):
            yield message


def _success(result: Result, transcript: Transcript) -> list[Json]:
    out: list[Json] = [{"aux": {"ID": result.image}}, *transcript.warnings()]
    out.append({"stream": f"Successfully built {result.image.removeprefix('sha256:')[:12]}\n"})
    out += [{"stream": f"Successfully tagged {parse_reference(tag).familiar}\n"} for tag in result.tags]
    return out


def _failure(error: DockyardError) -> Json:
    detail: Json = {"message": str(error)}
    if error.code == RUN_FAILED.id:
        detail["code"] = error.evidence["exit_code"]
    if error.hint and error.code != DOCKERFILE_MISSING.id:
        detail["hint"] = error.hint
    return {"errorDetail": detail, "error": str(error)}


async def _ended(task: asyncio.Task[Result]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
