"""Questions about a Dockerfile that build nothing (``--call``): which targets, which arguments, what the checks say. Pure.

An answer is what BuildKit's frontend answers: ``result.json``, ``result.txt``, ``version``, and ``result.statuscode`` for
the checks.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence

from .dockerfile import instructions as ins
from .dockerfile.lint import DESCRIPTIONS, Base, Options, Violation, lint, options_of, url_of
from .dockerfile.parser import Dockerfile, SyntaxProblem, parse
from .dockerfile.patterns import Patterns
from .dockerfile.stages import needed_stages
from .dockerfile.suggest import explain

__all__ = ["check", "describe", "outline", "report", "targets"]

Answer = Mapping[str, bytes]
VERSION = "1.0.0"
CHECK_ARG = "BUILDKIT_DOCKERFILE_CHECK"
KNOWN = {
    "frontend.subrequests.describe": "List available subrequest types",
    "frontend.outline": "List all parameters current build target supports",
    "frontend.targets": "List all targets current build supports",
    "frontend.lint": "Lint a Dockerfile",
}


def describe() -> Answer:
    rows = [
        {"name": name, "version": VERSION, "type": "rpc", "description": told,
         "metadata": [{"name": "result.json"}, {"name": "result.txt"}]}
        for name, told in KNOWN.items()
    ]  # fmt: skip
    lines = [f"{'NAME':<30}  {'VERSION':<8}  DESCRIPTION"]
    lines += [f"{name:<30}  {VERSION:<8}  {told}" for name, told in KNOWN.items()]
    return _result(rows, lines)


def targets(text: bytes) -> Answer:
    """Raises SyntaxProblem."""
    _, stages = ins.split_stages(parse(text))
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


def outline(text: bytes, target: str, build_args: Mapping[str, str | None]) -> Answer:
    """Raises SyntaxProblem."""
    globals_, stages = ins.split_stages(parse(text))
    needed = needed_stages(stages, target)
    args: dict[str, dict[str, str]] = {}
    defaults = {name: value for arg in globals_ for name, value in arg.pairs}
    for arg in (item for stage in needed for item in stage.instructions if isinstance(item, ins.Arg)):
        for name, value in arg.pairs:
            given = build_args.get(name)
            shown = next((v for v in (given, value, defaults.get(name)) if v is not None), "")
            row = {"name": name, "value": shown, "description": " ".join(arg.node.comments).strip()}
            args[name] = {key: text for key, text in row.items() if text}
    lines = [f"{'TARGET':<24}  DESCRIPTION", needed[0].origin.alias or "(default)", "", f"{'BUILD ARG':<24}  {'VALUE':<20}  DESCRIPTION"]
    lines += [f"{n:<24}  {row.get('value', ''):<20}  {row.get('description', '')}".rstrip() for n, row in args.items()]
    document = {"name": needed[0].origin.alias, "args": list(args.values()), "sources": [_encoded(text)]}
    return _result(document, lines if args else lines[:2])


def check(
    text: bytes, build_args: Mapping[str, str | None], *, ignore: Patterns | None = None,
    bases: Mapping[int, Base] | None = None,
) -> tuple[list[Violation], Options]:  # fmt: skip
    """Docker's checks as the file's ``# check=`` line or the argument wants them. Raises SyntaxProblem."""
    dockerfile: Dockerfile = parse(text)
    options = options_of(build_args.get(CHECK_ARG) or dockerfile.directives.get("check", ""))
    return lint(dockerfile, options, ignore=ignore, bases=bases), options


def report(text: bytes, name: str, rows: Sequence[Violation], problem: SyntaxProblem | None = None) -> Answer:
    """What the checks found; ``problem`` where the file cannot even be read."""
    lines = text.decode("utf-8", "replace").splitlines()
    told: list[str] = []
    for row in rows:
        address = url_of(row.rule)
        told += ["", f"WARNING: {row.rule}{' - ' + address if address else ''}", row.message]
        told += _excerpt(name, lines, row.line, row.end_line)
    document: dict[str, object] = {
        "warnings": [
            {"ruleName": row.rule, "description": DESCRIPTIONS[row.rule], "url": url_of(row.rule), "detail": row.message,
             "location": _location(row.line, row.end_line)}
            for row in rows
        ],
        "sources": [{"filename": name, "language": "Dockerfile", "data": _encoded(text)}],
    }  # fmt: skip
    if problem is not None:
        line = problem.line or 1
        document["buildError"] = {"message": explain(problem, name, ()), "location": _location(line, line)}
    return {**_result(document, told), "result.statuscode": b"1" if rows or problem else b"0"}


def _location(first: int, last: int) -> dict[str, object]:
    return {"ranges": [{"start": {"line": first}, "end": {"line": last}}]}


def _excerpt(name: str, lines: list[str], first: int, last: int) -> list[str]:
    """The lines around a place, marked as buildx marks them."""
    out = [f"{name}:{first}", "-" * 20]
    for number in range(max(1, first - 2), min(len(lines), last + 2) + 1):
        mark = ">>>" if first <= number <= last else "   "
        out.append(f"{number:>4} | {mark} {lines[number - 1]}")
    return [*out, "-" * 20]


def _encoded(text: bytes) -> str:
    """As Go writes bytes in JSON."""
    return base64.b64encode(text).decode()


def _result(document: object, lines: list[str]) -> Answer:
    return {
        "result.json": json.dumps(document, indent=2).encode(), "result.txt": ("\n".join(lines) + "\n").encode(),
        "version": VERSION.encode(),
    }  # fmt: skip
