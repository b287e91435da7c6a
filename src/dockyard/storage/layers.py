"""Stored layers: records, directories and the shared read-only mount of each.

::

    layers/<number>/layer.tar  index.erofs  fs/      fs = mount point of the index, or the extracted content

The number and not the digest names the directory, so that the option string of an overlay of many layers stays short.
A layer is mounted when first used and stays so until it is removed: every container of every image that holds it shares
one superblock and its page cache.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from dockyard.kernel import mount as kmount
from dockyard.oci import Digest

from . import implied
from .db import Database
from .errors import CANNOT_MOUNT, NO_SUCH_LAYER
from .ingest import Ingested, extract_again
from .model import Layer, Limits
from .trash import Trash


class LayerStore:
    """Owned by the event loop's thread; nothing here waits for more than a mount or a commit."""

    def __init__(self, root: Path, db: Database, snapshotter: str, trash: Trash) -> None:
        self.directory = root / "layers"
        self.snapshotter = snapshotter
        self._db = db
        self._trash = trash
        self._layers: dict[Digest, Layer] = {}
        self._mounted: set[int] = set()
        self._implied: dict[int, frozenset[bytes]] = {}
        self.lost: list[Digest] = []
        for diff_id, number, size, entries, content in db.rows(
            "SELECT diff_id, number, size, entries, content_size FROM layers"
        ):
            digest = Digest(str(diff_id))
            self._layers[digest] = Layer(digest, _int(number), _int(size), _int(entries), _int(content))

    def __contains__(self, diff_id: Digest) -> bool:
        return diff_id in self._layers

    def all(self) -> list[Layer]:
        return list(self._layers.values())

    def get(self, diff_id: Digest) -> Layer:
        try:
            return self._layers[diff_id]
        except KeyError:
            raise NO_SUCH_LAYER(diff_id=diff_id) from None

    def path(self, diff_id: Digest, part: str = "") -> Path:
        return self.directory / str(self.get(diff_id).number) / part

    def commit(self, got: Ingested) -> Layer:
        """Take over an ingested directory; a layer that is here already wins and the newcomer is dropped."""
        if got.diff_id in self._layers:
            self._trash.put(got.directory)
        else:
            try:
                number = self._record(got)
            except BaseException:
                self._trash.put(got.directory)
                raise
            self._layers[got.diff_id] = Layer(got.diff_id, number, got.size, got.entries, got.content_size)
        self._remember_blob(got)
        return self._layers[got.diff_id]

    def _record(self, got: Ingested) -> int:
        target = None
        try:
            with self._db.transaction() as db:
                number = db.execute(
                    "INSERT INTO layers(diff_id, size, entries, content_size) VALUES (?,?,?,?)",
                    (got.diff_id, got.size, got.entries, got.content_size),
                ).lastrowid
                assert number is not None
                target = self.directory / str(number)
                if target.exists():  # left by a crash between rename and commit
                    self._trash.put(target)
                os.rename(got.directory, target)
        except BaseException:
            if target is not None and target.exists():
                self._trash.put(target)
            raise
        return number

    def _remember_blob(self, got: Ingested) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO fetched(digest, diff_id, media_type, size) VALUES (?,?,?,?)",
            got.digest, got.diff_id, got.kind, got.compressed_size,
        )  # fmt: skip

    def mount(self, diff_id: Digest) -> str:
        """The layer's tree as a path, mounted if it was not (0.2 ms)."""
        layer = self.get(diff_id)
        base = f"{self.directory}/{layer.number}"
        if layer.number not in self._mounted and os.path.exists(f"{base}/index.erofs"):
            if self.snapshotter == "extract":
                extract_again(Path(base), Limits())
                return f"{base}/fs"
            try:
                kmount.mount_erofs(f"{base}/index.erofs", f"{base}/fs", [f"{base}/layer.tar"])
            except OSError as error:
                raise CANNOT_MOUNT(cause=str(error.strerror)) from error
            self._mounted.add(layer.number)
        return f"{base}/fs"

    def view(self, diff_id: Digest) -> implied.View:
        """The mounted tree with what it only implies."""
        root = self.mount(diff_id)
        number = self.get(diff_id).number
        if number not in self._implied:
            try:
                self._implied[number] = implied.decode((self.directory / str(number) / implied.NAME).read_bytes())
            except FileNotFoundError:
                self._implied[number] = frozenset()
        return implied.View(root, self._implied[number])

    def remove(self, layers: Iterable[Digest]) -> None:
        """Forget layers that nothing refers to any more; their files go in the background."""
        gone = [self._layers[diff_id] for diff_id in layers if diff_id in self._layers]
        self._db.remove(*(("DELETE FROM layers WHERE diff_id=?", (layer.diff_id,)) for layer in gone))
        for layer in gone:
            del self._layers[layer.diff_id]
            self._unmount(layer.number)
            self._implied.pop(layer.number, None)
            self._trash.put(self.directory / str(layer.number))

    def _unmount(self, number: int) -> None:
        self._mounted.discard(number)
        target = f"{self.directory}/{number}/fs"
        try:
            kmount.umount_if_mounted(target)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            kmount.umount(target, kmount.UmountFlag.DETACH)

    def unmount_all(self) -> None:
        for number in list(self._mounted):
            self._unmount(number)

    def reconcile(self, mounts: Iterable[kmount.MountEntry]) -> None:
        """At open: adopt our mounts that are up, drop those of layers unknown, sweep directories without a record."""
        known = {layer.number: layer for layer in self._layers.values()}
        prefix = f"{self.directory}/"
        for row in mounts:
            if not row.target.startswith(prefix):
                continue
            number = row.target[len(prefix) :].partition("/")[0]
            if number.isdigit() and int(number) in known and int(number) not in self._mounted:
                self._mounted.add(int(number))
            else:
                kmount.umount_if_mounted(row.target, kmount.UmountFlag.DETACH)
        for entry in list(self.directory.iterdir()):
            if not entry.name.isdigit() or int(entry.name) not in known:
                self._trash.put(entry)
        self.lost = [layer.diff_id for number, layer in known.items() if not (self.directory / str(number)).is_dir()]

    def unsynced(self) -> list[Layer]:
        rows = self._db.rows("SELECT diff_id FROM layers WHERE synced=0")
        return [self._layers[Digest(str(row[0]))] for row in rows]

    def set_synced(self, layers: Iterable[Layer]) -> None:
        with self._db.transaction() as db:
            db.executemany("UPDATE layers SET synced=1 WHERE number=?", [(layer.number,) for layer in layers])


def sync_files(directory: Path) -> None:
    """fsync of a layer's files, then of the directory that names them (thread)."""
    for name in ("layer.tar", "index.erofs", implied.NAME, "."):
        try:
            fd = os.open(directory / name, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
