"""What crun is told in other words than runc (found with 1.8.1 of Debian 12):

- the seccomp filter as a finished program (``runtime.bpf``);
- ``rro`` only for directories: with a file crun opens the target as a directory and fails ("Not a directory"), and a file
  has nothing mounted below it anyway;
- no limit of processes is no word at all: it writes -1 into pids.max, which the kernel refuses.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from dockyard.kernel import cgroup
from dockyard.runtime.bpf import FilterCache


class Dialect:
    def __init__(self) -> None:
        self._filters = FilterCache()

    def spec(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """A configuration for crun; ``spec`` itself is left alone. Raises InvalidParameter for a bad profile."""
        made = dict(self._filters.compiled(spec))
        made["mounts"] = [_mount(mount) for mount in spec.get("mounts", ())]
        resources = made["linux"].get("resources", {})
        if _unlimited(resources):
            made["linux"] = {**made["linux"], "resources": _without_pids(resources)}
        return made

    def update(self, cgroups: cgroup.Cgroups, group: str, resources: Mapping[str, Any]) -> Mapping[str, Any]:
        """``resources`` of an update; a limit of processes that is to go is taken away here."""
        if not _unlimited(resources):
            return resources
        directory = cgroups.path("pids", group)
        if directory is not None:
            with open(f"{directory}/pids.max", "w") as limit:
                limit.write("max")
        return _without_pids(resources)


def _mount(mount: Mapping[str, Any]) -> Mapping[str, Any]:
    if "rro" not in (options := mount.get("options", ())) or _is_directory(mount["source"]):
        return mount
    return {**mount, "options": [option for option in options if option != "rro"]}


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:  # the runtime will say so in its own words
        return True


def _unlimited(resources: Mapping[str, Any]) -> bool:
    return bool(resources.get("pids", {}).get("limit", 0) < 0)


def _without_pids(resources: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in resources.items() if name != "pids"}
