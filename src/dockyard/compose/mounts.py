"""What a service sees of volumes, files, secrets and configs, as Docker's Binds and Mounts. Pure.

Plain binds and named volumes go as bind strings, as Compose sends them, since old engines then make a missing host
directory; what a string cannot say, and every secret and config of a file (read-only), goes as a Mount. Secrets and
configs given by content or environment are written into the container before its start (`injected`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dockyard.compose.canonical import boolean, size, text
from dockyard.compose.errors import CANNOT_INJECT, UNSUPPORTED
from dockyard.compose.project import Project

Json = dict[str, Any]
SECRETS = "/run/secrets/"


class Injected(NamedTuple):
    """A file to be put into a container before it starts. ``mode`` is an octal number, ``uid`` and ``gid`` decimal."""

    target: str
    content: bytes
    mode: int
    uid: int
    gid: int


def volumes(project: Project, service: Mapping[str, Any], inherited: Sequence[Json]) -> tuple[list[str], list[Json]]:
    """(binds, mounts). ``inherited``: anonymous volumes of the container that this one replaces, as Mounts.

    Raises InvalidParameter for what no engine without swarm has (external secrets, drivers).
    """
    kept = {mount["Target"]: mount for mount in inherited}
    binds: list[str] = []
    mounts: list[Json] = []
    for volume in service.get("volumes") or []:
        if volume["target"] in kept and not volume.get("source"):
            continue
        source = _source(project, volume)
        if _is_plain(volume):
            binds.append(_bind_string(source, volume))
        else:
            mounts.append(_mount(source, volume))
    taken = {mount["target"] for mount in service.get("volumes") or []}
    for volume in _files(project, service):
        if volume["target"] not in taken:
            mounts.append(_mount(volume["source"], volume))
    return binds, [*kept.values(), *mounts]


def _source(project: Project, volume: Mapping[str, Any]) -> str:
    source = str(volume.get("source") or "")
    if volume["type"] == "volume" and source in project.volumes:
        return str(project.volumes[source]["name"])
    return source


def _is_plain(volume: Mapping[str, Any]) -> bool:
    if volume["type"] == "bind":
        bind = volume.get("bind")
        if bind is None:
            return True
        return boolean(bind.get("create_host_path", True)) and not bind.get("propagation") and not bind.get("recursive")
    if volume["type"] == "volume" and volume.get("source"):
        more = volume.get("volume") or {}
        return not more.get("labels") and not more.get("subpath") and not more.get("nocopy")
    return False


def _bind_string(source: str, volume: Mapping[str, Any]) -> str:
    options = ["ro" if boolean(volume.get("read_only", False)) else "rw"]
    selinux = (volume.get("bind") or {}).get("selinux")
    return f"{source}:{volume['target']}:{','.join([*options, *([selinux] if selinux else [])])}"


def _mount(source: str, volume: Mapping[str, Any]) -> Json:
    made: Json = {"Type": volume["type"], "Target": volume["target"]}
    if source:
        made["Source"] = source
    if boolean(volume.get("read_only", False)):
        made["ReadOnly"] = True
    if volume.get("consistency"):
        made["Consistency"] = volume["consistency"]
    more = volume.get(volume["type"])
    if isinstance(more, Mapping):
        made |= _OPTIONS[volume["type"]](more) if volume["type"] in _OPTIONS else {}
    return made


def _bind_options(bind: Mapping[str, Any]) -> Json:
    made: Json = {"CreateMountpoint": boolean(bind.get("create_host_path", True))}
    if bind.get("propagation"):
        made["Propagation"] = bind["propagation"]
    flag = {"disabled": "NonRecursive", "writable": "ReadOnlyNonRecursive", "readonly": "ReadOnlyForceRecursive"}.get(
        str(bind.get("recursive") or "")
    )
    return {"BindOptions": made | ({flag: True} if flag else {})}


def _volume_options(volume: Mapping[str, Any]) -> Json:
    made: Json = {}
    if boolean(volume.get("nocopy", False)):
        made["NoCopy"] = True
    if volume.get("subpath"):
        made["Subpath"] = volume["subpath"]
    if volume.get("labels"):
        made["Labels"] = dict(volume["labels"])
    return {"VolumeOptions": made} if made else {}


def _tmpfs_options(tmpfs: Mapping[str, Any]) -> Json:
    made: Json = {}
    if tmpfs.get("size"):
        made["SizeBytes"] = size(tmpfs["size"])
    if tmpfs.get("mode"):
        made["Mode"] = int(tmpfs["mode"])
    return {"TmpfsOptions": made} if made else {}


def _image_options(image: Mapping[str, Any]) -> Json:
    return {"ImageOptions": {"Subpath": image["subpath"]}} if image.get("subpath") else {}


_OPTIONS: dict[str, Callable[[Mapping[str, Any]], Json]] = {
    "bind": _bind_options, "volume": _volume_options, "tmpfs": _tmpfs_options, "image": _image_options,
}  # fmt: skip


def _target(reference: Mapping[str, Any], folder: str) -> str:
    target = str(reference.get("target") or reference["source"])
    return target if target.startswith("/") else folder + target


def _files(project: Project, service: Mapping[str, Any]) -> list[Json]:
    """Secrets and configs that are files of this host, as long-form volumes."""
    found = []
    for kind, folder, reference, definition in _references(project, service):
        for key in ("driver", "template_driver"):
            if definition.get(key):
                raise UNSUPPORTED(what=f"{kind}s.*.{key}")
        if definition.get("external"):
            raise UNSUPPORTED(what=f"external {kind} {definition['name']}")
        if "file" in definition:
            row: Json = {
                "type": "bind", "source": definition["file"], "target": _target(reference, folder), "read_only": True,
            }  # fmt: skip
            found.append(row | ({"bind": {"create_host_path": False}} if kind == "secret" else {}))
    return found


def injected(project: Project, service: Mapping[str, Any]) -> list[Injected]:
    """Raises InvalidParameter for a variable that is not set and for a read-only service."""
    found = []
    for kind, folder, reference, definition in _references(project, service):
        if "file" in definition or definition.get("external"):
            continue
        content = definition.get("content")
        variable = definition.get("environment")
        if variable:
            if variable not in project.environment:
                raise CANNOT_INJECT(kind=kind, name=definition["name"], cause=f'variable "{variable}" is not set')
            content = project.environment[variable]
        if content is None:
            continue
        if service.get("read_only"):
            raise CANNOT_INJECT(
                kind=kind, name=definition["name"], cause="the service is read_only, where only `file` works"
            )
        mode = reference.get("mode", 0o444)
        found.append(Injected(
            _target(reference, folder), text(content).encode(), int(mode, 8) if isinstance(mode, str) else int(mode),
            int(reference.get("uid") or 0), int(reference.get("gid") or 0),
        ))  # fmt: skip
    return found


def _references(project: Project, service: Mapping[str, Any]) -> list[tuple[str, str, Json, Json]]:
    rows = [("secret", SECRETS, item, project.secrets[item["source"]]) for item in service.get("secrets") or []]
    return rows + [("config", "/", item, project.configs[item["source"]]) for item in service.get("configs") or []]
