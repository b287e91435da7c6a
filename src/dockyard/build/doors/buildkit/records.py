"""The build history as clients read it: rows, and the documents that rows refer to (provenance), made when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from dockyard.errors import DockyardError
from dockyard.lib.clock import rfc3339

from ...context import Context, empty_context
from ...proto import content_pb2, control_pb2, rpc_pb2
from ...provenance import MEDIA_TYPE, PREDICATE_TYPE, predicate
from ...service import Builder
from .exports import exporters_of
from .jobs import Builds, Job, Outcome
from .rpc import NOT_FOUND, Call, Routes, RpcError, streaming, unary
from .status import stamp

__all__ = ["Documents", "history_record"]

PREFIX = "/containerd.services.content.v1.Content/"
PIECE = 1 << 20


class _Known:
    """A source that has the Dockerfile and nothing else: enough to plan again."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    async def dockerfile(self, name: str) -> bytes:
        return self.text

    async def context(self, name: str, patterns: Sequence[str]) -> Context:
        return empty_context()


class Documents:
    """Blobs by digest, read as containerd's content store is."""

    def __init__(self, builds: Builds) -> None:
        self.builds = builds

    def routes(self) -> Routes:
        return {
            f"{PREFIX}Info": unary(content_pb2.InfoRequest, self.info),
            f"{PREFIX}Read": streaming(content_pb2.ReadContentRequest, self.read),
        }

    async def attest(self, job: Job) -> None:
        """Makes the provenance of a finished build, once. A build whose bases have gone since has none."""
        outcome = next(iter(job.outcomes.values()), None)
        if job.error is not None or not job.completed or job.documents or outcome is None or outcome.result is None:
            return
        try:
            document = await _provenance(self.builds.builder, job, outcome, self.builds.facts.platform)
        except DockyardError:
            return
        job.documents["sha256:" + hashlib.sha256(document).hexdigest()] = document

    def _blob(self, digest: str) -> bytes:
        for job in self.builds.jobs():
            if digest in job.documents:
                return job.documents[digest]
        raise RpcError(NOT_FOUND, f"content {digest[:100]}: not found")

    async def info(self, call: Call, asked: content_pb2.InfoRequest) -> content_pb2.InfoResponse:
        return content_pb2.InfoResponse(info=content_pb2.Info(digest=asked.digest, size=len(self._blob(asked.digest))))

    async def read(self, call: Call, asked: content_pb2.ReadContentRequest) -> None:
        blob = self._blob(asked.digest)
        end = min(len(blob), asked.offset + asked.size) if asked.size > 0 else len(blob)
        for start in range(max(asked.offset, 0), end, PIECE):
            await call.send(content_pb2.ReadContentResponse(offset=start, data=blob[start : min(start + PIECE, end)]))


async def _provenance(builder: Builder, job: Job, outcome: Outcome, platform: str) -> bytes:
    assert outcome.request is not None
    graph = await builder.check(msgspec.structs.replace(outcome.request, pull=False), _Known(outcome.dockerfile))
    started, finished = (rfc3339(int(at * 1e9)) for at in (job.created, job.completed))
    return predicate(graph, job.attrs, invocation=job.id, started=started, finished=finished, platform=platform)


def history_record(job: Job) -> control_pb2.BuildHistoryRecord:
    total, completed, cached = job.status.steps
    record = control_pb2.BuildHistoryRecord(
        ref=job.id, frontend=job.asked.frontend or "dockerfile.v0", frontend_attrs=job.attrs, created_at=stamp(job.created),
        exporters=[control_pb2.Exporter(type=kind, attrs=attrs) for kind, attrs in exporters_of(job.asked)],
        exporter_response=job.response, pinned=job.pinned, generation=job.generation, num_cached_steps=cached,
        num_total_steps=total, num_completed_steps=completed, num_warnings=job.status.warnings,
    )  # fmt: skip
    if job.completed:
        record.completed_at.CopyFrom(stamp(job.completed))
    if job.error is not None:
        record.error.CopyFrom(rpc_pb2.Status(code=job.error.code, message=job.error.message))
    for digest, document in job.documents.items():
        record.result.attestations.add(
            media_type=MEDIA_TYPE, digest=digest, size=len(document),
            annotations={"in-toto.io/predicate-type": PREDICATE_TYPE},
        )  # fmt: skip
    return record
