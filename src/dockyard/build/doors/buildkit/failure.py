"""Failures of builds in BuildKit's words, with the place in the Dockerfile that clients print beside them."""

from __future__ import annotations

import base64
import json
import re

from dockyard.errors import Cancelled, DockyardError, Exhausted, NotImplementedYet, Unauthorized

from ...dockerfile.parser import SyntaxProblem, parse
from ...errors import RUN_FAILED
from .rpc import UNKNOWN, RpcError, as_status

__all__ = ["build_failure", "in_buildkits_words"]

SOURCE = "github.com/moby/buildkit/errdefs.Source+json"
AS_THEY_ARE = (Cancelled, Exhausted, NotImplementedYet, Unauthorized)
_RUN = re.compile(r"The command '(?P<command>.*)' returned a non-zero code: (?P<code>\d+)", re.DOTALL)
_LINE = re.compile(r"^dockerfile parse error on line (\d+): ")
_STEP = re.compile(r"^\[[^\]]*\] ")


def in_buildkits_words(text: str) -> str:
    """The sentence of a failed RUN is not docker's own classic one here."""
    run = _RUN.fullmatch(text)
    return f'process "{run["command"]}" did not complete successfully: exit code: {run["code"]}' if run else text


def build_failure(error: Exception, dockerfile: bytes, name: str, step: str) -> RpcError:
    """``step`` is the name of the vertex that failed, "" when it was none. BuildKit gives most failures no code."""
    status = as_status(error, "build")
    if not isinstance(error, DockyardError) or isinstance(error, AS_THEY_ARE):
        return status
    message = status.message
    if error.code == RUN_FAILED.id:
        message = in_buildkits_words(message)
    lines = _place(message, dockerfile, step)
    if lines is None:
        return RpcError(UNKNOWN, message)
    if _LINE.match(message):
        message = message.partition("\n")[0]  # the client draws the line itself
    return RpcError(UNKNOWN, message, [(SOURCE, _source(dockerfile, name, *lines))])


def _place(message: str, dockerfile: bytes, step: str) -> tuple[int, int] | None:
    """First and last line, from 1."""
    if told := _LINE.match(message):
        return int(told[1]), int(told[1])
    text = " ".join(_STEP.sub("", step).split())
    if not text:
        return None
    try:
        nodes = parse(dockerfile).nodes
    except SyntaxProblem:
        return None
    for node in nodes:
        if " ".join(node.original.split()) == text or " ".join(node.original.split("\n", 1)[0].split()) == text:
            return node.line, node.end_line or node.line
    return None


def _source(dockerfile: bytes, name: str, first: int, last: int) -> bytes:
    info = {"filename": name, "data": base64.b64encode(dockerfile).decode(), "language": "Dockerfile"}
    return json.dumps({"info": info, "ranges": [{"start": {"line": first}, "end": {"line": last}}]}).encode()
