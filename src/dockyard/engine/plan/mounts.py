"""Which mounts a container gets, from Binds, Mounts, VolumesFrom, Tmpfs and the image's VOLUMEs.

Order of precedence as in moby (daemon/volumes_unix.go registerMountPoints): image volumes, then --volumes-from, then
Binds, then Mounts; a later one replaces an earlier one at the same target, except that two of the request's own clash.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from typing import Any

from dockyard.engine.errors import BAD_REQUEST
from dockyard.engine.model import MountPoint
from dockyard.model import ContainerConfig, HostConfig, Mount

_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_MODES = frozenset({"ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated", "rro"})
_DEFAULT_PROPAGATION = "rprivate"


def resolve_mounts(
    config: ContainerConfig, host: HostConfig, mounts_of: Callable[[str], Iterable[MountPoint]]
) -> tuple[MountPoint, ...]:
    """All mounts, by target. ``mounts_of`` gives those of a container named in --volumes-from (raises NotFound)."""
    found: dict[str, MountPoint] = {}
    for target in config.volumes or {}:
        _add(found, _anonymous(_clean(target)))
    for spec in host.volumes_from or []:
        for point in _from_container(spec, mounts_of):
            _add(found, point)
    own: set[str] = set()
    for point in _requested(host):
        if point.target in own:
            raise BAD_REQUEST(cause=f"Duplicate mount point: {point.target}")
        own.add(point.target)
        _add(found, point)
    for target, options in (host.tmpfs or {}).items():
        point = MountPoint(type="tmpfs", target=_clean(target), options=tuple(filter(None, options.split(","))))
        if point.target in own:
            raise BAD_REQUEST(cause=f"Duplicate mount point: {point.target}")
        _add(found, point)
    # Parents before children, or the child would be hidden below the parent's mount.
    return tuple(sorted(found.values(), key=lambda point: point.target.count("/")))


def _add(found: dict[str, MountPoint], point: MountPoint) -> None:
    found[point.target] = point


def _requested(host: HostConfig) -> Iterable[MountPoint]:
    for bind in host.binds or []:
        yield parse_bind(bind, host.volume_driver)
    for mount in host.mounts or []:
        yield from_mount(mount)


def _anonymous(target: str) -> MountPoint:
    return MountPoint(type="volume", target=target, driver="local", anonymous=True)


def parse_bind(spec: str, volume_driver: str = "") -> MountPoint:
    """``SRC:DST[:MODE]`` or ``DST``. A source without a leading slash is a volume name."""
    parts = spec.split(":")
    if not all(parts[:2]) or len(parts) > 3:
        raise BAD_REQUEST(cause=f"invalid volume specification: '{spec}'")
    if len(parts) == 1:
        return _anonymous(_absolute(parts[0], spec))
    source, target = parts[0], _absolute(parts[1], spec)
    if target == "/":
        raise BAD_REQUEST(cause=f"invalid volume specification: '{spec}': destination can't be '/'")
    modes = parts[2].split(",") if len(parts) == 3 else []
    unknown = [mode for mode in modes if mode not in _MODES | _PROPAGATION]
    if unknown or (len(parts) == 3 and not parts[2]):
        raise BAD_REQUEST(cause=f"invalid mode: {parts[2]}")
    propagation = next((mode for mode in modes if mode in _PROPAGATION), "")
    common: dict[str, Any] = {
        "target": target, "mode": ",".join(modes), "rw": not {"ro", "rro"} & set(modes), "copy": "nocopy" not in modes,
    }  # fmt: skip
    if source.startswith("/"):
        return MountPoint(
            type="bind", source=posixpath.normpath(source), propagation=propagation or _DEFAULT_PROPAGATION,
            create_source=True, **common,
        )  # fmt: skip
    if propagation:
        raise BAD_REQUEST(cause=f"invalid volume specification: '{spec}': propagation applies to bind mounts only")
    return MountPoint(type="volume", name=source, driver=volume_driver or "local", **common)


def from_mount(mount: Mount) -> MountPoint:
    """A row of HostConfig.Mounts. Raises InvalidParameter with moby's "invalid mount config for type ..." sentences."""
    kind = mount.type

    def invalid(cause: str) -> Exception:
        return BAD_REQUEST(cause=f'invalid mount config for type "{kind}": {cause}')

    if kind not in {"bind", "volume", "tmpfs", "image"}:
        raise BAD_REQUEST(cause=f'mount type unknown: "{kind}"')
    if not mount.target:
        raise invalid("field Target must not be empty")
    if not mount.target.startswith("/"):
        raise invalid(f"invalid mount path: '{mount.target}' mount path must be absolute")
    target = _clean(mount.target)
    if target == "/":
        raise invalid("invalid specification: destination can't be '/'")
    for name, options in (
        ("bind", mount.bind_options), ("volume", mount.volume_options), ("tmpfs", mount.tmpfs_options),
        ("image", mount.image_options),
    ):  # fmt: skip
        if options and name != kind:
            raise invalid(f"field {name.capitalize()}Options must not be specified")
    common: dict[str, Any] = {"target": target, "rw": not mount.read_only, "from_mounts": True}
    if kind == "bind":
        return _bind_mount(mount, invalid, common)
    if kind == "volume":
        return _volume_mount(mount, common)
    if kind == "image":
        if not mount.source:
            raise invalid("field Source must not be empty")
        common["rw"] = False
        return MountPoint(
            type="image", source=mount.source, subpath=str((mount.image_options or {}).get("Subpath", "")), **common
        )
    if mount.source:
        raise invalid("field Source must not be specified")
    return MountPoint(type="tmpfs", options=_tmpfs_options(mount.tmpfs_options or {}, invalid), **common)


def _bind_mount(mount: Mount, invalid: Callable[[str], Exception], common: dict[str, Any]) -> MountPoint:
    options = mount.bind_options or {}
    if not mount.source:
        raise invalid("field Source must not be empty")
    if not mount.source.startswith("/"):
        raise invalid(f"invalid mount path: '{mount.source}' mount path must be absolute")
    propagation = options.get("Propagation") or _DEFAULT_PROPAGATION
    if propagation not in _PROPAGATION:
        raise invalid(f"invalid propagation mode: {propagation}")
    extra = ("norecursive",) if options.get("NonRecursive") else ()
    return MountPoint(
        type="bind", source=posixpath.normpath(mount.source), propagation=propagation, options=extra,
        create_source=bool(options.get("CreateMountpoint")), **common,
    )  # fmt: skip


def _volume_mount(mount: Mount, common: dict[str, Any]) -> MountPoint:
    options = mount.volume_options or {}
    driver = options.get("DriverConfig") or {}
    return MountPoint(
        type="volume", name=mount.source, driver=driver.get("Name") or "local", anonymous=not mount.source,
        copy=not options.get("NoCopy", False), subpath=options.get("Subpath") or "", labels=options.get("Labels") or {},
        driver_opts=driver.get("Options") or {}, **common,
    )  # fmt: skip


def _tmpfs_options(options: dict[str, Any], invalid: Callable[[str], Exception]) -> tuple[str, ...]:
    made: list[str] = []
    if (size := options.get("SizeBytes") or 0) < 0:
        raise invalid("size cannot be negative")
    if size:
        made.append(f"size={size}")
    if mode := options.get("Mode"):
        made.append(f"mode={mode:o}")
    made += [pair[0] if len(pair) == 1 else f"{pair[0]}={pair[1]}" for pair in options.get("Options") or []]
    return tuple(made)


def _from_container(spec: str, mounts_of: Callable[[str], Iterable[MountPoint]]) -> Iterable[MountPoint]:
    name, colon, mode = spec.partition(":")
    if not name or (colon and mode not in {"ro", "rw", "z", "Z"}):
        raise BAD_REQUEST(cause=f"invalid volumes-from spec: {spec}")
    for point in mounts_of(name):
        if point.type in {"bind", "volume"}:
            # A volume is shared, never copied into again and never removed with the borrower.
            yield MountPoint(
                type=point.type, target=point.target, source=point.source, name=point.name, driver=point.driver,
                mode=mode or point.mode, rw=point.rw and mode != "ro", propagation=point.propagation, copy=False,
                subpath=point.subpath,
            )  # fmt: skip


def _absolute(target: str, spec: str) -> str:
    if not target.startswith("/"):
        raise BAD_REQUEST(
            cause=f"invalid volume specification: '{spec}': invalid mount path: '{target}' mount path must be absolute"
        )
    return _clean(target)


def _clean(target: str) -> str:
    return posixpath.normpath("/" + target.lstrip("/"))
