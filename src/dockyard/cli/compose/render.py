"""A project as a Compose file in one canonical form, and YAML as people write it. Pure."""

from __future__ import annotations

from typing import Any

import yaml

from dockyard.compose.identity import go_duration
from dockyard.compose.project import Project

Json = dict[str, Any]
_DURATIONS = {
    "interval",
    "timeout",
    "start_period",
    "start_interval",
    "stop_grace_period",
    "delay",
    "window",
    "monitor",
}


def rendered(project: Project) -> Json:
    """The file that means the same without its environment, includes and profiles."""
    tree: Json = {"name": project.name, "services": {}}
    for name in sorted(project.services):
        service = {key: value for key, value in project.services[name].items() if value not in (None, {}, [])}
        service |= {key: project.services[name].get(key) for key in ("command", "entrypoint")}
        tree["services"][name] = {key: _value(key, service[key]) for key in sorted(service)}
    for kind in ("networks", "volumes", "secrets", "configs"):
        found = getattr(project, kind)
        if found:
            tree[kind] = {key: _value(key, found[key]) for key in sorted(found)}
    return tree


def _value(key: str, value: Any) -> Any:
    """Dollars are doubled, since the result is read as a template again."""
    if isinstance(value, dict):
        return {name: _value(name, value[name]) for name in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_value("", item) for item in value]
    if isinstance(value, str):
        return value.replace("$", "$$")
    if key in _DURATIONS and isinstance(value, (int, float)) and not isinstance(value, bool):
        return go_duration(value)
    return value


class _Dumper(yaml.SafeDumper):
    """Lists inside mappings are indented, and nothing is anchored."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump(tree: Json) -> str:
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=10**6)
