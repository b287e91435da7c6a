"""How a result came to be, as a SLSA provenance predicate (v0.2, as BuildKit writes it in its ``min`` mode). Pure.

Values of build arguments stay out (they may be secrets), and so do labels; what is kept of the request is what names its
parts: file, target, platform, contexts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from dockyard.errors import DockyardError
from dockyard.oci.reference import parse_reference

from .model import BaseImage, Graph

__all__ = ["PREDICATE_TYPE", "predicate"]

PREDICATE_TYPE = "https://slsa.dev/provenance/v0.2"
BUILD_TYPE = "https://mobyproject.org/buildkit@v1"
HIDDEN = ("build-arg:", "label:", "attest:", "local-sessionid:", "sharedkey:", "input-metadata:")


def predicate(
    graph: Graph, opts: Mapping[str, str], *, invocation: str, started: str, finished: str, platform: str
) -> bytes:
    """``started`` and ``finished`` as RFC 3339; ``platform`` is the builder's."""
    args = {key: value for key, value in sorted(opts.items()) if not key.startswith(HIDDEN)}
    document = {
        "builder": {"id": ""},
        "buildType": BUILD_TYPE,
        "materials": _materials(graph, "/".join(filter(None, graph.platform))),
        "invocation": {
            "configSource": {"entryPoint": opts.get("filename", "Dockerfile")},
            "parameters": {
                "frontend": "dockerfile.v0", "args": args, "locals": [{"name": "context"}, {"name": "dockerfile"}],
            },
            "environment": {"platform": platform},
        },
        "metadata": {
            "buildInvocationID": invocation, "buildStartedOn": started, "buildFinishedOn": finished,
            "completeness": {"parameters": False, "environment": True, "materials": False},
            "reproducible": graph.epoch is not None,
        },
    }  # fmt: skip
    return json.dumps(document, indent=2).encode()


def _materials(graph: Graph, platform: str) -> list[dict[str, Any]]:
    used = [stage.base for stage in graph.stages if isinstance(stage.base, BaseImage)]
    rows = {}
    for image in [*used, *graph.images.values()]:
        if image.id and (uri := _uri(image.ref, platform)):
            algorithm, _, value = (image.digest or image.id).partition(":")
            rows[uri] = {"uri": uri, "digest": {algorithm: value}}
    return [rows[uri] for uri in sorted(rows)]


def _uri(ref: str, platform: str) -> str:
    """A package URL, "" for what has no public name."""
    try:
        name = parse_reference(ref).with_default_tag()
    except DockyardError:
        return ""
    return f"pkg:docker/{name.familiar_name}@{name.tag or name.digest}?platform={quote(platform, safe='')}"
