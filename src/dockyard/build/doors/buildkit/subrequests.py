"""Frontend requests that build nothing, and the checks beside a build; ``calls`` has the answers."""

from __future__ import annotations

from collections.abc import Mapping

from dockyard.errors import DockyardError, NotFound

from ... import calls
from ...dockerfile.lint import DESCRIPTIONS, Base, url_of
from ...dockerfile.parser import SyntaxProblem
from ...dockerfile.patterns import Patterns, read_ignore_file
from ...model import BaseImage, Request
from ...ports import Source
from ...progress import Sink, Warned
from ...service import Builder
from .errors import BAD_REQUEST, NOT_SERVED

__all__ = ["answer", "check"]


async def answer(name: str, text: bytes, request: Request, source: Source, builder: Builder) -> Mapping[str, bytes]:
    """The metadata of the result. Raises SyntaxProblem, NotImplementedYet."""
    if name == "frontend.subrequests.describe":
        return calls.describe()
    if name == "frontend.targets":
        return calls.targets(text)
    if name == "frontend.outline":
        return calls.outline(text, request.target, request.build_args)
    if name != "frontend.lint":
        raise NOT_SERVED(what=f"the request {name[:100]!r}")
    try:
        bases = await _bases(request, source, builder)
        rows, _ = calls.check(text, request.build_args, ignore=await ignored(request.dockerfile, source), bases=bases)
        return calls.report(text, request.dockerfile, rows)
    except SyntaxProblem as problem:
        return calls.report(text, request.dockerfile, (), problem)


async def check(text: bytes, request: Request, source: Source, sink: Sink) -> None:
    """Docker's checks beside a build: warnings, or InvalidParameter where the Dockerfile wants them to be errors. A file
    that cannot be parsed is left to the build."""
    try:
        rows, options = calls.check(text, request.build_args, ignore=await ignored(request.dockerfile, source))
    except SyntaxProblem:
        return
    for row in rows:
        sink(Warned(row.message, row.rule, row.line, url_of(row.rule), DESCRIPTIONS[row.rule]))
    if rows and options.error:
        rules = ", ".join(sorted({row.rule for row in rows}))
        raise BAD_REQUEST(text=f"lint violation found for rules: {rules}")


async def _bases(request: Request, source: Source, builder: Builder) -> Mapping[int, Base]:
    """What the images tell; nothing where they cannot be had, as the check itself needs none."""
    try:
        graph = await builder.check(request, source)
    except DockyardError:
        return {}
    found = {}
    for stage in graph.stages:
        if isinstance(stage.base, BaseImage):
            document = stage.base.document
            env = (document.get("config") or {}).get("Env") or ()
            found[stage.index] = Base(frozenset({"PATH", *(item.partition("=")[0] for item in env)}))
    return found


async def ignored(dockerfile: str, source: Source) -> Patterns | None:
    """The ignore file's patterns; None where there is none."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        try:
            return Patterns(read_ignore_file((await source.dockerfile(name)).decode("utf-8", "replace")))
        except (NotFound, ValueError):
            continue
    return None


