"""``develop.watch``: from changed files to what is done in which service. Pure but for `snapshot` and `archive`."""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dockyard.build.dockerfile.patterns import Patterns
from dockyard.compose.project import Project

Json = dict[str, Any]
Stamp = tuple[int, int, int]
"""Modification time in ns, size, mode."""
ALWAYS_IGNORED = (".git", "**/*~", "**/.*.sw?", "**/.#*")
"""What editors leave beside a file while they write it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A ``watch`` entry of a service. ``path`` is absolute; ``exec`` what sync+exec runs, a hook."""

    service: str
    path: str
    action: str
    target: str
    ignore: Patterns
    include: Patterns
    exec: Mapping[str, Any] = field(default_factory=dict)
    initial_sync: bool = False

    def concerns(self, file: str) -> bool:
        if file != self.path and not file.startswith(self.path.rstrip("/") + "/"):
            return False
        relative = os.path.relpath(file, self.path)
        return not self.ignore.match(relative) and (not self.include or relative == "." or self.include.match(relative))

    def inside(self, file: str) -> str:
        """The file's path in the container."""
        relative = os.path.relpath(file, self.path)
        return self.target if relative == "." else posixpath.join(self.target, relative)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do in a service: ``files`` are (path here, path there); one that is gone here is removed there."""

    service: str
    action: str
    files: tuple[tuple[str, str], ...] = ()
    exec: Mapping[str, Any] = field(default_factory=dict)


def rules_of(project: Project) -> list[Rule]:
    """Raises ValueError for a pattern that cannot be read."""
    found = []
    for name, service in project.services.items():
        for rule in (service.get("develop") or {}).get("watch") or []:
            found.append(Rule(
                name, str(rule["path"]), str(rule["action"]), str(rule.get("target") or ""),
                Patterns([*ALWAYS_IGNORED, *(rule.get("ignore") or [])]), Patterns(rule.get("include") or []),
                dict(rule.get("exec") or {}), bool(rule.get("initial_sync")),
            ))  # fmt: skip
    return found


def snapshot(rules: Iterable[Rule]) -> dict[str, Stamp]:
    """Every watched file and its stamp. What goes while we look is not there."""
    found: dict[str, Stamp] = {}
    for rule in rules:
        paths = [rule.path]
        if os.path.isdir(rule.path):
            paths = [
                os.path.join(folder, name)
                for folder, folders, names in os.walk(rule.path)
                for name in _entered(rule, folder, folders, names)
            ]
        for path in paths:
            if path not in found and rule.concerns(path):
                try:
                    stat = os.lstat(path)
                except OSError:
                    continue
                found[path] = (stat.st_mtime_ns, stat.st_size, stat.st_mode)
    return found


def _entered(rule: Rule, folder: str, folders: list[str], names: list[str]) -> list[str]:
    """The files of a folder; ignored folders are not gone into."""
    if not rule.ignore.has_negation:
        folders[:] = [
            name for name in folders if not rule.ignore.match(os.path.relpath(os.path.join(folder, name), rule.path))
        ]
    return names


def changed(before: Mapping[str, Stamp], after: Mapping[str, Stamp]) -> list[str]:
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))


def steps(rules: Iterable[Rule], files: Iterable[str]) -> list[Step]:
    """What the changes call for: a rebuild makes all else of its service needless."""
    concerned = [(rule, [path for path in files if rule.concerns(path)]) for rule in rules]
    rebuilt = {rule.service for rule, found in concerned if found and rule.action == "rebuild"}
    made = [Step(name, "rebuild") for name in sorted(rebuilt)]
    for rule, found in concerned:
        if not found or rule.service in rebuilt:
            continue
        if rule.action.startswith("sync"):
            made.append(Step(rule.service, "sync", tuple((path, rule.inside(path)) for path in found)))
        if rule.action == "sync+exec":
            made.append(Step(rule.service, "exec", exec=rule.exec))
        if rule.action in {"restart", "sync+restart"} and not any(
            one.service == rule.service and one.action == "restart" for one in made
        ):
            made.append(Step(rule.service, "restart"))
    return made


def archive(files: Iterable[tuple[str, str]]) -> tuple[bytes, list[str]]:
    """(tar of what is there, paths in the container of what is not)."""
    buffer = io.BytesIO()
    gone = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for here, there in files:
            try:
                tar.add(here, there.lstrip("/"), recursive=False, filter=_owned_by_root)
            except OSError:
                gone.append(there)
    return buffer.getvalue(), gone


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
