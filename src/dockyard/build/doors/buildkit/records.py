"""The build history as clients read it: rows, and the documents that rows refer to (provenance), made when asked for."""

from __future__ import annotations

import hashlib

from dockyard.errors import DockyardError
from dockyard.oci.attestations import IN_TOTO, PREDICATE_ANNOTATION

from ...proto import content_pb2, control_pb2, rpc_pb2
from ...provenance import PREDICATE_TYPE
from .attests import provenance
from .exports import exporters_of
from .jobs import Builds, Job
from .rpc import NOT_FOUND, Call, Routes, RpcError, streaming, unary
from .status import stamp

__all__ = ["Documents", "history_record"]

PREFIX = "/containerd.services.content.v1.Content/"
PIECE = 1 << 20


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
        if job.error is not None or not job.completed or outcome is None or outcome.result is None:
            return
        if any(kind == PREDICATE_TYPE for kind, _ in job.documents.values()):
            return
        try:
            document = await provenance(job, outcome)
        except DockyardError:
            return
        job.documents["sha256:" + hashlib.sha256(document).hexdigest()] = (PREDICATE_TYPE, document)

    def _blob(self, digest: str) -> bytes:
        for job in self.builds.jobs():
            if digest in job.documents:
                return job.documents[digest][1]
        raise RpcError(NOT_FOUND, f"content {digest[:100]}: not found")

    async def info(self, call: Call, asked: content_pb2.InfoRequest) -> content_pb2.InfoResponse:
        return content_pb2.InfoResponse(info=content_pb2.Info(digest=asked.digest, size=len(self._blob(asked.digest))))

    async def read(self, call: Call, asked: content_pb2.ReadContentRequest) -> None:
        blob = self._blob(asked.digest)
        end = min(len(blob), asked.offset + asked.size) if asked.size > 0 else len(blob)
        for start in range(max(asked.offset, 0), end, PIECE):
            await call.send(content_pb2.ReadContentResponse(offset=start, data=blob[start : min(start + PIECE, end)]))


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
    for digest, (kind, document) in job.documents.items():
        record.result.attestations.add(
            media_type=IN_TOTO, digest=digest, size=len(document), annotations={PREDICATE_ANNOTATION: kind}
        )
    return record
