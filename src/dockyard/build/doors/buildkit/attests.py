"""What a build attests: provenance of every build (made when asked for), and the packages of one that wants an SBOM.

Both are rows of the build's history; an OCI archive and a push carry those that were asked for by name, in an index beside
the image. The image store keeps none: where that was asked for, it is said.
"""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Mapping, Sequence

import msgspec

from dockyard.lib.clock import rfc3339
from dockyard.oci.attestations import Attestation

from ...context import Context, empty_context
from ...progress import VertexDone, VertexQueued, VertexStarted, Warned
from ...provenance import PREDICATE_TYPE as PROVENANCE
from ...provenance import predicate
from ...sbom import PREDICATE_TYPE as SBOM
from ...sbom import find_packages, spdx
from ...service import Result
from .annotations import annotations_of
from .errors import NOT_SERVED
from .jobs import Job, Outcome
from .ports import Package
from .status import vertex_digest

__all__ = ["packages", "provenance", "sbom", "tell_where", "told"]

SCANNER = "docker/buildkit-syft-scanner"
"""What clients name when they have no wish of their own; we scan ourselves."""


class _Known:
    """A source that has the Dockerfile and nothing else: enough to plan again."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    async def dockerfile(self, name: str) -> bytes:
        return self.text

    async def context(self, name: str, patterns: Sequence[str]) -> Context:
        return empty_context()


def told(attrs: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """``attest:NAME`` options that ask for something, with their own options. Raises NotImplementedYet."""
    found = {}
    for key, value in attrs.items():
        if key.startswith("attest:") and value != "disabled=true":
            row = next(csv.reader([value]), [])
            found[key.removeprefix("attest:")] = {k: v for k, _, v in (item.partition("=") for item in row)}
    for name in found:
        if name not in ("provenance", "sbom"):
            raise NOT_SERVED(what=f"an attestation of type {name[:100]!r}")
    generator = found.get("sbom", {}).get("generator", "")
    if generator and not generator.removeprefix("docker.io/").startswith(SCANNER):
        raise NOT_SERVED(what=f"the SBOM generator {generator[:200]}")
    return found


def explicit(attrs: Mapping[str, str]) -> set[str]:
    """Those that were asked for by name; clients add a provenance of their own accord, with ``inline-only``."""
    return {name for name, options in told(attrs).items() if options.get("inline-only", "false") != "true"}


def tell_where(job: Job, *, push: bool) -> None:
    """A local image keeps none: that is said to who asked for some by name."""
    if explicit(job.attrs) and not push:
        text = "attestations stay in the build history: the image store keeps none (--push and -o type=oci do)"
        job.status.sink(Warned(text))


async def packages(job: Job, outcome: Outcome, attrs: Mapping[str, str]) -> list[Package]:
    """The images of an outcome, this machine's first, with what was asked to be attested about them, and with the
    annotations among the exporter's attributes."""
    each = [(part, part.result) for part in outcome.each if part.result is not None]
    each.sort(key=lambda pair: pair[0].platform != outcome.platform)
    return [
        Package(result, tuple(await asked_for(job, part)), annotations_of(attrs, part.platform or job.builds.facts.platform))
        for part, result in each
    ]


async def asked_for(job: Job, outcome: Outcome) -> list[Attestation]:
    wanted = explicit(job.attrs)
    out = [Attestation(PROVENANCE, await provenance(job, outcome))] if "provenance" in wanted else []
    return out + ([Attestation(SBOM, job.packages[outcome.id])] if outcome.id in job.packages else [])


async def provenance(job: Job, outcome: Outcome) -> bytes:
    """Raises what resolving the bases raises."""
    assert outcome.request is not None
    request = msgspec.structs.replace(outcome.request, pull=False)
    graph = await job.builds.builder.check(request, _Known(outcome.dockerfile))
    started, finished = (rfc3339(int(at * 1e9)) for at in (job.created, job.completed or time.time()))
    platform = job.builds.facts.platform
    return predicate(graph, job.attrs, invocation=job.id, started=started, finished=finished, platform=platform)


async def sbom(job: Job, outcome: Outcome) -> None:
    """Lists the packages of each image, where the build asked for it, into the job's documents."""
    if "sbom" not in told(job.attrs):
        return
    for part in outcome.each:
        if part.result is not None:
            await _list_packages(job, part, part.result)


async def _list_packages(job: Job, part: Outcome, result: Result) -> None:
    title = f"[{part.platform}] listing packages for the SBOM" if part.platform else "[internal] listing packages for the SBOM"
    digest = vertex_digest(job.id, title)
    job.status.sink(VertexQueued(digest, title))
    job.status.sink(VertexStarted(digest, time.time()))
    async with job.builds.builder.root(result) as root:
        packages, distribution = await job.builds.place.run(find_packages, root)
    document = spdx(result.image, packages, distribution, rfc3339(int(job.created) * 1_000_000_000))
    job.documents["sha256:" + hashlib.sha256(document).hexdigest()] = (SBOM, document)
    job.packages[part.id] = document
    job.status.sink(VertexDone(digest, time.time()))
