"""Questions about a Dockerfile that build nothing (``docker buildx build --call``): describe, targets, outline, lint."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from ...dockerfile import instructions as ins
from ...dockerfile.parser import Dockerfile, parse
from ...model import Request
from ...ports import Source
from ...service import Builder
from .errors import NOT_SERVED

__all__ = ["answer"]

VERSION = "1.0.0"
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
    dockerfile = parse(text.decode("utf-8", "replace"))
    if name == "frontend.targets":
        return _targets(dockerfile, text)
    if name == "frontend.outline":
        return _outline(dockerfile, text, request)
    raise NOT_SERVED(what=f"the request {name[:100]!r}")


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
    chosen = stages[-1]
    for stage in stages:
        if request.target.lower() in (stage.origin.alias, str(stage.index)) and request.target:
            chosen = stage
    args: dict[str, dict[str, str]] = {}
    defaults = {name: value for arg in globals_ for name, value in arg.pairs}
    for arg in (item for item in chosen.instructions if isinstance(item, ins.Arg)):
        for name, value in arg.pairs:
            given = request.build_args.get(name)
            shown = next((v for v in (given, value, defaults.get(name)) if v is not None), "")
            row = {"name": name, "value": shown, "description": " ".join(arg.node.comments).strip()}
            args[name] = {key: text for key, text in row.items() if text}
    lines = [f"{'TARGET':<24}  DESCRIPTION", chosen.origin.alias or "(default)", "", f"{'BUILD ARG':<24}  {'VALUE':<20}  DESCRIPTION"]
    lines += [f"{n:<24}  {row.get('value', ''):<20}  {row.get('description', '')}".rstrip() for n, row in args.items()]
    document = {"name": chosen.origin.alias, "args": list(args.values()), "sources": [_encoded(text)]}
    return _result(document, lines if args else lines[:2])


def _encoded(text: bytes) -> str:
    """As Go writes bytes in JSON."""
    return base64.b64encode(text).decode()


def _result(document: object, lines: list[str]) -> Mapping[str, bytes]:
    return {
        "result.json": json.dumps(document, indent=2).encode(), "result.txt": ("\n".join(lines) + "\n").encode(),
        "version": VERSION.encode(),
    }  # fmt: skip
