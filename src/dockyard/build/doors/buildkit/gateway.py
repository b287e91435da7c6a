"""moby.buildkit.v1.frontend.LLBBridge: what the client's side of a build asks while its job runs."""

from __future__ import annotations

import fnmatch
import json
import posixpath
from collections.abc import Callable
from typing import TypeVar

from dockyard.oci import tar
from dockyard.oci.reference import parse_reference

from ...proto import gateway_pb2, rpc_pb2
from ...tree import Entry, RootTree
from .control import returned_error, worker_of
from .errors import BAD_REQUEST, NO_SUCH_FILE, NO_SUCH_REF
from .filesend import stat_of
from .jobs import Builds, Job, Outcome, definition_of, reference_in
from .rpc import Call, Routes, unary

__all__ = ["Gateway"]

PREFIX = "/moby.buildkit.v1.frontend.LLBBridge/"
BUILD_ID = "buildkit-controlapi-buildid"
MAX_READ = 8 << 20
"""Bytes of one ReadFile: clients take messages up to 16 MiB."""
FRONTEND_CAPS = (
    "solve.base", "solve.inlinereturn", "resolveimage", "resolveimage.resolvemode", "readfile", "return", "returnmap",
    "readdir", "statfile", "importcaches", "proto.refarray", "reference.output", "frontend.inputs",
    "gateway.solve.metadata", "frontend.caps", "gateway.evaluate", "gateway.warnings",
)  # fmt: skip
LLB_CAPS = (
    "source.image", "source.image.resolvemode", "source.local", "source.local.unique", "source.local.sessionid",
    "source.local.includepatterns", "source.local.followpaths", "source.local.excludepatterns",
    "source.local.sharedkeyhint", "source.git", "source.git.keepgitdir", "source.git.fullurl", "source.git.subdir",
    "source.http", "source.http.checksum", "exec.meta.base", "exec.meta.network", "exec.meta.proxyenv",
    "exec.meta.security", "exec.meta.setsdefaultpath", "exec.meta.ulimit", "exec.mount.bind", "exec.mount.cache",
    "exec.mount.cache.sharing", "exec.mount.selector", "exec.mount.tmpfs", "exec.mount.tmpfs.size", "exec.mount.secret",
    "exec.mount.ssh", "exec.secretenv", "file.base", "constraints", "platform", "meta.ignorecache", "meta.description",
    "meta.exportcache", "exporter.multiple", "exporter.sourcedateepoch", "exporter.image.attestations",
)  # fmt: skip
T = TypeVar("T")


class Gateway:
    def __init__(self, builds: Builds) -> None:
        self.builds = builds

    def routes(self) -> Routes:
        pb = gateway_pb2
        return {
            f"{PREFIX}Ping": unary(rpc_pb2.Empty, self.ping),
            f"{PREFIX}Solve": unary(pb.SolveRequest, self.solve),
            f"{PREFIX}Return": unary(pb.ReturnRequest, self.return_),
            f"{PREFIX}Evaluate": unary(pb.EvaluateRequest, self.evaluate),
            f"{PREFIX}ResolveImageConfig": unary(pb.ResolveImageConfigRequest, self.resolve_image_config),
            f"{PREFIX}ReadFile": unary(pb.ReadFileRequest, self.read_file),
            f"{PREFIX}ReadDir": unary(pb.ReadDirRequest, self.read_dir),
            f"{PREFIX}StatFile": unary(pb.StatFileRequest, self.stat_file),
            f"{PREFIX}Inputs": unary(pb.InputsRequest, self.inputs),
            f"{PREFIX}Warn": unary(pb.WarnRequest, self.warn),
        }

    async def _job(self, call: Call) -> Job:
        ids = call.metadata.get(BUILD_ID)
        if not ids:
            raise BAD_REQUEST(text=f"the call names no build ({BUILD_ID})")
        return await self.builds.job(ids[0])

    async def ping(self, call: Call, asked: rpc_pb2.Empty) -> gateway_pb2.PongResponse:
        await self._job(call)
        return gateway_pb2.PongResponse(
            frontend_api_caps=[gateway_pb2.APICap(id=name, enabled=True) for name in FRONTEND_CAPS],
            llb_caps=[gateway_pb2.APICap(id=name, enabled=True) for name in LLB_CAPS],
            workers=[worker_of(self.builds.facts)],
        )

    async def solve(self, call: Call, asked: gateway_pb2.SolveRequest) -> gateway_pb2.SolveResponse:
        job = await self._job(call)
        if asked.definition.operations:
            id = reference_in(asked.definition)
            self.builds.result(id)
            return gateway_pb2.SolveResponse(result=_reference(id))
        if not asked.frontend:
            return gateway_pb2.SolveResponse(result=gateway_pb2.Result(ref=gateway_pb2.Ref()))
        outcome = await job.build(asked.frontend, asked.frontend_opt, asked.frontend_inputs, asked.cache_imports)
        result = _result(outcome)
        for key, value in outcome.metadata.items() if not outcome.parts else ():
            result.metadata[key] = value
        return gateway_pb2.SolveResponse(ref=outcome.id, result=result)

    async def return_(self, call: Call, asked: gateway_pb2.ReturnRequest) -> gateway_pb2.ReturnResponse:
        job = await self._job(call)
        if job.returned.done():
            raise BAD_REQUEST(text="the build has been returned already")
        if asked.HasField("error"):
            job.returned.set_exception(returned_error(asked.error))
            return gateway_pb2.ReturnResponse()
        ids = [ref.id for _, ref in sorted(asked.result.refs.refs.items())]
        ids = ids or [asked.result.ref.id or asked.result.ref_deprecated]
        ids = [id for id in ids if id]
        for id in ids:
            job.outcome(id)
        job.returned.set_result(tuple(ids))
        return gateway_pb2.ReturnResponse()

    async def evaluate(self, call: Call, asked: gateway_pb2.EvaluateRequest) -> rpc_pb2.Empty:
        """A result is whole as soon as it is there."""
        (await self._job(call)).outcome(asked.ref)
        return rpc_pb2.Empty()

    async def resolve_image_config(
        self, call: Call, asked: gateway_pb2.ResolveImageConfigRequest
    ) -> gateway_pb2.ResolveImageConfigResponse:
        job = await self._job(call)
        session = await job.session()
        name = parse_reference(asked.ref).with_default_tag()
        user, secret = await session.credentials(name.domain)
        auth = {"username": user, "password": secret} if user else {}
        parts = (asked.platform.os, asked.platform.architecture, asked.platform.variant)
        digest, config = await self.builds.images.config(str(name), "/".join(filter(None, parts)), auth)
        return gateway_pb2.ResolveImageConfigResponse(digest=digest, config=config, ref=str(name))

    async def read_file(self, call: Call, asked: gateway_pb2.ReadFileRequest) -> gateway_pb2.ReadFileResponse:
        def read(tree: RootTree) -> bytes:
            entry = _found(tree, asked.file_path)
            if entry.kind != tar.REG:
                raise BAD_REQUEST(text=f"{asked.file_path[:200]} is not a file")
            start = max(asked.range.offset, 0)
            end = start + asked.range.length if asked.range.length > 0 else entry.size
            if min(end, entry.size) - start > MAX_READ:
                raise BAD_REQUEST(text=f"a read of more than {MAX_READ} bytes: ask for a range")
            out, position = bytearray(), 0
            for piece in tree.read(entry):
                out += piece[max(start - position, 0) : max(end - position, 0)]
                position += len(piece)
                if position >= end:
                    break
            return bytes(out)

        return gateway_pb2.ReadFileResponse(data=await self._look(call, asked.ref, read))

    async def read_dir(self, call: Call, asked: gateway_pb2.ReadDirRequest) -> gateway_pb2.ReadDirResponse:
        def read(tree: RootTree) -> list[Entry]:
            top = _found(tree, asked.dir_path)
            names = [name for name in tree.children(top.path) if not asked.include_pattern
                     or fnmatch.fnmatchcase(name, asked.include_pattern)]  # fmt: skip
            found = [tree.leaf(posixpath.join(top.path, name)) for name in names]
            return [entry for entry in found if entry is not None]

        entries = await self._look(call, asked.ref, read)
        rows = [stat_of(entry) for entry in entries]
        for row in rows:
            row.path = posixpath.basename(row.path)
        return gateway_pb2.ReadDirResponse(entries=rows)

    async def stat_file(self, call: Call, asked: gateway_pb2.StatFileRequest) -> gateway_pb2.StatFileResponse:
        entry = await self._look(call, asked.ref, lambda tree: _found(tree, asked.path))
        stat = stat_of(entry)
        stat.path = posixpath.basename(stat.path)
        return gateway_pb2.StatFileResponse(stat=stat)

    async def inputs(self, call: Call, asked: gateway_pb2.InputsRequest) -> gateway_pb2.InputsResponse:
        job = await self._job(call)
        answer = gateway_pb2.InputsResponse()
        for name, definition in job.asked.frontend_inputs.items():
            answer.definitions[name].CopyFrom(definition)
        return answer

    async def warn(self, call: Call, asked: gateway_pb2.WarnRequest) -> rpc_pb2.Empty:
        return rpc_pb2.Empty()

    async def _look(self, call: Call, reference: str, look: Callable[[RootTree], T]) -> T:
        outcome = (await self._job(call)).outcome(reference)
        if outcome.result is None:
            raise NO_SUCH_REF(id=reference[:100])
        async with self.builds.builder.root(outcome.result) as root:
            return await self.builds.place.run(look, RootTree(root))


def _result(outcome: Outcome) -> gateway_pb2.Result:
    """One reference, or one a platform with the list of these (buildkit exporter/containerimage/exptypes)."""
    if outcome.result is None:
        return gateway_pb2.Result(ref=gateway_pb2.Ref())
    if not outcome.parts:
        return _reference(outcome.id)
    result = gateway_pb2.Result()
    rows = []
    for part in outcome.parts:
        system, _, rest = part.platform.partition("/")
        architecture, _, variant = rest.partition("/")
        platform = {"architecture": architecture, "os": system} | ({"variant": variant} if variant else {})
        rows.append({"ID": part.platform, "Platform": platform})
        result.refs.refs[part.platform].CopyFrom(_reference(part.id).ref)
        result.metadata[f"containerimage.config/{part.platform}"] = part.result.config if part.result else b""
    result.metadata["refs.platforms"] = json.dumps({"Platforms": rows}).encode()
    return result


def _reference(id: str) -> gateway_pb2.Result:
    return gateway_pb2.Result(ref=gateway_pb2.Ref(id=id, definition=definition_of(id)))


def _found(tree: RootTree, path: str) -> Entry:
    entry = tree.lookup(path or "/")
    if entry is None:
        raise NO_SUCH_FILE(path=path[:200])
    return entry
