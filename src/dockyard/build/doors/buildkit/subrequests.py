"""Questions about a Dockerfile that build nothing (``docker buildx build --call``): describe, targets, outline, lint."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from dockyard.errors import DockyardError, NotFound

from ...dockerfile import instructions as ins
from ...dockerfile.lint import DESCRIPTIONS, Base, Violation, lint, options_of, url_of
from ...dockerfile.parser import Dockerfile, SyntaxProblem, parse
from ...dockerfile.patterns import Patterns, read_ignore_file
from ...dockerfile.suggest import explain
from ...model import BaseImage, Request
from ...ports import Source
from ...progress import Sink, Warned
from ...service import Builder
from .errors import BAD_REQUEST, NOT_SERVED
from .expected import needed_stages

__all__ = ["answer"]

VERSION = "1.0.0"
CHECK_ARG = "BUILDKIT_DOCKERFILE_CHECK"
KNOWN = {
    "frontend.subrequests.describe": "List available subrequest types",
    "frontend.outline": "List all parameters current build target supports",
    "frontend.targets": "List all targets current build supports",
    "frontend.lint": "Lint a Dockerfile",
}


async def answer(name: str, text: bytes, request: Request, source: Source, builder: Builder) -> Mapping[str, bytes]:
    """The metadata of the result. Raises SyntaxProblem, NotImplementedYet."""
    if name == "frontend.subrequests.describe":
        return _described()
    if name == "frontend.lint":
        return await _lint(text, request, source, builder)
    dockerfile = parse(text.decode("utf-8", "replace"))
    if name == "frontend.targets":
        return _targets(dockerfile, text)
    if name == "frontend.outline":
        return _outline(dockerfile, text, request)
    raise NOT_SERVED(what=f"the request {name[:100]!r}")


async def _lint(text: bytes, request: Request, source: Source, builder: Builder) -> Mapping[str, bytes]:
    problem: SyntaxProblem | None = None
    rows: list[Violation] = []
    try:
        dockerfile = parse(text)
        options = options_of(request.build_args.get(CHECK_ARG) or dockerfile.directives.get("check", ""))
        ignore = await ignored(request.dockerfile, source)
        rows = lint(dockerfile, options, ignore=ignore, bases=await _bases(request, source, builder))
    except SyntaxProblem as found:
        problem = found
    lines = text.decode("utf-8", "replace").splitlines()
    told: list[str] = []
    for row in rows:
        address = url_of(row.rule)
        told += ["", f"WARNING: {row.rule}{' - ' + address if address else ''}", row.message]
        told += _excerpt(request.dockerfile, lines, row.line, row.end_line)
    document: dict[str, object] = {
        "warnings": [
            {"ruleName": row.rule, "description": DESCRIPTIONS[row.rule], "url": url_of(row.rule), "detail": row.message,
             "location": _location(row.line, row.end_line)}
            for row in rows
        ],
        "sources": [{"filename": request.dockerfile, "language": "Dockerfile", "data": _encoded(text)}],
    }  # fmt: skip
    if problem is not None:
        line = problem.line or 1
        document["buildError"] = {"message": explain(problem, request.dockerfile, ()), "location": _location(line, line)}
    return {**_result(document, told), "result.statuscode": b"1" if rows or problem else b"0"}


async def check(text: bytes, request: Request, source: Source, sink: Sink) -> None:
    """Docker's checks beside a build: warnings, or InvalidParameter where the Dockerfile wants them to be errors. A file
    that cannot be parsed is left to the build."""
    try:
        dockerfile = parse(text)
        options = options_of(request.build_args.get(CHECK_ARG) or dockerfile.directives.get("check", ""))
        rows = lint(dockerfile, options, ignore=await ignored(request.dockerfile, source))
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


def _location(first: int, last: int) -> dict[str, object]:
    return {"ranges": [{"start": {"line": first}, "end": {"line": last}}]}


def _excerpt(name: str, lines: list[str], first: int, last: int) -> list[str]:
    """The lines around a place, marked as buildx marks them."""
    out = [f"{name}:{first}", "-" * 20]
    for number in range(max(1, first - 2), min(len(lines), last + 2) + 1):
        mark = ">>>" if first <= number <= last else "   "
        out.append(f"{number:>4} | {mark} {lines[number - 1]}")
    return [*out, "-" * 20]


def _described() -> Mapping[str, bytes]:
    rows = [
        {"name": name, "version": VERSION, "type": "rpc", "description": told,
         "metadata": [{"name": "result.json"}, {"name": "result.txt"}]}
        for name, told in KNOWN.items()
    ]  # fmt: skip
    lines = [f"{'NAME':<30}  {'VERSION':<8}  DESCRIPTION"]
    lines += [f"{name:<30}  {VERSION:<8}  {told}" for name, told in KNOWN.items()]
    return _result(rows, lines)


def _targets(dockerfile: Dockerfile, text: bytes) -> Mapping[str, bytes]:
    _, stages = ins.split_stages(dockerfile)
    rows = []
    for stage in stages:
        comment = " ".join(stage.origin.node.comments).strip()
        row = {
            "name": stage.origin.alias, "base": stage.origin.image, "platform": stage.origin.platform,
            "description": comment, "default": stage.index == len(stages) - 1,
            "location": {"ranges": [{"start": {"line": stage.origin.node.line}, "end": {"line": stage.origin.node.line}}]},
        }  # fmt: skip
        rows.append({key: value for key, value in row.items() if value})
    lines = [f"{'TARGET':<24}  DESCRIPTION"]
    for row in rows:
        shown = str(row.get("name", "")) + (" (default)" if row.get("default") else "")
        lines.append(f"{shown:<24}  {row.get('description', '')}".rstrip())
    return _result({"targets": rows, "sources": [_encoded(text)]}, lines)


def _outline(dockerfile: Dockerfile, text: bytes, request: Request) -> Mapping[str, bytes]:
    globals_, stages = ins.split_stages(dockerfile)
    needed = needed_stages(stages, request.target)
    args: dict[str, dict[str, str]] = {}
    defaults = {name: value for arg in globals_ for name, value in arg.pairs}
    for arg in (item for stage in needed for item in stage.instructions if isinstance(item, ins.Arg)):
        for name, value in arg.pairs:
            given = request.build_args.get(name)
            shown = next((v for v in (given, value, defaults.get(name)) if v is not None), "")
            row = {"name": name, "value": shown, "description": " ".join(arg.node.comments).strip()}
            args[name] = {key: text for key, text in row.items() if text}
    lines = [f"{'TARGET':<24}  DESCRIPTION", needed[0].origin.alias or "(default)", "", f"{'BUILD ARG':<24}  {'VALUE':<20}  DESCRIPTION"]
    lines += [f"{n:<24}  {row.get('value', ''):<20}  {row.get('description', '')}".rstrip() for n, row in args.items()]
    document = {"name": needed[0].origin.alias, "args": list(args.values()), "sources": [_encoded(text)]}
    return _result(document, lines if args else lines[:2])


def _encoded(text: bytes) -> str:
    """As Go writes bytes in JSON."""
    return base64.b64encode(text).decode()


def _result(document: object, lines: list[str]) -> Mapping[str, bytes]:
    return {
        "result.json": json.dumps(document, indent=2).encode(), "result.txt": ("\n".join(lines) + "\n").encode(),
        "version": VERSION.encode(),
    }  # fmt: skip
