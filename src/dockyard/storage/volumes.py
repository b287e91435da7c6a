"""Volumes of the ``local`` driver: directories that outlive containers, or mounts described by options.

::

    volumes/<name>/_data         content, or the mount point of {type, device, o}

A volume with options is mounted while at least one container uses it. Options are those of mount(8): ``type``,
``device``, ``o``; without ``device`` a type of ``tmpfs`` needs none. Names and sentences are dockerd's.
"""

from __future__ import annotations

import datetime
import errno
import os
import re
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from dockyard.kernel import mount as kmount
from dockyard.kernel import safefs
from dockyard.kernel.mount import MountFlag

from .copytree import copy_tree
from .db import Database
from .errors import (
    BAD_VOLUME_NAME,
    BAD_VOLUME_OPTION,
    CANNOT_MOUNT_VOLUME,
    NO_SUCH_VOLUME,
    VOLUME_EXISTS,
    VOLUME_IN_USE,
    VOLUME_NAME_TOO_SHORT,
)
from .model import Volume
from .trash import Trash
from .upper import disk_usage

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_OPTIONS = ("type", "device", "o", "size")
_FLAGS: Mapping[str, tuple[bool, MountFlag]] = {
    "ro": (True, MountFlag.RDONLY), "rw": (False, MountFlag.RDONLY), "nosuid": (True, MountFlag.NOSUID),
    "suid": (False, MountFlag.NOSUID), "nodev": (True, MountFlag.NODEV), "dev": (False, MountFlag.NODEV),
    "noexec": (True, MountFlag.NOEXEC), "exec": (False, MountFlag.NOEXEC), "sync": (True, MountFlag.SYNCHRONOUS),
    "async": (False, MountFlag.SYNCHRONOUS), "noatime": (True, MountFlag.NOATIME), "bind": (True, MountFlag.BIND),
    "rbind": (True, MountFlag.BIND | MountFlag.REC), "nodiratime": (True, MountFlag.NODIRATIME),
    "relatime": (True, MountFlag.RELATIME), "strictatime": (True, MountFlag.STRICTATIME),
    "dirsync": (True, MountFlag.DIRSYNC), "remount": (False, MountFlag.REMOUNT), "defaults": (False, MountFlag.NONE),
    "private": (False, MountFlag.NONE), "rprivate": (False, MountFlag.NONE),
}  # fmt: skip


class VolumeStore:
    def __init__(self, root: Path, db: Database, trash: Trash, owner: tuple[int, int] = (0, 0)) -> None:
        """``owner`` (uid, gid) of a new volume's directory: the containers' root."""
        self.directory = root / "volumes"
        self._db = db
        self._trash = trash
        self._owner = owner
        self._volumes: dict[str, Volume] = {}
        self._users: dict[str, int] = {}
        for name, labels, options, created in db.rows("SELECT name, labels, options, created FROM volumes"):
            self._volumes[str(name)] = self._volume(str(name), str(created), _decode(labels), _decode(options))

    def _volume(self, name: str, created: str, labels: Mapping[str, str], options: Mapping[str, str]) -> Volume:
        return Volume(name, "local", str(self.directory / name / "_data"), created, labels, options)

    def all(self) -> list[Volume]:
        return list(self._volumes.values())

    def get(self, name: str) -> Volume:
        try:
            return self._volumes[name]
        except KeyError:
            raise NO_SUCH_VOLUME(name=name) from None

    def create(
        self, name: str, options: Mapping[str, str] | None = None, labels: Mapping[str, str] | None = None
    ) -> Volume:
        """An existing volume of that name with the same options is given back, as dockerd does."""
        check_volume(name, options or {})
        if name in self._volumes:
            if options and dict(self._volumes[name].options) != dict(options):
                raise VOLUME_EXISTS(name=name)
            return self._volumes[name]
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        volume = self._volume(name, created, dict(labels or {}), dict(options or {}))
        self._db.execute(
            "INSERT INTO volumes(name, labels, options, created) VALUES (?,?,?,?)",
            name, _encode(volume.labels), _encode(volume.options), created,
        )  # fmt: skip
        self._make(volume)
        self._volumes[name] = volume
        return volume

    def _make(self, volume: Volume) -> None:
        os.makedirs(self.directory / volume.name, mode=0o701, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(volume.mountpoint, mode=0o755)
            os.chown(volume.mountpoint, *self._owner)

    def remove(self, name: str, users: Iterable[str] = ()) -> None:
        """``users``: containers that have it. The content goes in the background. Raises Conflict while used."""
        volume = self.get(name)
        held = list(users)
        if held:
            raise VOLUME_IN_USE(name=name, users=", ".join(held))
        self._unmount(volume)
        self._db.remove(("DELETE FROM volumes WHERE name=?", (name,)))
        del self._volumes[name]
        self._users.pop(name, None)
        self._trash.put(self.directory / name)

    def attach(self, name: str) -> str:
        """Path of the content for one more container; mounts what the options describe. Pair with detach."""
        volume = self.get(name)
        if volume.options and not os.path.ismount(volume.mountpoint):
            mount_volume(volume)
        self._users[name] = self._users.get(name, 0) + 1
        return volume.mountpoint

    def detach(self, name: str) -> None:
        """One container less; the last one unmounts. Unknown names are ignored: the record may be gone already."""
        left = self._users.get(name, 0) - 1
        self._users[name] = max(left, 0)
        if left <= 0 and name in self._volumes:
            self._unmount(self._volumes[name])

    def _unmount(self, volume: Volume) -> None:
        if not volume.options:
            return
        try:
            kmount.umount_if_mounted(volume.mountpoint)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise CANNOT_MOUNT_VOLUME(mountpoint=volume.mountpoint, cause=str(error.strerror)) from error
            kmount.umount(volume.mountpoint, kmount.UmountFlag.DETACH)

    def reconcile(self, mounts: Iterable[kmount.MountEntry]) -> None:
        """At open: directories of recorded volumes exist; what has no record is kept, for it may be someone's data."""
        prefix = f"{self.directory}/"
        known = {volume.mountpoint for volume in self._volumes.values() if volume.options}
        for row in mounts:
            if row.target.startswith(prefix) and row.target not in known:
                kmount.umount_if_mounted(row.target, kmount.UmountFlag.DETACH)
        for volume in self._volumes.values():
            self._make(volume)

    def unmount_all(self) -> None:
        for volume in self._volumes.values():
            self._unmount(volume)

    def usage(self, name: str) -> int:
        """Bytes of content (thread: walks the tree). -1 for what lives elsewhere."""
        volume = self.get(name)
        if volume.options:
            return -1
        with safefs.root_fd(volume.mountpoint) as root, safefs.opened(root, ".", os.O_RDONLY | os.O_DIRECTORY) as folder:
            return disk_usage(folder)[0]


def check_volume(name: str, options: Mapping[str, str]) -> None:
    """Raises InvalidParameter with dockerd's sentences."""
    if len(name) < 2:
        raise VOLUME_NAME_TOO_SHORT(name=name)
    if not _NAME.match(name) or len(name) > 255:
        raise BAD_VOLUME_NAME(name=name)
    for key in options:
        if key not in _OPTIONS:
            raise BAD_VOLUME_OPTION(name=name, cause=f'invalid option: "{key}"')
    if options and not ({"type", "device"} & set(options)) and "o" in options:
        raise BAD_VOLUME_OPTION(name=name, cause="missing device in volume options")
    if options.get("type", "") not in ("", "tmpfs") and not options.get("device"):
        raise BAD_VOLUME_OPTION(name=name, cause="missing required option: \"device\"")


def plan_mount(options: Mapping[str, str]) -> tuple[str, str, int, str]:
    """(device, type, flags, data) for mount(2) from the options of a volume."""
    flags, data = MountFlag.NONE, []
    for item in filter(None, options.get("o", "").split(",")):
        if item in _FLAGS:
            on, flag = _FLAGS[item]
            flags = flags | flag if on else flags & ~flag
        else:
            data.append(item)
    kind = options.get("type", "")
    if kind in ("nfs", "nfs4", "cifs", "smb3"):
        data = [_with_address(item) for item in data]
    device = options.get("device") or kind
    return device, "" if flags & MountFlag.BIND else kind, flags, ",".join(data)


def _with_address(item: str) -> str:
    """The kernel wants a number where people write a host name (mount.nfs would look it up)."""
    key, _, host = item.partition("=")
    if key != "addr":
        return item
    try:
        return f"addr={socket.getaddrinfo(host, None)[0][4][0]}"
    except OSError:
        return item


def mount_volume(volume: Volume) -> None:
    device, kind, flags, data = plan_mount(volume.options)
    try:
        kmount.mount(device, volume.mountpoint, kind, flags, data)
        if flags & MountFlag.BIND and flags & MountFlag.RDONLY:
            kmount.mount("none", volume.mountpoint, flags=MountFlag.BIND | MountFlag.REMOUNT | MountFlag.RDONLY)
    except OSError as error:
        what = f"failed to mount local volume: mount {device}:{volume.mountpoint}"
        details = f", data: {data}" if data else ""
        cause = os.strerror(error.errno or 0).lower()
        raise CANNOT_MOUNT_VOLUME(mountpoint=volume.mountpoint, cause=f"{what}{details}: {cause}") from error


def copy_up(image_root: str, path: str, volume: str) -> bool:
    """Fill an empty volume with what the image has at ``path``, owner and mode of the directory too (thread).

    False where the volume is not empty, or the image has no directory there. ``image_root`` is the container's mounted
    root; nothing outside of it is read, whatever symlinks it holds.
    """
    with safefs.root_fd(image_root) as root, safefs.root_fd(volume) as target:
        if os.listdir(safefs.fd_path(target)):
            return False
        try:
            source = safefs.open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            with safefs.opened(target, ".", os.O_RDONLY | os.O_DIRECTORY) as into:
                copy_tree(source, into)
        finally:
            os.close(source)
    return True


def _encode(values: Mapping[str, str]) -> str:
    return msgspec.json.encode(dict(values)).decode()


def _decode(text: object) -> dict[str, str]:
    return msgspec.json.decode(str(text), type=dict[str, str])
