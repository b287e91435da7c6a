"""Who holds a host port, and which foreign mount namespaces still hold a container's mounts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dockyard.doctor.collect.namespaces import read_listeners
from dockyard.doctor.facts import MountLeak

MAX_PROCESSES = 20_000


def port_owners(pid: int) -> dict[str, str]:
    """Owner of each listening socket in the namespace of ``pid``: "tcp/127.0.0.1/8080" to "pid 12 (nginx -g)"."""
    inodes = {
        str(item.inode): f"{item.proto.rstrip('6')}/{item.address}/{item.port}"
        for item in read_listeners(f"/proc/{pid}/net")
        if item.inode
    }
    namespace = _inode(f"/proc/{pid}/ns/net")
    found: dict[str, str] = {}
    for name in _processes():
        if len(found) == len(inodes) or not inodes:
            break
        if _inode(f"/proc/{name}/ns/net") != namespace:
            continue
        for number in _sockets(name):
            if number in inodes:
                found[inodes[number]] = f"pid {name} ({_command(name)})"
    return found


def _processes() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()][:MAX_PROCESSES]


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _sockets(name: str) -> list[str]:
    found = []
    try:
        for fd in os.listdir(f"/proc/{name}/fd"):
            target = os.readlink(f"/proc/{name}/fd/{fd}")
            if target.startswith("socket:["):
                found.append(target[8:-1])
    except OSError:
        pass
    return found


def _command(name: str) -> str:
    try:
        return Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()[:200]
    except OSError:
        return "?"


def read_leaks(ids: list[str], engine_pid: int, containers: list[dict[str, Any]]) -> list[MountLeak]:
    """Processes outside the engine and the containers whose mount namespace holds an overlay of a stopped container."""
    layers = {_layer(container): container for container in containers if not container["State"].get("Running")}
    layers.pop("", None)
    wanted = {**dict.fromkeys(ids), **dict.fromkeys(layers)}
    if not wanted or not engine_pid:
        return []
    seen = {_inode(f"/proc/{engine_pid}/ns/mnt")}
    found = []
    for name in _processes():
        namespace = _inode(f"/proc/{name}/ns/mnt")
        if not namespace or namespace in seen:
            continue
        seen.add(namespace)
        point = _held(name, layers)
        if point:
            found.append(MountLeak(int(name), _command(name), point))
    return found


def _layer(container: dict[str, Any]) -> str:
    return str(((container.get("GraphDriver") or {}).get("Data") or {}).get("MergedDir", ""))


def _held(name: str, layers: dict[str, dict[str, Any]]) -> str:
    try:
        for line in Path(f"/proc/{name}/mountinfo").read_text(errors="replace").splitlines():
            point = line.split(" ")[4]
            if point in layers:
                return point
    except OSError:
        pass
    return ""
