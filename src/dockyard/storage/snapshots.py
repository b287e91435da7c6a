"""Snapshots: a writable overlay over the layers of an image.

::

    snapshots/<key>/upper  work  merged        lowers, topmost first: [upper of the parent ...] layers ... init
    init/                                      shared, lowest: the places every container needs (/dev, /proc, ...)

Docker puts an extra *init* layer above the image's. Here the same few empty places lie *below* it: the image wins where
it has them, and nothing must be made per container. ``diff`` and ``commit`` read only the upper directory and so never
see them; ``export`` does, as dockerd's.

The record is written before the directories and removed before them.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from dockyard.kernel import mount as kmount
from dockyard.model.idmap import UNCHANGED, IdMaps
from dockyard.oci import Digest

from . import implied
from .db import Database
from .errors import BAD_KEY, CANNOT_MOUNT, NO_SUCH_SNAPSHOT, SNAPSHOT_BUSY, SNAPSHOT_EXISTS
from .idmapped import Mapper
from .layers import LayerStore
from .model import Snapshot
from .trash import Trash

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
INIT_DIRECTORIES = ("dev", "dev/pts", "dev/shm", "proc", "sys", "etc")
INIT_FILES = (".dockerenv", "dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf")
UMOUNT_BUSY = frozenset((errno.EBUSY,))
UNMAPPED = "dockyard.unmapped"
"""Label of a snapshot for a container that shares the host's user namespace."""


class SnapshotStore:
    def __init__(
        self, root: Path, db: Database, layers: LayerStore, trash: Trash, mapper: Mapper | None = None
    ) -> None:
        self.directory = root / "snapshots"
        self._init = root / "init"
        self._db = db
        self._layers = layers
        self._trash = trash
        self._mapper = mapper
        self._snapshots: dict[str, Snapshot] = {}
        self._mounted: set[str] = set()
        self._fleeting: set[str] = set()
        for key, diff_ids, parent, labels in db.rows("SELECT key, diff_ids, parent, labels FROM snapshots"):
            layer_ids = tuple(Digest(item) for item in str(diff_ids).split())
            above = None if parent is None else str(parent)
            decoded = msgspec.json.decode(str(labels), type=dict[str, str])
            self._snapshots[str(key)] = Snapshot(str(key), layer_ids, above, decoded)

    def all(self) -> list[Snapshot]:
        return list(self._snapshots.values())

    def get(self, key: str) -> Snapshot:
        try:
            return self._snapshots[key]
        except KeyError:
            raise NO_SUCH_SNAPSHOT(key=key) from None

    def prepare(
        self, key: str, diff_ids: Sequence[Digest], parent: str | None = None, labels: Mapping[str, str] | None = None,
        *, transient: bool = False, durable: bool = True,
    ) -> Snapshot:  # fmt: skip
        """A new snapshot. With ``parent`` the layers are the parent's and its upper directory lies above them; the
        parent must not change afterwards. A ``transient`` one has no record: it costs no sync of the disk, and what a
        crash leaves of it is swept at open. The record of one that is not ``durable`` survives a killed daemon, but not
        for certain a loss of power."""
        if not _KEY.match(key):
            raise BAD_KEY(key=key[:200])
        if key in self._snapshots:
            raise SNAPSHOT_EXISTS(key=key)
        layers = self.get(parent).diff_ids if parent is not None else tuple(diff_ids)
        for diff_id in layers:
            self._layers.get(diff_id)
        snapshot = Snapshot(key, layers, parent, dict(labels or {}))
        if not durable:
            self._fleeting.add(key)
        if not transient:
            self._db.execute(
                "INSERT INTO snapshots(key, diff_ids, parent, labels) VALUES (?,?,?,?)",
                key, " ".join(layers), parent, msgspec.json.encode(snapshot.labels).decode(), durable=durable,
            )  # fmt: skip
        self._snapshots[key] = snapshot
        self._make_directories(snapshot)
        return snapshot

    def _make_directories(self, snapshot: Snapshot) -> None:
        base = f"{self.directory}/{snapshot.key}"
        os.makedirs(base, 0o711, exist_ok=True)
        for name in ("upper", "work", "merged"):
            if not os.path.isdir(f"{base}/{name}"):
                os.mkdir(f"{base}/{name}", 0o755)
        self._correct_implied(snapshot, base)
        self._copy_root_metadata(snapshot, f"{base}/upper")

    def _correct_implied(self, snapshot: Snapshot, base: str) -> None:
        views = [self._layers.view(diff_id) for diff_id in reversed(snapshot.diff_ids)]
        if any(view.implied for view in views) and (wanted := implied.corrections(views)):
            implied.make(f"{base}/{implied.NAME}", wanted)

    def _copy_root_metadata(self, snapshot: Snapshot, upper: str) -> None:
        """The merged root shows the upper's owner and mode: make them those of the layer that has them."""
        lower = self.lowers(snapshot)[0]
        info = os.stat(lower)
        os.chown(upper, info.st_uid, info.st_gid)
        os.chmod(upper, info.st_mode & 0o7777)

    def lowers(self, snapshot: Snapshot) -> list[str]:
        """Lower directories, topmost first; mounts the layers that are not."""
        return self._lowers(snapshot, [self._layers.mount(diff_id) for diff_id in reversed(snapshot.diff_ids)])

    def lower_paths(self, snapshot: Snapshot) -> list[str]:
        """As `lowers`, and mounts nothing: a layer that no container has used yet is an empty directory."""
        return self._lowers(snapshot, [str(self._layers.path(diff_id, "fs")) for diff_id in reversed(snapshot.diff_ids)])

    def _lowers(self, snapshot: Snapshot, paths: list[str]) -> list[str]:
        uppers = []
        parent = snapshot.parent
        while parent is not None:
            uppers.append(f"{self.directory}/{parent}/upper")
            parent = self.get(parent).parent
        own = f"{self.directory}/{snapshot.key}/{implied.NAME}"
        corrected = [own] if os.path.isdir(own) else []
        return [*uppers, *corrected, *paths, str(self._init)]

    def path(self, key: str) -> Path:
        """Where ``mount`` puts the root file system."""
        self.get(key)
        return self.directory / key / "merged"

    def upper(self, key: str) -> Path:
        self.get(key)
        return self.directory / key / "upper"

    def mount(self, key: str, *, volatile: bool = False) -> Path:
        """Mounted root file system; a second call changes nothing. ``volatile`` skips every sync of overlayfs: right
        for what is thrown away (build steps, and what is not durable), wrong for other containers, which would not mount
        again after a crash."""
        snapshot = self.get(key)
        base = f"{self.directory}/{key}"
        volatile = volatile or key in self._fleeting
        if key not in self._mounted:
            # The mark of an earlier volatile mount. An engine that was killed has lost nothing, and no longer knows which
            # snapshots were fleeting: with the mark in place they would never mount again (EINVAL).
            shutil.rmtree(os.path.join(base, "work", "work", "incompat"), ignore_errors=True)
            try:
                self._mount_overlay(snapshot, base, ["volatile"] if volatile else [])
            except OSError as error:
                raise CANNOT_MOUNT(cause=str(error.strerror)) from error
            self._mounted.add(key)
        return Path(f"{base}/merged")

    def ids(self, key: str) -> IdMaps:
        """How owners in the mounted root differ from those in the layers."""
        if self._mapper is None or UNMAPPED in self.get(key).labels:
            return UNCHANGED
        return self._mapper.ids

    def _mount_overlay(self, snapshot: Snapshot, base: str, options: Sequence[str]) -> None:
        lowers = self.lowers(snapshot)
        if self._mapper is None or not self.ids(snapshot.key):
            kmount.mount_overlay(f"{base}/merged", lowers, f"{base}/upper", f"{base}/work", options)
            return
        with self._mapper.attached([*lowers, base]) as (*below, own):
            kmount.mount_overlay(f"{base}/merged", below, f"{own}/upper", f"{own}/work", options)

    def unmount(self, key: str) -> None:
        """Idempotent; a busy mount is detached and goes with its last user. May wait for a sync of the disk."""
        self.get(key)
        target = f"{self.directory}/{key}/merged"
        try:
            kmount.umount_if_mounted(target)
        except OSError as error:
            if error.errno not in UMOUNT_BUSY:
                raise CANNOT_MOUNT(cause=str(error.strerror)) from error
            kmount.umount(target, kmount.UmountFlag.DETACH)
        self._mounted.discard(key)

    def is_mounted(self, key: str) -> bool:
        return key in self._mounted

    def remove(self, key: str) -> None:
        """Gone for every caller when this returns; the files follow in the background."""
        self.get(key)
        children = [other.key for other in self._snapshots.values() if other.parent == key]
        if children:
            raise SNAPSHOT_BUSY(key=key, cause=f"snapshot {children[0]} stands on it")
        self._db.remove(("DELETE FROM snapshots WHERE key=?", (key,)), durable=key not in self._fleeting)
        self._fleeting.discard(key)
        del self._snapshots[key]
        self._mounted.discard(key)
        self._trash.put(self.directory / key)

    def reconcile(self, mounts: Iterable[kmount.MountEntry]) -> None:
        """At open: adopt mounts of known snapshots, detach others, sweep directories without a record."""
        make_init(self._init)
        prefix = f"{self.directory}/"
        for row in mounts:
            if not row.target.startswith(prefix):
                continue
            key, _, rest = row.target[len(prefix) :].partition("/")
            if key in self._snapshots and rest == "merged" and key not in self._mounted:
                self._mounted.add(key)
            else:
                kmount.umount_if_mounted(row.target, kmount.UmountFlag.DETACH)
        for entry in list(self.directory.iterdir()):
            if entry.name not in self._snapshots:
                self._trash.put(entry)
        for snapshot in self._snapshots.values():
            base = self.directory / snapshot.key
            if not (base / "merged").is_dir():  # died between record and mkdir
                self._make_directories(snapshot)

    def unmount_all(self) -> None:
        for key in list(self._mounted):
            self.unmount(key)


def make_init(directory: Path) -> None:
    """The shared lowest directory, complete or made so."""
    for name in INIT_DIRECTORIES:
        (directory / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in INIT_FILES:
        (directory / name).touch(mode=0o755 if name == ".dockerenv" else 0o644, exist_ok=True)
    mtab = directory / "etc" / "mtab"
    if not mtab.is_symlink():
        mtab.symlink_to("/proc/mounts")
