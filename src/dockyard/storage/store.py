"""The facade: everything that other rooms ask of storage. Work that waits for a disk runs in bounded threads; records
are touched only by the event loop's thread.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from dockyard.kernel import mount as kmount
from dockyard.oci import Digest, ImageRef, parse_config

from . import ingest, probe
from .db import Database
from .errors import BAD_SNAPSHOTTER, STORE_IN_USE
from .images import Document, ImageStore
from .ingest import Expected, Ingested
from .layers import LayerStore, sync_files
from .model import Image, Layer, LayerSource, Limits, Snapshot
from .pipe import PipeReader, run_with_input
from .snapshots import SnapshotStore
from .trash import Trash

log = logging.getLogger(__name__)

WORKERS = 8
DIRECTORIES = ("layers", "snapshots", "ingest", "trash", "volumes", "init")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Lease:
    """Keeps layers that no image holds yet from the collector, while a pull, load or build is under way. Leases die
    with the process: what a crash leaves is collected at the next open."""

    def __init__(self) -> None:
        self.layers: set[Digest] = set()


class Store:
    """Images, snapshots and volumes below one directory. Made by ``await Store.open(root)``."""

    def __init__(self, root: Path, snapshotter: str, capabilities: probe.Capabilities, limits: Limits) -> None:
        self.root = root
        self.limits = limits
        self.snapshotter = snapshotter
        self.capabilities = capabilities
        self._db = Database(root / "storage.db")
        self._trash = Trash(root / "trash")
        self._threads = ThreadPoolExecutor(WORKERS, "dockyard-storage")
        self._leases: set[Lease] = set()
        self._background: set[asyncio.Task[None]] = set()
        self.layers = LayerStore(root, self._db, snapshotter, self._trash)
        self.images = ImageStore(self._db, self.layers)
        self.snapshots = SnapshotStore(root, self._db, self.layers, self._trash)

    @classmethod
    async def open(cls, root: Path, *, snapshotter: str = "auto", limits: Limits | None = None) -> Store:
        """Open and heal: what is mounted is compared with the records, leftovers of a crash go to the trash. Raises
        Unavailable if another process has it open or overlayfs does not work there."""
        if snapshotter not in ("auto", "erofs", "extract"):
            raise BAD_SNAPSHOTTER(name=snapshotter)
        root = Path(os.path.abspath(root))
        root.mkdir(mode=0o710, parents=True, exist_ok=True)
        lock = _lock(root)
        for name in DIRECTORIES:
            (root / name).mkdir(mode=0o711 if name == "volumes" else 0o710, exist_ok=True)
        found = await asyncio.to_thread(probe.probe, root / "ingest")
        if snapshotter == "auto":
            snapshotter = "erofs" if found.erofs else "extract"
        store = cls(root, snapshotter, found, limits or Limits())
        store._lock_fd = lock
        store._reconcile()
        return store

    _lock_fd: int = -1

    def _reconcile(self) -> None:
        mounts = list(reversed(kmount.read_mounts(under=str(self.root))))
        self.snapshots.reconcile(mounts)
        self.layers.reconcile(mounts)
        for entry in list((self.root / "ingest").iterdir()):
            self._trash.put(entry)
        self._trash.sweep()
        for lost in self.layers.lost:
            log.error("layer %s is recorded, but its files are gone; images that use it cannot start", lost)
        self._check_unsynced()
        self.collect()

    def _check_unsynced(self) -> None:
        """After a reboot, layers that were not known to be on the disk are read again; bad ones are named."""
        boot = BOOT_ID.read_text().strip()
        rows = self._db.rows("SELECT value FROM meta WHERE key='boot'")
        if rows and rows[0][0] != boot:
            for layer in self.layers.unsynced():
                if not ingest.verify_tar(self.layers.path(layer.diff_id, "layer.tar"), layer.diff_id):
                    self.layers.lost.append(layer.diff_id)
                    log.error("layer %s was damaged by the loss of power", layer.diff_id)
        self._db.execute("INSERT OR REPLACE INTO meta(key, value) VALUES ('boot', ?)", boot)
        self._sync_later()

    async def close(self, *, unmount: bool = False) -> None:
        """Finish background work. Mounts stay, for containers outlive the daemon, unless ``unmount``."""
        for task in list(self._background):
            await asyncio.gather(task, return_exceptions=True)
        if unmount:
            self.snapshots.unmount_all()
            self.layers.unmount_all()
        await asyncio.to_thread(self._trash.close)
        self._threads.shutdown(wait=True)
        self._db.close()
        os.close(self._lock_fd)

    def driver_status(self) -> list[tuple[str, str]]:
        """Rows for ``docker info``."""
        return [
            ("Backing Filesystem", self.capabilities.backing_filesystem),
            ("Layers", "EROFS index over plain tar" if self.snapshotter == "erofs" else "extracted"),
            ("EROFS from file", "true" if self.capabilities.erofs else f"false ({self.capabilities.erofs_reason})"),
            ("Supports d_type", "true"),
            ("Native Overlay Diff", "true"),
        ]

    # -- layers -------------------------------------------------------------------------------------------------------

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        lease = Lease()
        self._leases.add(lease)
        try:
            yield lease
        finally:
            self._leases.discard(lease)

    async def ingest_layer(
        self, chunks: AsyncIterator[bytes], lease: Lease, *, digest: Digest | None = None, size: int | None = None,
        diff_id: Digest | None = None,
    ) -> tuple[Layer, Ingested]:  # fmt: skip
        """Stream one (compressed) layer into the store, verified against what is given."""
        expected = Expected(digest, size, diff_id)

        def work(reader: PipeReader) -> Ingested:
            got = ingest.receive(reader, self.root / "ingest", expected, self.limits)
            return ingest.index_layer(got, self.snapshotter, self.limits)

        got = await run_with_input(self._threads, chunks, work)
        return self.commit_layer(got, lease), got

    def commit_layer(self, got: Ingested, lease: Lease) -> Layer:
        layer = self.layers.commit(got)
        lease.layers.add(layer.diff_id)
        self._sync_later()
        return layer

    def register_image(
        self, config: bytes, *, layers: Sequence[LayerSource] = (), documents: Iterable[Document] = (),
        tags: Iterable[ImageRef] = (), digests: Iterable[ImageRef] = (), parent: Digest | None = None,
    ) -> Image:  # fmt: skip
        """Record an image whose layers are stored already (hold a lease until this returns)."""
        image = self.images.put(parse_config(config), layers, documents, parent)
        for ref in tags:
            self.images.tag(image, ref)
        for ref in digests:
            self.images.add_digest(image, ref)
        return self.images.image(image)

    def collect(self) -> list[Digest]:
        """Remove layers that no image, snapshot or lease holds."""
        used = self.images.used_layers()
        for snapshot in self.snapshots.all():
            used.update(snapshot.diff_ids)
        for lease in self._leases:
            used |= lease.layers
        garbage = [layer.diff_id for layer in self.layers.all() if layer.diff_id not in used]
        self.layers.remove(garbage)
        return garbage

    def _sync_later(self) -> None:
        """fsync of new layers off the critical path; until it is done a reboot makes open() verify them."""
        if self._background or not self.layers.unsynced():
            return
        task = asyncio.get_running_loop().create_task(self._sync())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _sync(self) -> None:
        loop = asyncio.get_running_loop()
        while layers := self.layers.unsynced():
            for layer in layers:
                directory = self.layers.directory / str(layer.number)
                await loop.run_in_executor(self._threads, sync_files, directory)
            self.layers.set_synced(layers)

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def prepare(
        self, key: str, image: str | None = None, *, parent: str | None = None, layers: Sequence[Digest] = (),
        labels: Mapping[str, str] | None = None,
    ) -> Snapshot:  # fmt: skip
        """A writable snapshot over an image, over bare layers, over another snapshot, or over nothing."""
        diff_ids = self.images.get(image).diff_ids if image is not None else tuple(layers)
        return self.snapshots.prepare(key, diff_ids, parent, labels)

    def mount(self, key: str, *, volatile: bool = False) -> Path:
        return self.snapshots.mount(key, volatile=volatile)

    async def unmount(self, key: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self.snapshots.unmount, key)

    def remove(self, key: str) -> None:
        self.snapshots.remove(key)

    def path(self, key: str) -> Path:
        return self.snapshots.path(key)


def _lock(root: Path) -> int:
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise STORE_IN_USE(root=str(root)) from None
    return fd
