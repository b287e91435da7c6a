"""What crun is told in other words than runc (found with 1.8.1 of Debian 12):

- the seccomp filter as a finished program (``runtime.bpf``);
- ``rro`` only for directories: with a file crun opens the target as a directory and fails ("Not a directory"), and a file
  has nothing mounted below it anyway;
- what the mount of a bind's source forbids: crun remounts binds, and a remount drops every flag that it does not repeat;
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


_FORBIDDEN = {os.ST_RDONLY: "ro", os.ST_NOSUID: "nosuid", os.ST_NODEV: "nodev", os.ST_NOEXEC: "noexec"}


def _mount(mount: Mapping[str, Any]) -> Mapping[str, Any]:
    options = mount.get("options", ())
    if not {"bind", "rbind"} & set(options):
        return mount
    try:
        kept, directory = os.statvfs(mount["source"]).f_flag, stat.S_ISDIR(os.stat(mount["source"]).st_mode)
    except OSError:  # the runtime will say so in its own words
        return mount
    words = [word for word in options if word != "rro" or directory]
    words += [word for flag, word in _FORBIDDEN.items() if kept & flag and word not in words]
    return {**mount, "options": words}


def _unlimited(resources: Mapping[str, Any]) -> bool:
    return bool(resources.get("pids", {}).get("limit", 0) < 0)


def _without_pids(resources: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in resources.items() if name != "pids"}
