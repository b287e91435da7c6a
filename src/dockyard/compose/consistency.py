"""What a service may not say together, beyond the shape of single keys (compose-go, loader/validate.go). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dockyard.compose.canonical import size
from dockyard.compose.errors import BAD_VALUE
from dockyard.compose.identity import service_hash
from dockyard.compose.project import Project

Json = dict[str, Any]
MAX_SCALE = 10_000
"""Containers of one service; more is a typing error that would take the machine down."""


def check_consistency(project: Project) -> None:
    """Raises InvalidParameter at the first service that contradicts itself."""
    where = project.files[0] if project.files else project.directory
    for name, service in project.services.items():
        try:
            service_hash(service)  # reads every value as what it must be
            found = _contradictions(service)
        except (ValueError, TypeError, OverflowError) as wrong:
            raise BAD_VALUE(where=where, path=f"services.{name}", cause=wrong) from None
        for key, cause in found:
            raise BAD_VALUE(where=where, path=f"services.{name}{'.' if key else ''}{key}", cause=cause)


def _contradictions(service: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [*_limits(service), *_mounts(service)]
    name = service.get("container_name")
    if name is not None and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", str(name)):
        found.append(("container_name", f"{name!r} does not match pattern '[a-zA-Z0-9][a-zA-Z0-9_.-]+'"))
    build = service.get("build") or {}
    if build.get("dockerfile_inline") and build.get("dockerfile"):
        found.append(("build", "declares mutually exclusive dockerfile and dockerfile_inline"))
    test = (service.get("healthcheck") or {}).get("test") or []
    if test and test[0] not in {"CMD", "CMD-SHELL", "NONE"}:
        found.append(("healthcheck.test", 'must start either by "CMD", "CMD-SHELL" or "NONE"'))
    platforms = build.get("platforms") or []
    if platforms and service.get("platform") and service["platform"] not in platforms:
        found.append(("build.platforms", f"must include the service's platform {service['platform']!r}"))
    for rule in (service.get("develop") or {}).get("watch") or []:
        if not rule.get("target") and rule.get("action") not in {"rebuild", "restart"}:
            found.append(("develop.watch", "target is required for non-rebuild actions"))
    return found


def _limits(service: Mapping[str, Any]) -> list[tuple[str, str]]:
    deploy = service.get("deploy") or {}
    resources = deploy.get("resources") or {}
    limits, reserved = resources.get("limits"), resources.get("reservations")
    pairs = (
        ("cpus", limits, "cpus", "deploy.resources.limits.cpus", float),
        ("mem_limit", limits, "memory", "deploy.resources.limits.memory", size),
        ("pids_limit", limits, "pids", "deploy.resources.limits.pids", int),
        ("mem_reservation", reserved, "memory", "deploy.resources.reservations.memory", size),
    )
    found = []
    for key, group, other, path, number in pairs:
        if service.get(key) and group is not None and number(service[key]) != number(group.get(other) or 0):
            found.append(("", f"can't set distinct values on '{key}' and '{path}'"))
    scale, replicas = service.get("scale"), deploy.get("replicas")
    if scale is not None and replicas is not None and int(scale) != int(replicas):
        found.append(("", "can't set distinct values on 'scale' and 'deploy.replicas'"))
    for key, value in (("scale", scale), ("deploy.replicas", replicas)):
        if value is not None and not 0 <= int(value) <= MAX_SCALE:
            cause = "must be greater than or equal to 0" if int(value) < 0 else f"must be at most {MAX_SCALE}"
            found.append((key, cause))
    return found


def _mounts(service: Mapping[str, Any]) -> list[tuple[str, str]]:
    targets: dict[str, str] = {}
    found = []
    rows = [("tmpfs", index, str(item).partition(":")[0]) for index, item in enumerate(service.get("tmpfs") or [])]
    rows += [("volumes", index, item["target"]) for index, item in enumerate(service.get("volumes") or [])]
    for kind, index, target in rows:
        place = f"{kind}[{index}]"
        if target in targets:
            found.append((place, f"target {target} already mounted as {targets[target]}"))
        targets[target] = place
    return found
