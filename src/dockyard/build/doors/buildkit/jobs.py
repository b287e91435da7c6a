"""Jobs: builds as clients see them, from the call that asks to their row in the history.

::

    Control.Solve ─► job ─► (frontend "")           waits for LLBBridge.Return, which brings a result of ...
                        └─► (frontend dockerfile.v0) ... Job.build, once or many times ─► exports ─► response
    finish: status closed, tasks cancelled, what nobody exported forgotten, record kept in the history

Results are passed between targets (bake) as Definitions: one source operation that names the result. Only this door
can read it, and it reads no other.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
from google.protobuf.message import DecodeError

from dockyard.errors import DockyardError
from dockyard.oci.reference import parse_reference

from ... import plan
from ...cachespec import parse_cache
from ...dockerfile.parser import SyntaxProblem, parse
from ...errors import FOREIGN_FRONTEND
from ...model import Request
from ...progress import Sink
from ...proto import control_pb2, llb_pb2
from ...service import Builder, Result
from .contentstore import SessionStore, content_store
from .errors import BAD_REQUEST, NO_SUCH_JOB, NO_SUCH_REF, TOO_MANY
from .expected import expected
from .failure import build_failure
from .frontend import check_frontend, check_syntax, for_platform, platforms_of, request_of
from .ports import HostFacts, ImageShelf
from .rpc import RpcError, as_status
from .session import Agents, ClientSession, Sessions
from .source import Place, SessionSource
from .status import StatusLog, labelled
from .subrequests import answer, check

__all__ = ["Builds", "Job", "Outcome", "definition_of", "reference_in"]

WAIT_LIMIT = 10.0
"""Seconds that a call waits for the job it names: clients send both at the same time."""
MAX_RUNNING = 1000
MAX_OUTCOMES = 1000
KEEP_RECORDS = 100
KEEP_LOGS = 10
"""The newest jobs whose output can still be read."""
KEEP_RESULTS = 1000
SCHEME = "dockyard-result://"
HUB_KEY = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one solve gave: an image's parts, or a subrequest's ``metadata``. With several platforms there is one outcome a
    platform in ``parts``, and ``result`` is that of this machine's, or the first."""

    id: str
    result: Result | None
    metadata: Mapping[str, bytes]
    request: Request | None = None
    dockerfile: bytes = b""
    parts: tuple[Outcome, ...] = ()

    @property
    def each(self) -> tuple[Outcome, ...]:
        """One a platform."""
        return self.parts or (self,)

    @property
    def platform(self) -> str:
        return self.request.platform if self.request is not None else ""


class BuildSession:
    """``ports.Session`` of one build."""

    def __init__(self, session: ClientSession, agents: Agents) -> None:
        self.session, self.agents = session, agents

    async def secret(self, id: str) -> bytes | None:
        return await self.session.secret(id)

    async def ssh_socket(self, id: str) -> str | None:
        return await self.agents.socket(id)

    async def content_store(self, name: str) -> SessionStore | None:
        return await content_store(self.session, name)


@dataclass(eq=False)
class Job:
    """``returned`` is what LLBBridge.Return brought: reference IDs (none for nothing) or the client's error."""

    id: str
    asked: control_pb2.SolveRequest
    builds: Builds
    created: float = field(default_factory=time.time)
    completed: float = 0.0
    status: StatusLog = field(default_factory=StatusLog)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    attrs: dict[str, str] = field(default_factory=dict)
    documents: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """(predicate type, predicate) by digest; what the build attests."""
    packages: dict[str, bytes] = field(default_factory=dict)
    """The SBOM of each outcome that wants one."""
    response: dict[str, str] = field(default_factory=dict)
    error: RpcError | None = None
    pinned: bool = False
    generation: int = 0

    def __post_init__(self) -> None:
        self.returned: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        self.attrs = dict(self.asked.frontend_attrs)
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self._lent: set[str] = set()
        self._held = ExitStack()
        """Layers of results until they are exported, and results of other targets."""

    async def session(self) -> ClientSession:
        return await self.builds.sessions.get(self.asked.session)

    async def build(
        self, frontend: str, opts: Mapping[str, str], inputs: Mapping[str, llb_pb2.Definition],
        imports: Sequence[control_pb2.CacheOptionsEntry] = (),
    ) -> Outcome:  # fmt: skip
        """Ends with the job at the latest. Raises RpcError."""
        check_frontend(frontend, opts)
        if len(self.outcomes) + len(self._tasks) >= MAX_OUTCOMES:
            raise TOO_MANY(what=f"results in build {self.id[:100]}", limit=MAX_OUTCOMES)
        task = asyncio.ensure_future(self._build(dict(opts), inputs, imports))
        self._tasks.add(task)
        try:
            outcome = await task
        except Exception as error:
            info = self.status.source() or llb_pb2.SourceInfo()
            raise build_failure(error, info.data, info.filename, self.status.failed) from error
        finally:
            task.cancel()
            self._tasks.discard(task)
        self.outcomes |= {each.id: each for each in (outcome, *outcome.parts)}
        return outcome

    def outcome(self, id: str) -> Outcome:
        """Raises NotFound."""
        try:
            return self.outcomes[id]
        except KeyError:
            raise NO_SUCH_REF(id=id[:100]) from None

    def joined(self, ids: Sequence[str]) -> Outcome | None:
        """What is to be exported, of what the client returned. Raises NotFound."""
        found = [self.outcome(id) for id in ids]
        return self.together(found) if len(found) > 1 else found[0] if found else None

    def together(self, parts: Sequence[Outcome]) -> Outcome:
        """Outcomes for several platforms as one."""
        first = next((each for each in parts if each.platform == self.builds.facts.platform), parts[0])
        return replace(first, id=_new_id(), parts=tuple(parts))

    async def finish(self, error: BaseException | None) -> None:
        if error is not None:
            self.error = as_status(error, "build") if isinstance(error, Exception) else RpcError(1, "context canceled")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._held.close()
        self.completed = time.time()
        self.generation += 1
        self.status.close(self.error.message if self.error else "")
        if not self.returned.done():
            self.returned.cancel()

    async def _build(
        self, opts: dict[str, str], inputs: Mapping[str, llb_pb2.Definition],
        imports: Sequence[control_pb2.CacheOptionsEntry],
    ) -> Outcome:  # fmt: skip
        session = await self.session()
        if not self.attrs:
            self.attrs = dict(opts)
        source = SessionSource(self.builds.place, self.builds.sessions, session, opts, self.status.sink, self.id)
        agents = Agents(session, self.builds.socket_directory)
        try:
            self._link(opts, inputs)
            request = request_of(
                opts, entitlements=self.asked.entitlements, id=self.id,
                imports=[(row.type, row.attrs) for row in (*self.asked.cache.imports, *imports)],
                exports=[(row.type, row.attrs) for row in self.asked.cache.exports],
            )  # fmt: skip
            text = await source.dockerfile(request.dockerfile)
            check_syntax(text, request.dockerfile, opts)
            self.status.source = lambda: source_info(request.dockerfile, text)
            source.expect(expected(text, request.target, request.contexts))
            request = msgspec.structs.replace(request, auths=await self._auths(session, text, request))
            if name := opts.get("requestid"):
                return Outcome(_new_id(), None, await answer(name, text, request, source, self.builds.builder), request)
            await check(text, request, source, self.status.sink)
            platforms = platforms_of(opts)
            port = BuildSession(session, agents)
            if len(platforms) < 2:
                return await self._one(request, text, source, port, self.status.sink)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._one(
                        for_platform(request, each), text, source, port, labelled(self.status.sink, each)
                    )) for each in platforms
                ]  # fmt: skip
            return self.together([task.result() for task in tasks])
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        finally:
            await agents.aclose()
            await source.close()

    async def _one(self, request: Request, text: bytes, source: SessionSource, session: BuildSession, sink: Sink) -> Outcome:
        """For one platform."""
        result = await self.builds.builder.build(request, source, session, sink, register=False)
        self._hold(result)
        outcome = Outcome(_new_id(), result, {"containerimage.config": result.config}, request, text)
        self.builds.remember(outcome)
        return outcome

    async def export_cache(self, outcome: Outcome) -> dict[str, str]:
        """What the build's --cache-to asks for; the exporter's response. Raises what the cache's place raises."""
        if outcome.request is None or outcome.result is None or not self.asked.cache.exports:
            return {}
        session = await self.session()
        async with aclosing(Agents(session, self.builds.socket_directory)) as agents:
            return await self.builds.builder.export_cache(
                outcome.request, [each.result for each in outcome.each if each.result], BuildSession(session, agents), self.status.sink
            )

    def _hold(self, result: Result) -> None:
        self._held.enter_context(self.builds.builder.held(result))

    def _link(self, opts: dict[str, str], inputs: Mapping[str, llb_pb2.Definition]) -> None:
        """``input:NAME`` of other targets become images, lent until this job ends."""
        for key, value in list(opts.items()):
            if not (key.startswith("context:") and value.startswith("input:")):
                continue
            definition = inputs.get(value.removeprefix("input:"))
            if definition is None:
                raise BAD_REQUEST(text=f"invalid input {value[:200]} for {key[:200]}")
            result = self.builds.result(reference_in(definition))
            self._hold(result)
            reference = self.builds.images.lend(result)
            self._lent.add(reference)
            self._held.callback(self.builds.images.take_back, reference)
            opts[key] = f"docker-image://{reference}"

    async def _auths(self, session: ClientSession, text: bytes, request: Request) -> dict[str, dict[str, str]]:
        """Credentials for the registries that the Dockerfile and the caches name."""
        hosts = set()
        caches = {parse_cache(each).attrs.get("ref", "") for each in (*request.cache_from, *request.cache_to)} - {""}
        for ref in (_images_of(text, request, self.builds.facts.platform) | caches) - self._lent:
            try:
                hosts.add(parse_reference(ref).domain)
            except DockyardError:
                continue  # the solver says what is wrong with it
        auths = {}
        for host in sorted(hosts):
            user, secret = await session.credentials(host)
            if secret:
                entry = {"username": user, "password": secret} if user else {"identitytoken": secret}
                auths[HUB_KEY if host == "docker.io" else host] = {**entry, "serveraddress": host}
        return auths


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """What failed, rather than what was cancelled for it."""
    plain = [each for each in failures.exceptions if not isinstance(each, asyncio.CancelledError)]
    first = (plain or list(failures.exceptions))[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _images_of(text: bytes, request: Request, platform: str) -> set[str]:
    named = {value.removeprefix("docker-image://") for value in request.contexts.values() if value.startswith("docker-image")}
    try:
        plan.plan(parse(text.decode("utf-8", "replace")), request, {}, platform)
    except plan.NeedImages as need:
        return named | {ref for ref, _ in need.refs}
    except (SyntaxProblem, DockyardError):
        pass  # told by the build itself
    return named


def source_info(name: str, text: bytes) -> llb_pb2.SourceInfo:
    return llb_pb2.SourceInfo(filename=name, data=text, language="Dockerfile")


def _new_id() -> str:
    return secrets.token_hex(16)


def definition_of(id: str) -> llb_pb2.Definition:
    """A result as a Definition: a source operation, and the empty last operation that points at it."""
    source = llb_pb2.Op(source=llb_pb2.SourceOp(identifier=SCHEME + id)).SerializeToString()
    digest = "sha256:" + hashlib.sha256(source).hexdigest()
    last = llb_pb2.Op(inputs=[llb_pb2.Input(digest=digest)]).SerializeToString()
    definition = llb_pb2.Definition(operations=[source, last])
    definition.metadata[digest].SetInParent()  # a Definition without metadata is none for clients
    return definition


def reference_in(definition: llb_pb2.Definition) -> str:
    """The result that a Definition of ours names. Raises NotImplementedYet for any other."""
    for operation in definition.operations:
        try:
            identifier = llb_pb2.Op.FromString(operation).source.identifier
        except DecodeError:
            continue
        if identifier.startswith(SCHEME):
            return identifier.removeprefix(SCHEME)
    raise FOREIGN_FRONTEND(name="that made this LLB", where="")


class Builds:
    """All jobs of a door, running and done."""

    def __init__(
        self, builder: Builder, images: ImageShelf, sessions: Sessions, place: Place, facts: HostFacts,
        socket_directory: Path,
    ) -> None:  # fmt: skip
        self.builder, self.images, self.sessions, self.place, self.facts = builder, images, sessions, place, facts
        self.socket_directory = socket_directory
        self.changed = asyncio.Condition()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._results: OrderedDict[str, Result] = OrderedDict()

    async def begin(self, asked: control_pb2.SolveRequest) -> Job:
        """Raises InvalidParameter for a reference that is taken."""
        if not asked.ref or asked.ref in self._jobs:
            raise BAD_REQUEST(text=f"job ID {asked.ref[:100]!r} exists or is empty")
        if sum(not each.completed for each in self._jobs.values()) >= MAX_RUNNING:
            raise TOO_MANY(what="builds under way", limit=MAX_RUNNING)
        job = self._jobs[asked.ref] = Job(asked.ref, asked, self)
        await self.announce()
        return job

    async def end(self, job: Job, error: BaseException | None) -> None:
        await job.finish(error)
        if job.asked.internal:
            self._jobs.pop(job.id, None)
        done = [each for each in self._jobs.values() if each.completed]
        for old in done[:-KEEP_LOGS]:
            old.status = StatusLog()
            old.status.close()
            old.outcomes.clear()
        for old in [each for each in done if not each.pinned][:-KEEP_RECORDS]:
            self._jobs.pop(old.id, None)
        await self.announce()

    async def announce(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def job(self, id: str, *, wait: bool = True) -> Job:
        """Raises NotFound."""
        try:
            async with asyncio.timeout(WAIT_LIMIT if wait else 0.001), self.changed:
                while (found := self._jobs.get(id)) is None:
                    await self.changed.wait()
        except TimeoutError:
            raise NO_SUCH_JOB(id=id[:100]) from None
        return found

    def jobs(self) -> list[Job]:
        return list(self._jobs.values())

    def delete(self, id: str) -> Job:
        """Raises NotFound; a running job stays."""
        job = self._jobs.get(id)
        if job is None or not job.completed:
            raise NO_SUCH_JOB(id=id[:100])
        return self._jobs.pop(id)

    def remember(self, outcome: Outcome) -> None:
        if outcome.result is not None:
            self._results[outcome.id] = outcome.result
            while len(self._results) > KEEP_RESULTS:
                self._results.popitem(last=False)

    def result(self, id: str) -> Result:
        """Raises NotFound."""
        try:
            return self._results[id]
        except KeyError:
            raise NO_SUCH_REF(id=id[:100]) from None
