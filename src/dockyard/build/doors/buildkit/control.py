"""moby.buildkit.v1.Control: solve, follow, workers, cache and history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import dockyard

from ...proto import control_pb2, llb_pb2, rpc_pb2
from ...service import CacheRecord
from .errors import BAD_REQUEST
from .exports import export
from .jobs import Builds, Job, reference_in
from .ports import HostFacts
from .records import Documents, history_record
from .rpc import Call, Routes, RpcError, streaming, unary
from .session import Sessions
from .status import stamp
from .wires import CallWire

__all__ = ["VERSION", "Control", "worker_of"]

PREFIX = "/moby.buildkit.v1.Control/"
VERSION = f"v0.32.2+dockyard.{dockyard.__version__}"
"""The BuildKit whose protocol we speak: clients compare it to know what may be asked."""
DOCKERFILE_VERSION = "1.26.0"
NANO = 1_000_000_000


def worker_of(facts: HostFacts) -> control_pb2.WorkerRecord:
    """``snapshotter`` tells buildx that archives, cache export and direct push are served."""
    labels = {
        "org.mobyproject.buildkit.worker.executor": "oci", "org.mobyproject.buildkit.worker.hostname": facts.hostname,
        "org.mobyproject.buildkit.worker.network": "bridge", "org.mobyproject.buildkit.worker.snapshotter": "overlayfs",
    }  # fmt: skip
    if gateway := facts.gateway():
        labels["org.mobyproject.buildkit.worker.moby.host-gateway-ip"] = gateway
    return control_pb2.WorkerRecord(
        id=facts.id, labels=labels, buildkit_version=_version(),
        platforms=[platform_pb(each) for each in (facts.platform, *facts.emulated())],
    )  # fmt: skip


def platform_pb(text: str) -> llb_pb2.Platform:
    system, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    return llb_pb2.Platform(os=system, architecture=architecture, variant=variant)


def _version() -> control_pb2.BuildkitVersion:
    return control_pb2.BuildkitVersion(
        package="dockyard", version=VERSION, dockerfile_version=DOCKERFILE_VERSION
    )  # fmt: skip


class Control:
    def __init__(self, builds: Builds, sessions: Sessions, documents: Documents) -> None:
        self.builds, self.sessions, self.documents = builds, sessions, documents

    def routes(self) -> Routes:
        pb = control_pb2
        return {
            f"{PREFIX}Solve": unary(pb.SolveRequest, self.solve),
            f"{PREFIX}Status": streaming(pb.StatusRequest, self.status),
            f"{PREFIX}ListWorkers": unary(pb.ListWorkersRequest, self.list_workers),
            f"{PREFIX}Info": unary(pb.InfoRequest, self.info),
            f"{PREFIX}DiskUsage": unary(pb.DiskUsageRequest, self.disk_usage),
            f"{PREFIX}Prune": streaming(pb.PruneRequest, self.prune),
            f"{PREFIX}ListenBuildHistory": streaming(pb.BuildHistoryRequest, self.listen),
            f"{PREFIX}UpdateBuildHistory": unary(pb.UpdateBuildHistoryRequest, self.update),
            f"{PREFIX}Session": self.session,
            "/grpc.health.v1.Health/Check": unary(rpc_pb2.HealthCheckRequest, self.health),
        }

    async def solve(self, call: Call, asked: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
        job = await self.builds.begin(asked)
        error: BaseException | None = None
        try:
            job.response = await self._solved(job, asked)
            return control_pb2.SolveResponse(exporter_response=job.response)
        except BaseException as failure:
            error = failure
            raise
        finally:
            await asyncio.shield(self.builds.end(job, error))

    async def _solved(self, job: Job, asked: control_pb2.SolveRequest) -> dict[str, str]:
        if asked.frontend:
            outcome = await job.build(asked.frontend, asked.frontend_attrs, asked.frontend_inputs)
            return await export(job, outcome) | {k: v.decode() for k, v in outcome.metadata.items() if outcome.result is None}
        if asked.definition.operations:
            reference_in(asked.definition)  # refuses plain LLB
        return await export(job, job.joined(await job.returned))

    async def status(self, call: Call, asked: control_pb2.StatusRequest) -> None:
        job = await self.builds.job(asked.ref)
        await job.status.follow(call.send)

    async def list_workers(self, call: Call, asked: control_pb2.ListWorkersRequest) -> control_pb2.ListWorkersResponse:
        return control_pb2.ListWorkersResponse(record=[worker_of(self.builds.facts)])

    async def info(self, call: Call, asked: control_pb2.InfoRequest) -> control_pb2.InfoResponse:
        return control_pb2.InfoResponse(buildkit_version=_version())

    async def health(self, call: Call, asked: rpc_pb2.HealthCheckRequest) -> rpc_pb2.HealthCheckResponse:
        return rpc_pb2.HealthCheckResponse(status=1)

    # -- cache --

    def _usage(self, filters: Sequence[str]) -> list[control_pb2.UsageRecord]:
        rows = [_record(row) for row in self.builds.builder.usage()]
        rows += [
            control_pb2.UsageRecord(
                id=f"context-{vertex}", mutable=True, in_use=bool(spool.users), size=spool.size, record_type="source.local",
                created_at=stamp(spool.created), last_used_at=stamp(spool.used), usage_count=spool.uses,
                description=f"local source for {key.rpartition('/')[2]}",
            )
            for vertex, (key, spool) in enumerate(self.builds.place.shelf.records())
        ]  # fmt: skip
        return [row for row in rows if all(_matches(row, item) for item in filters if item)]

    async def disk_usage(self, call: Call, asked: control_pb2.DiskUsageRequest) -> control_pb2.DiskUsageResponse:
        return control_pb2.DiskUsageResponse(record=self._usage(asked.filter))

    async def prune(self, call: Call, asked: control_pb2.PruneRequest) -> None:
        before = {row.id: row for row in self._usage(())}
        filters: dict[str, list[str]] = {}
        for item in filter(None, asked.filter):
            key, _, value = _condition(item)
            filters.setdefault(key, []).append(value)
        if asked.keep_duration:
            filters["until"] = [f"{asked.keep_duration / NANO:.0f}s"]
        pruned = await self.builds.builder.prune(
            all=asked.all, filters=filters, reserved=asked.reserved_space, max_used=asked.max_used_space,
            min_free=asked.min_free_space,
        )  # fmt: skip
        deleted = list(pruned.deleted)
        if not asked.filter and not asked.keep_duration:
            contexts = list(enumerate(self.builds.place.shelf.records()))
            deleted += [f"context-{number}" for number, (key, _) in contexts if self.builds.place.shelf.drop(key)]
        for id in deleted:
            await call.send(before.get(id) or control_pb2.UsageRecord(id=id))

    # -- history --

    async def listen(self, call: Call, asked: control_pb2.BuildHistoryRequest) -> None:
        """Every known build once, then (without ``early_exit``) whatever changes."""
        told: dict[str, int] = {}
        while True:
            jobs = [job for job in self.builds.jobs() if not job.asked.internal and asked.ref in ("", job.id)]
            if asked.limit > 0:
                jobs = jobs[-asked.limit :]
            for gone in told.keys() - {job.id for job in jobs}:
                del told[gone]
                await call.send(_event(control_pb2.DELETED, control_pb2.BuildHistoryRecord(ref=gone)))
            for job in jobs:
                if told.get(job.id) == job.generation or (asked.active_only and job.completed):
                    continue
                told[job.id] = job.generation
                if asked.ref:
                    await self.documents.attest(job)
                kind = control_pb2.COMPLETE if job.completed else control_pb2.STARTED
                await call.send(_event(kind, history_record(job)))
            if asked.early_exit:
                return
            async with self.builds.changed:
                await self.builds.changed.wait()

    async def update(
        self, call: Call, asked: control_pb2.UpdateBuildHistoryRequest
    ) -> control_pb2.UpdateBuildHistoryResponse:
        if asked.delete:
            self.builds.delete(asked.ref)
        else:
            job = await self.builds.job(asked.ref, wait=False)
            job.pinned = asked.pinned
            job.generation += 1
        await self.builds.announce()
        return control_pb2.UpdateBuildHistoryResponse()

    # -- a session inside a call (clients without POST /session) --

    async def session(self, call: Call) -> None:
        wire = CallWire(call)
        call.begin()
        header = call.metadata
        await self.sessions.serve(
            wire, header.get("x-docker-expose-session-uuid", [""])[0],
            shared_key=header.get("x-docker-expose-session-sharedkey", [""])[0],
            methods=header.get("x-docker-expose-session-grpc-method", []),
        )  # fmt: skip


def _event(kind: control_pb2.BuildHistoryEventType, record: control_pb2.BuildHistoryRecord) -> control_pb2.BuildHistoryEvent:
    return control_pb2.BuildHistoryEvent(type=kind, record=record)


def _record(row: CacheRecord) -> control_pb2.UsageRecord:
    return control_pb2.UsageRecord(
        id=row.id, mutable=row.kind == "exec.cachemount", in_use=row.in_use, size=row.size, shared=row.shared,
        created_at=stamp(row.created / NANO), last_used_at=stamp(row.last_used / NANO), usage_count=row.uses,
        description=row.description, record_type=row.kind, parents=row.parents,
    )  # fmt: skip


FIELDS = {"id": "id", "type": "record_type", "description": "description", "shared": "shared", "mutable": "mutable",
          "inuse": "in_use", "parents": "parents"}  # fmt: skip


def _condition(text: str) -> tuple[str, str, str]:
    """containerd's filter form: ``field==value``, ``!=`` and ``~=``. Raises InvalidParameter."""
    for operator in ("==", "!=", "~="):
        field, found, value = text.partition(operator)
        if found:
            return field.strip().lower(), operator, value.strip().strip('"')
    raise BAD_REQUEST(text=f"invalid filter {text[:200]!r}: field==value is expected")


def _matches(row: control_pb2.UsageRecord, text: str) -> bool:
    field, operator, value = _condition(text)
    if field not in FIELDS:
        raise BAD_REQUEST(text=f"invalid filter {text[:200]!r}: known fields are {', '.join(FIELDS)}")
    content = getattr(row, FIELDS[field])
    shown = str(content).lower() if isinstance(content, bool) else str(content)
    if operator == "~=":
        return value in shown
    return (shown == value) == (operator == "==")


def returned_error(status: rpc_pb2.Status) -> RpcError:
    return RpcError(status.code, status.message, [(row.type_url, row.value) for row in status.details])
