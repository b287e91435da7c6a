"""What becomes of a result: an image here, an archive or a tree at the client, a push to a registry."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from dockyard.oci.digest import sha256_of

from ...progress import Progress, VertexDone, VertexQueued, VertexStarted, Warned
from ...proto import control_pb2
from ...service import Result
from .annotations import is_annotation
from .attests import packages, sbom, tell_where
from .errors import BAD_REQUEST, NOT_SERVED
from .filesend import archive_of, send_file, send_tree
from .jobs import Job, Outcome
from .ports import Package
from .status import vertex_digest

__all__ = ["export", "exporters_of"]

TRUE = frozenset({"1", "t", "true", "T", "TRUE", "True"})
HARMLESS = frozenset({
    "name", "push", "load", "unpack", "store", "prefer-image-digest", "oci-mediatypes", "oci-artifact", "tar", "dest",
    "compression", "compression-level", "force-compression", "buildinfo", "buildinfo-attrs", "registry.insecure",
    "attestation-prefix", "rewrite-timestamp", "source-date-epoch", "dangling-name-prefix", "context", "mode",
    "name-canonical", "platform-split",
})  # fmt: skip


def exporters_of(asked: control_pb2.SolveRequest) -> list[tuple[str, dict[str, str]]]:
    """Newer clients fill both; the list is then the whole truth."""
    rows = [(row.type, dict(row.attrs)) for row in asked.exporters]
    if not rows and asked.exporter_deprecated:
        rows.append((asked.exporter_deprecated, dict(asked.exporter_attrs_deprecated)))
    return rows


async def export(job: Job, outcome: Outcome | None) -> dict[str, str]:
    """The exporter's response. Raises NotImplementedYet, InvalidParameter, System."""
    response: dict[str, str] = {}
    if outcome is not None:
        await sbom(job, outcome)
    for index, (kind, attrs) in enumerate(exporters_of(job.asked)):
        _check(kind, attrs)
        if outcome is None or outcome.result is None:
            if kind in ("image", "moby") and not attrs.get("name"):
                continue  # nothing was built (a check, an outline)
            raise BAD_REQUEST(text=f"cannot export with {kind}: the build gave no image")
        response |= await EXPORTERS[kind](_Export(job, outcome, outcome.result, index, kind, attrs))
    return response if outcome is None else response | await job.export_cache(outcome)


def _check(kind: str, attrs: Mapping[str, str]) -> None:
    if kind not in EXPORTERS:
        raise NOT_SERVED(what=f"the exporter {kind[:100]!r}")
    for name, value in attrs.items():
        if name not in HARMLESS and value and not is_annotation(name):
            raise NOT_SERVED(what=f"the attribute {name[:100]!r} of the exporter {kind!r}")
    if kind in ("oci", "docker") and attrs.get("tar", "true") not in TRUE:
        raise NOT_SERVED(what="an image layout as a directory (tar=false)")


class _Export:
    """One exporter at work, shown as one vertex."""

    def __init__(self, job: Job, outcome: Outcome, result: Result, index: int, kind: str, attrs: Mapping[str, str]) -> None:
        self.job, self.outcome, self.result = job, outcome, result
        self.index, self.kind, self.attrs = index, kind, attrs
        self.builds = job.builds
        self.title = self.digest = ""

    @property
    def names(self) -> list[str]:
        return [name for name in self.attrs.get("name", "").split(",") if name]

    async def __aenter__(self) -> _Export:
        sink = self.job.status.sink
        sink(VertexQueued(self.digest, self.title))
        sink(VertexStarted(self.digest, time.time()))
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.job.status.sink(VertexDone(self.digest, time.time(), error=str(error) if error is not None else ""))

    def vertex(self, title: str) -> _Export:
        self.title = title
        self.digest = vertex_digest(self.job.id, title, str(self.index))
        return self

    def report(self, what: str) -> Callable[[int], None]:
        def told(size: int) -> None:
            self.job.status.sink(Progress(self.digest, what, size, 0, time.time()))

        return told

    def done(self, what: str, size: int = 0) -> None:
        self.job.status.sink(Progress(self.digest, what, size, size, time.time(), done=True))


async def _image(export: _Export) -> dict[str, str]:
    """The image of this machine under its names; with several platforms the others are kept without one."""
    push = export.attrs.get("push") in TRUE
    tell_where(export.job, push=push)
    others = [part.result for part in export.outcome.parts if part.result is not None and part.result is not export.result]
    async with export.vertex("exporting to image"):
        export.report("exporting layers")(0)
        image, names = await export.builds.images.register(export.result, export.names)
        for other in others:
            await export.builds.images.register(other, [])
        export.done("exporting layers")
        export.done(f"writing image {image}")
        for name in names:
            export.done(f"naming to {name}")
    if others and not push:
        text = f"a name leads to one platform here, {export.outcome.platform}: --push and -o type=oci keep all of them"
        export.job.status.sink(Warned(text))
    described = _described(image, names, export.result)
    if push:
        if not names:
            raise BAD_REQUEST(text="tag is needed when pushing to registry")
        found = await packages(export.job, export.outcome, export.attrs)
        for name in names:
            described |= await _push(export, name, found)
    return described


async def _push(export: _Export, name: str, found: Sequence[Package]) -> dict[str, str]:
    """One image goes as it is recorded; several, or one with attestations, as an index, whose digest counts then."""
    session = await export.job.session()
    host = name.partition("/")[0]
    async with export.vertex(f"pushing {name}"):
        user, secret = await session.credentials(host)
        auth = {"username": user, "password": secret} if user else {"identitytoken": secret} if secret else {}

        def progress(what: str, current: int, total: int, done: bool) -> None:
            export.job.status.sink(Progress(export.digest, what, current, total, time.time(), done))

        if len(found) == 1 and found[0].alone and not found[0].annotations.manifest:
            await export.builds.images.push(name, auth, progress)
            return {}
        index = await export.builds.images.push_index(name, found, auth, progress)
        digest = str(sha256_of(index.raw))
        descriptor = {"mediaType": index.media_type, "digest": digest, "size": len(index.raw)}
        return {"containerimage.digest": digest, "containerimage.descriptor": _packed(descriptor)}


def _described(image: str, names: tuple[str, ...], result: Result) -> dict[str, str]:
    descriptor = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": image, "size": len(result.config)}
    found = {
        "containerimage.digest": image, "containerimage.config.digest": image, "containerimage.descriptor": _packed(descriptor),
    }  # fmt: skip
    if names:
        found["image.name"] = ",".join(names)
    return found


def _packed(descriptor: Mapping[str, object]) -> str:
    return base64.b64encode(json.dumps(descriptor).encode()).decode()


async def _archive(export: _Export) -> dict[str, str]:
    """``oci`` and ``docker``: our archives are both in one."""
    images = export.builds.images
    if export.kind == "docker" and export.outcome.parts:
        raise BAD_REQUEST(text="docker exporter does not currently support exporting manifest lists: -o type=oci does")
    async with export.vertex(f"exporting to {export.kind} image format"):
        response = _described(export.result.image, tuple(export.names), export.result)
        found = [Package(export.result)]
        if export.kind == "oci":
            found = await packages(export.job, export.outcome, export.attrs)
        async with aclosing(images.save(found, export.names)) as pieces:
            await send_file(await export.job.session(), export.index, pieces, response, export.report("sending tarball"))
        export.done("sending tarball")
    return response


async def _tar(export: _Export) -> dict[str, str]:
    async with export.vertex("exporting to client tarball"), _roots(export) as roots:
        pieces = archive_of(roots, export.builds.place.executor)
        await send_file(await export.job.session(), export.index, pieces, {}, export.report("sending tarball"))
        export.done("sending tarball")
    return {}


async def _local(export: _Export) -> dict[str, str]:
    async with export.vertex("exporting to client directory"), _roots(export) as roots:
        report = export.report("copying files")
        await send_tree(await export.job.session(), export.index, roots, export.builds.place.executor, report)
        export.done("copying files")
    return {}


@asynccontextmanager
async def _roots(export: _Export) -> AsyncIterator[list[tuple[str, int]]]:
    """(folder, descriptor) of each image's root; with several platforms each has a folder, such as linux_amd64."""
    async with AsyncExitStack() as stack:
        found = []
        for part in sorted(export.outcome.each, key=lambda each: each.platform):
            if part.result is not None:
                root = await stack.enter_async_context(export.builds.builder.root(part.result))
                found.append((part.platform.replace("/", "_") if export.outcome.parts else "", root))
        yield found


EXPORTERS = {
    "moby": _image, "image": _image, "oci": _archive, "docker": _archive, "tar": _tar, "local": _local,
}  # fmt: skip
