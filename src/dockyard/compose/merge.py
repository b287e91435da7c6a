"""Merge of Compose files: later over earlier (compose-spec 13-merge).

Mappings merge deeply; lists append; scalars replace. ``command``, ``entrypoint`` and ``healthcheck.test`` replace as a
whole. Lists with a key (ports, volumes, secrets, configs, ...) replace the entry of the same key. ``!reset`` takes a
value away, ``!override`` puts one in place of the old without merging. Pure; works on canonical forms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dockyard.compose.document import Map, Seq, Tagged

_REPLACED = frozenset({"command", "entrypoint"})


def _port_key(port: Any) -> Any:
    if isinstance(port, dict):
        return port.get("host_ip"), port.get("target"), port.get("published"), port.get("protocol", "tcp")
    return port


def _by(name: str) -> Callable[[Any], Any]:
    return lambda item: item.get(name) if isinstance(item, dict) else item


def _name_of(item: Any) -> Any:
    return item.split("=", 1)[0] if isinstance(item, str) else item


_KEYED: dict[str, Callable[[Any], Any]] = {
    "ports": _port_key,
    "volumes": _by("target"),
    "secrets": lambda item: item.get("target") or item.get("source") if isinstance(item, dict) else item,
    "configs": lambda item: item.get("target") or item.get("source") if isinstance(item, dict) else item,
    "devices": _by("target"),
    "expose": str,
    "env_file": lambda item: item.get("path") if isinstance(item, dict) else item,
    "dns": str, "dns_search": str, "dns_opt": str, "cap_add": str, "cap_drop": str, "security_opt": str,
    "group_add": str, "external_links": str, "links": str, "extra_hosts": _name_of, "profiles": str, "tmpfs": str,
}  # fmt: skip
"""Lists inside a service whose entries have an identity; the later one of the same identity stands."""


def merge_files(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return _merge_maps(base, over, ())


def merge_service(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``, both canonical services (used by ``extends``)."""
    return _merge_maps(base, over, ("services", "?"))


def _merge_maps(base: dict[str, Any], over: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    made = Map(base)
    made.line = getattr(over, "line", 0)
    made.lines = {**getattr(base, "lines", {}), **getattr(over, "lines", {})}
    for key, value in over.items():
        tag = getattr(value, "tag", "")
        if tag == "reset":
            made.pop(key, None)
        elif tag == "override":
            made[key] = value.value if isinstance(value, Tagged) else without_tags(value)
        elif key not in made:
            made[key] = without_tags(value)
        else:
            made[key] = _merge_values(made[key], value, (*path, key))
    return made


def _merge_values(base: Any, over: Any, path: tuple[str, ...]) -> Any:
    if base is None or over is None:
        return base if over is None else over
    in_service = len(path) == 3 and path[0] == "services"
    if (in_service and path[2] in _REPLACED) or path[2:] == ("healthcheck", "test"):
        return over
    if isinstance(base, dict) and isinstance(over, dict):
        if in_service and path[2] == "logging" and _changes_driver(base, over):
            return over
        return _merge_maps(base, over, path)
    if isinstance(base, list) and isinstance(over, list):
        key = _KEYED.get(path[2]) if in_service else None
        return _merge_lists(base, over, key)
    return over


def _changes_driver(base: dict[str, Any], over: dict[str, Any]) -> bool:
    return bool(base.get("driver") and over.get("driver") and base["driver"] != over["driver"])


def _merge_lists(base: list[Any], over: list[Any], key: Callable[[Any], Any] | None) -> list[Any]:
    if key is None:
        return Seq([*base, *over])
    merged = {key(item): item for item in base}
    merged |= {key(item): item for item in over}
    return Seq(merged.values())


def without_tags(value: Any) -> Any:
    """The value as it stands when there was nothing to merge it with."""
    if isinstance(value, Tagged):
        return None if value.tag == "reset" else value.value
    if isinstance(value, Map):
        made = Map({key: without_tags(item) for key, item in value.items() if getattr(item, "tag", "") != "reset"})
        made.line, made.lines = value.line, value.lines
        return made
    if isinstance(value, Seq):
        items = Seq(without_tags(item) for item in value)
        items.line = value.line
        return items
    return value
