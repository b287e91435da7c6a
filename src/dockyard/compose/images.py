"""Images before containers: which must be pulled and which built (``pull_policy``, --pull, --build). Pure but for `pull`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dockyard.client import Client
from dockyard.compose.canonical import duration
from dockyard.compose.errors import NO_IMAGE, PULL_FAILED
from dockyard.compose.labels import image_name
from dockyard.compose.observe import Image
from dockyard.compose.plan import Operation
from dockyard.compose.progress import Event, Progress
from dockyard.compose.project import Project
from dockyard.errors import DockyardError

Json = dict[str, Any]
_DAYS = {"daily": 86400.0, "weekly": 7 * 86400.0}


def needed(project: Project) -> dict[str, str]:
    """Service to the image that its containers are made of."""
    return {
        name: image_name(project.name, project.separator, name, service)
        for name, service in project.services.items()
        if not service.get("provider")
    }


def plan_images(
    project: Project, images: Mapping[str, Image], now: datetime, *, pull: str = "", build: bool = False,
    no_build: bool = False,
) -> list[Operation]:  # fmt: skip
    """``pull``: always, missing, never or build; empty: each service's own policy. Raises NotFound when an image is
    missing and nothing may bring it."""
    found: dict[str, Operation] = {}
    for name, image in needed(project).items():
        service = project.services[name]
        present = images.get(image)
        policy = pull or str(service.get("pull_policy") or "missing")
        if service.get("build") and (build or policy == "build" or (present is None and policy != "always")):
            if no_build and present is None:
                raise NO_IMAGE(image=image, service=name)
            if not no_build:
                reason = "not there yet" if present is None else "asked for" if build else "pull_policy: build"
                needs = [f"build {other}" for other in built_before(service)]
                found[f"build {name}"] = Operation(
                    f"build {name}", "build", f"Service {name}", reason, tuple(needs), name, name=image
                )
            continue
        reason = _why_pull(policy, present, now, str(service.get("pull_refresh_after") or ""))
        if reason:
            found.setdefault(
                f"pull {image}", Operation(f"pull {image}", "pull", f"Image {image}", reason, (), name, name=image)
            )
        elif present is None:
            raise NO_IMAGE(image=image, service=name)
    for name, service in project.services.items():
        for hook in service.get("pre_start") or []:
            if (image := str(hook.get("image") or "")) and image not in images:
                found.setdefault(f"pull {image}", Operation(
                    f"pull {image}", "pull", f"Image {image}", "not there yet", (), name, name=image
                ))  # fmt: skip
    return list(found.values())


def of_hooks(project: Project) -> list[str]:
    """Images of pre_start hooks that have one of their own."""
    hooks = [hook for service in project.services.values() for hook in service.get("pre_start") or []]
    return list(dict.fromkeys(str(hook["image"]) for hook in hooks if hook.get("image")))


def built_before(service: Json) -> list[str]:
    contexts = (service.get("build") or {}).get("additional_contexts") or {}
    return [str(value).removeprefix("service:") for value in contexts.values() if str(value).startswith("service:")]


def _why_pull(policy: str, present: Image | None, now: datetime, refresh_after: str) -> str:
    if policy == "always":
        return "asked for" if present else "not there yet"
    if policy == "never":
        return ""
    if present is None:
        return "not there yet"
    age = _DAYS.get(policy)
    if policy.startswith("every_"):
        age = duration(policy.removeprefix("every_"))
    if policy == "refresh" and refresh_after:
        age = duration(refresh_after)
    if age is None or not present.tagged or present.tagged.startswith("0001-"):
        return ""
    tagged = datetime.fromisoformat(present.tagged[:19]).replace(tzinfo=UTC)
    return f"pulled {tagged:%Y-%m-%d}, pull_policy: {policy}" if now - tagged > timedelta(seconds=age) else ""


def split(reference: str) -> tuple[str, str]:
    """(name, tag or digest): ``nginx`` is ``nginx`` and ``latest``."""
    name, at, digest = reference.partition("@")
    if at:
        return name, digest
    head, colon, tag = reference.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (reference, "latest")


def pull(client: Client, one: Operation, platform: str, headers: Mapping[str, str], progress: Progress) -> None:
    """``headers``: the credentials. Raises Unavailable with the engine's or the registry's words."""
    name, tag = split(one.name)
    query = {"fromImage": name, "tag": tag, "platform": platform or None}
    progress.on(Event(one.subject, "Pulling"))
    layers: dict[str, tuple[int, int]] = {}
    try:
        for row in client.objects("POST", "/images/create", query, headers=headers, timeout=600):
            if row.get("error"):
                raise PULL_FAILED(image=one.name, cause=row["error"])
            detail = row.get("progressDetail") or {}
            if row.get("id") and detail.get("total"):
                layers[row["id"]] = (int(detail.get("current") or 0), int(detail["total"]))
                done, whole = (sum(part) for part in zip(*layers.values(), strict=True))
                progress.on(Event(one.subject, "Pulling", details=f"{done / 1e6:.1f}MB/{whole / 1e6:.1f}MB"))
    except DockyardError as error:
        progress.on(Event(one.subject, "Error", "error", str(error)))
        raise
    progress.on(Event(one.subject, "Pulled", "done"))
