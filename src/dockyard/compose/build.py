"""Builds a service's image through POST /build, with what that way of building can say."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dockyard.client import Client, quote
from dockyard.compose import labels
from dockyard.compose.canonical import boolean, pairs, size
from dockyard.compose.context import pack
from dockyard.compose.errors import BUILD_FAILED, UNSUPPORTED_BUILD
from dockyard.compose.plan import Operation
from dockyard.compose.progress import Event, Progress
from dockyard.compose.project import Project
from dockyard.errors import DockyardError

Json = dict[str, Any]
SILENCE = 1800.0
"""Longest silence in seconds of a build step; beyond it the engine is taken for dead."""
TOLD_LINES = 10
"""Lines of output that are told of a step that failed."""
_NEEDS_SESSION = (
    "secrets", "ssh", "additional_contexts", "entitlements", "cache_to", "no_cache_filter", "provenance", "sbom", "privileged",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Extra:
    """What the client adds. ``args``: KEY=VALUE. ``proxy``: arguments of the client's proxy settings."""

    args: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    proxy: Mapping[str, str] = field(default_factory=dict)


def query(project: Project, name: str, image: str, dockerfile: str, extra: Extra) -> Json:
    """Query of POST /build. Raises NotImplemented for what needs a BuildKit session. Pure."""
    build = project.services[name]["build"]
    for key in _NEEDS_SESSION:
        if build.get(key) and str(build[key]).lower() != "false":
            raise UNSUPPORTED_BUILD(service=name, key=key)
    platforms = build.get("platforms") or []
    if len(platforms) > 1 and not project.services[name].get("platform"):
        raise UNSUPPORTED_BUILD(service=name, key="platforms")
    args = {
        key: project.environment.get(key) if value is None else value
        for key, value in {**extra.proxy, **pairs(build.get("args")), **pairs(list(extra.args))}.items()
    }
    own = {labels.PROJECT: project.name, labels.SERVICE: name}
    given = {key: value or "" for key, value in pairs(build.get("labels")).items()}
    return {
        "t": image, "dockerfile": dockerfile, "buildargs": {key: value for key, value in args.items() if value is not None},
        "labels": {**given, **own}, "target": build.get("target") or None, "networkmode": build.get("network") or None,
        "nocache": extra.no_cache or boolean(build.get("no_cache", False)),
        "pull": extra.pull or boolean(build.get("pull", False)), "rm": True, "forcerm": True,
        "cachefrom": list(build.get("cache_from") or []) or None,
        "extrahosts": ",".join(str(item).replace("=", ":", 1) for item in build.get("extra_hosts") or []) or None,
        "shmsize": size(build["shm_size"]) if build.get("shm_size") else None,
        "ulimits": [_ulimit(key, value) for key, value in (build.get("ulimits") or {}).items()] or None,
        "isolation": build.get("isolation") or None,
        "platform": project.services[name].get("platform") or (platforms[0] if len(platforms) == 1 else None),
    }  # fmt: skip


def _ulimit(name: str, value: Any) -> Json:
    soft, hard = (value["soft"], value["hard"]) if isinstance(value, Mapping) else (value, value)
    return {"Name": name, "Soft": int(soft), "Hard": int(hard)}


def build(
    client: Client, project: Project, one: Operation, progress: Progress, headers: Mapping[str, str],
    extra: Extra | None = None,
) -> None:  # fmt: skip
    """``headers``: the credentials of registries. Raises System with the failing step's words."""
    try:
        _build(client, project, one, progress, headers, extra or Extra())
    except DockyardError as error:
        progress.on(Event(one.subject, "Error", "error", str(error)))
        raise


def _build(
    client: Client, project: Project, one: Operation, progress: Progress, headers: Mapping[str, str], extra: Extra
) -> None:
    spec = project.services[one.service]["build"]
    progress.on(Event(one.subject, "Building"))
    context = str(spec.get("context") or project.directory)
    inline = str(spec.get("dockerfile_inline") or "")
    headers = {"Content-Type": "application/x-tar", **headers}
    if "://" in context or context.startswith("git@"):
        asked = query(project, one.service, one.name, str(spec.get("dockerfile") or "Dockerfile"), extra)
        _send(client, one, {**asked, "remote": context}, None, headers, progress)
    else:
        tar, dockerfile = pack(context, str(spec.get("dockerfile") or "Dockerfile"), inline)
        with tar:
            _send(client, one, query(project, one.service, one.name, dockerfile, extra), tar, headers, progress)
    for tag in spec.get("tags") or []:
        repository, _, word = tag.rpartition(":") if ":" in tag.rpartition("/")[2] else (tag, "", "latest")
        client.request("POST", f"/images/{quote(one.name)}/tag", {"repo": repository, "tag": word})
    progress.on(Event(one.subject, "Built", "done"))


def _send(
    client: Client, one: Operation, asked: Json, body: Any, headers: Mapping[str, str], progress: Progress
) -> None:
    last: collections.deque[str] = collections.deque(maxlen=TOLD_LINES)
    for row in client.objects("POST", "/build", asked, body, headers=headers, timeout=SILENCE):
        if row.get("error"):
            cause = "\n  | ".join([str(row["error"]).strip(), *last])
            raise BUILD_FAILED(service=one.service, cause=cause)
        for line in str(row.get("stream") or row.get("status") or "").strip().splitlines():
            if not last or line != last[-1]:
                last.append(line)
                progress.on(Event(one.subject, "Building", details=line))
