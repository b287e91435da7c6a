"""The facade: everything that other rooms ask of storage. Work that waits for a disk runs in bounded threads; records
are touched only by the event loop's thread.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dockyard.kernel import mount as kmount
from dockyard.lib.durable import Spare, no_spare
from dockyard.model.idmap import UNCHANGED, IdMaps
from dockyard.oci import Digest, ImageRef, chain_ids, parse_config, parse_reference
from dockyard.oci.archive import SavedImage

from . import archives, ingest, probe, upper
from .db import Database
from .errors import BAD_SNAPSHOTTER, STORE_IN_USE, TAG_WITH_DIGEST
from .history import history
from .idmapped import Mapper
from .images import Document, ImageStore
from .ingest import Expected, Ingested
from .layers import LayerStore, sync_files
from .merge import merged_tar
from .model import (
    ChangeKind,
    Deleted,
    DiskUsage,
    HistoryEntry,
    Image,
    Layer,
    LayerSource,
    Limits,
    Progress,
    Snapshot,
    no_progress,
)
from .pipe import PipeReader, run_with_input
from .removal import ImagesView, plan_removal, users_of
from .snapshots import UNMAPPED, SnapshotStore
from .trash import Trash
from .volumes import VolumeStore, copy_up

log = logging.getLogger(__name__)

WORKERS = 16
INDEXERS = 2
DIRECTORIES = ("layers", "snapshots", "ingest", "trash", "volumes", "init")
T = TypeVar("T")
Holder = Callable[[], Iterable[Digest]]
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Lease:
    """Keeps layers that no image holds yet from the collector, while a pull, load or build is under way. Leases die
    with the process: what a crash leaves is collected at the next open."""

    def __init__(self) -> None:
        self.layers: set[Digest] = set()


class Store:
    """Images, snapshots and volumes below one directory. Made by ``await Store.open(root)``."""

    def __init__(
        self, root: Path, snapshotter: str, capabilities: probe.Capabilities, limits: Limits,
        holders: Sequence[Holder] = (), mapper: Mapper | None = None, spare: Spare = no_spare,
    ) -> None:  # fmt: skip
        self.root = root
        self._holders = tuple(holders)
        self.limits = limits
        self.snapshotter = snapshotter
        self.capabilities = capabilities
        self._mapper = mapper
        self.ids = mapper.ids if mapper is not None else UNCHANGED
        """Of containers whose snapshots are ``mapped``."""
        self._db = Database(root / "storage.db", spare)
        self._trash = Trash(root / "trash")
        self.threads = ThreadPoolExecutor(WORKERS, "dockyard-storage")  # streams: these wait for peers and disk
        self.indexers = ThreadPoolExecutor(INDEXERS, "dockyard-index")  # never waits for the former: no deadlock
        self._leases: set[Lease] = set()
        self._background: set[asyncio.Task[None]] = set()
        self.layers = LayerStore(root, self._db, snapshotter, self._trash)
        self.images = ImageStore(self._db, self.layers)
        self.snapshots = SnapshotStore(root, self._db, self.layers, self._trash, mapper)
        self.volumes = VolumeStore(root, self._db, self._trash, self.ids.root)

    @classmethod
    async def open(
        cls, root: Path, *, snapshotter: str = "auto", limits: Limits | None = None, holders: Sequence[Holder] = (),
        ids: IdMaps | None = None, spare: Spare = no_spare,
    ) -> Store:  # fmt: skip
        """Open and heal: what is mounted is compared with the records, leftovers of a crash go to the trash.
        ``holders`` name layers that somebody else's records keep (the build cache): the collector asks them. ``ids``:
        containers run in a user namespace, and their files belong to its ids. ``spare``: room on the disk for records of
        what is removed. Raises Unavailable if another process has it open or overlayfs does not work there."""
        if snapshotter not in ("auto", "erofs", "extract"):
            raise BAD_SNAPSHOTTER(name=snapshotter)
        root = Path(os.path.abspath(root))
        # 0711 below a data root of 0710: the root of a user namespace, whose group that is, passes through.
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = _lock(root)
        for name in DIRECTORIES:
            (root / name).mkdir(mode=0o711 if name in ("volumes", "snapshots") else 0o710, exist_ok=True)
        mapper = Mapper(root / "mapped", ids) if ids else None
        found = await asyncio.to_thread(probe.probe, root / "ingest", mapper)
        if snapshotter == "auto":
            snapshotter = "erofs" if found.erofs else "extract"
        store = cls(root, snapshotter, found, limits or Limits(), holders, mapper, spare)
        store._lock_fd = lock
        store._reconcile()
        return store

    _lock_fd: int = -1

    def _reconcile(self) -> None:
        mounts = list(reversed(kmount.read_mounts(under=str(self.root))))
        self.snapshots.reconcile(mounts)
        self.volumes.reconcile(mounts)
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
        self.sync_later()

    async def close(self, *, unmount: bool = False) -> None:
        """Finish background work. Mounts stay, for containers outlive the daemon, unless ``unmount``."""
        for task in list(self._background):
            await asyncio.gather(task, return_exceptions=True)
        if unmount:
            self.snapshots.unmount_all()
            self.volumes.unmount_all()
            self.layers.unmount_all()
        await asyncio.to_thread(self._trash.close)
        self.threads.shutdown(wait=True)
        self.indexers.shutdown(wait=True)
        self._db.close()
        if self._mapper is not None:
            self._mapper.close()
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

    def leased(self, diff_id: Digest) -> bool:
        return any(diff_id in lease.layers for lease in self._leases)

    async def ingest_layer(
        self, chunks: AsyncIterator[bytes], lease: Lease, *, digest: Digest | None = None, size: int | None = None,
        diff_id: Digest | None = None,
    ) -> tuple[Layer, Ingested]:  # fmt: skip
        """Stream one (compressed) layer into the store, verified against what is given."""
        expected = Expected(digest, size, diff_id)

        def work(reader: PipeReader) -> Ingested:
            got = ingest.receive(reader, self.root / "ingest", expected, self.limits)
            return ingest.index_layer(got, self.snapshotter, self.limits)

        got = await run_with_input(self.threads, chunks, work)
        return self.commit_layer(got, lease), got

    def commit_layer(self, got: Ingested, lease: Lease) -> Layer:
        layer = self.layers.commit(got)
        lease.layers.add(layer.diff_id)
        self.sync_later()
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
        """Remove layers that no image, snapshot, lease or holder holds."""
        used = self.images.used_layers()
        for snapshot in self.snapshots.all():
            used.update(snapshot.diff_ids)
        for lease in self._leases:
            used |= lease.layers
        for held in self._holders:
            used.update(held())
        garbage = [layer.diff_id for layer in self.layers.all() if layer.diff_id not in used]
        self.layers.remove(garbage)
        return garbage

    def sync_later(self) -> None:
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
                await loop.run_in_executor(self.threads, sync_files, directory)
            self.layers.set_synced(layers)

    def discard(self, directory: Path) -> None:
        """Scratch of a finished load goes in the background."""
        self._trash.put(directory)

    async def merge_layers(self, layers: Sequence[Digest], lease: Lease) -> Layer:
        """All of them as one layer, lowest first (``--squash``)."""
        paths = [self.layers.path(layer, "layer.tar") for layer in layers]
        return await self.ingest_pieces(lambda: merged_tar(paths, self.limits.max_entries), lease)

    # -- images -------------------------------------------------------------------------------------------------------

    def list_images(self) -> list[Image]:
        return self.images.all()

    def get_image(self, ref: str) -> Image:
        """By ID, unique ID prefix, name[:tag] or name@digest. Raises NotFound."""
        return self.images.get(ref)

    def tag(self, ref: str, name: str) -> None:
        """Raises InvalidParameter for a target with a digest."""
        target = parse_reference(name)
        if target.digest is not None:
            raise TAG_WITH_DIGEST(ref=name)
        self.images.tag(self.images.resolve(ref), target)

    def remove_image(
        self, ref: str, *, force: bool = False, prune: bool = True, in_use: Mapping[str, Iterable[tuple[str, bool]]] |
        None = None
    ) -> list[Deleted]:
        """``in_use``: image ID -> (container ID, running). Rows as DELETE /images answers. Raises Conflict,
        NotFound."""
        image = self.images.resolve(ref)
        view = self._view(in_use or {})
        plan = plan_removal(view, image, self.images.named_by(ref, image), force=force, prune=prune)
        for name in plan.untag:
            self.images.untag(name)
        for gone in plan.delete:
            self.images.delete(gone)
        if plan.delete:
            self.collect()
        return plan.rows

    def _view(self, in_use: Mapping[str, Iterable[tuple[str, bool]]]) -> ImagesView:
        images = self.images.all()
        pinned = {chain for snapshot in self.snapshots.all() for chain in chain_ids(snapshot.diff_ids)}
        return ImagesView(
            {image.id: self.images.refs(image.id) for image in images}, {image.id: image.parent for image in images},
            {image.id: image.chain_ids for image in images}, users_of(in_use), frozenset(pinned),
        )  # fmt: skip

    def prune_images(
        self, *, dangling_only: bool = True, in_use: Mapping[str, Iterable[tuple[str, bool]]] | None = None,
        keep: Callable[[Image], bool] = lambda _image: False,
    ) -> tuple[list[Deleted], int]:  # fmt: skip
        """Remove images that no container uses, nameless ones only by default; (rows, bytes freed). ``keep`` carries
        the caller's filters."""
        before = sum(layer.content_size for layer in self.layers.all())
        users = users_of(in_use or {})
        rows: list[Deleted] = []
        for image in self.list_images():
            known = image.id in self.images
            if not known or users.get(image.id) or keep(image) or (dangling_only and image.repo_tags):
                continue
            if self.images.children(image.id):
                continue
            rows += self.remove_image(image.id, force=True, in_use=in_use)
        return rows, before - sum(layer.content_size for layer in self.layers.all())

    def history(self, ref: str) -> list[HistoryEntry]:
        return history(self.images, self.images.get(ref))

    async def load(self, chunks: AsyncIterator[bytes], progress: Progress = no_progress) -> list[archives.Loaded]:
        """``docker load`` of any archive; names move to what was loaded."""
        return await archives.load(self, chunks, progress)

    def save(self, refs: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """``docker save``; the same bytes each time. Raises NotFound at the first step."""
        return archives.save_images(self, refs)

    def save_unrecorded(self, image: SavedImage) -> AsyncGenerator[bytes, None]:
        """The same archive of an image that only its maker knows; its layers are stored."""
        return archives.stream_saved(self, [image])

    async def import_(
        self, chunks: AsyncIterator[bytes], ref: str = "", *, changes: Iterable[str] = (), message: str = "",
        platform: str = "",
    ) -> Image:  # fmt: skip
        name = parse_reference(ref) if ref else None
        return await archives.import_image(self, chunks, name, changes, message, platform)

    async def commit(
        self, key: str, config: Mapping[str, Any], *, base: str | None = None, ref: str = "", author: str = "",
        comment: str = "", changes: Iterable[str] = (), created_by: str = "",
    ) -> Image:  # fmt: skip
        """An image from a snapshot; ``config`` is the container's Docker config, ``base`` the image it came from."""
        name = parse_reference(ref) if ref else None
        return await archives.commit_snapshot(self, key, config, base, name, author, comment, changes, created_by)

    async def layer_of(
        self, key: str, lease: Lease, *, skip: frozenset[str] = frozenset(), latest_ns: int | None = None
    ) -> Digest:
        """The upper directory of a snapshot, stored as a layer (for the builder). ``skip``: paths left out ("a/b");
        no time in it is after ``latest_ns``."""
        return await archives.layer_of_snapshot(self, key, lease.layers, skip, latest_ns)

    async def ingest_pieces(self, make: Callable[[], Generator[bytes, None, None]], lease: Lease) -> Layer:
        """A layer from a blocking generator of its plain tar, which is made and consumed in a thread."""
        return self.layers.get(await archives.ingest_pieces(self, make, lease.layers))

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def prepare(
        self, key: str, image: str | None = None, *, parent: str | None = None, layers: Sequence[Digest] = (),
        labels: Mapping[str, str] | None = None, transient: bool = False, durable: bool = True, mapped: bool = True,
    ) -> Snapshot:  # fmt: skip
        """A writable snapshot over an image, over bare layers, over another snapshot, or over nothing. A ``transient``
        one does not outlive the process (a step of a build). Unless ``mapped``, its files are not for a user
        namespace."""
        diff_ids = self.images.get(image).diff_ids if image is not None else tuple(layers)
        chosen = dict(labels or {}) if mapped else {**(labels or {}), UNMAPPED: ""}
        return self.snapshots.prepare(key, diff_ids, parent, chosen, transient=transient, durable=durable)

    def mount(self, key: str, *, volatile: bool = False) -> Path:
        """The root file system's path, mounted; idempotent."""
        return self.snapshots.mount(key, volatile=volatile)

    async def unmount(self, key: str) -> None:
        """Idempotent. In a thread: overlayfs syncs its upper file system on the way."""
        await self._run(self.snapshots.unmount, key)

    def remove(self, key: str) -> None:
        """Gone for every caller at once; umount and deletion follow in the background."""
        self.snapshots.remove(key)

    def path(self, key: str) -> Path:
        return self.snapshots.path(key)

    async def changes(self, key: str) -> list[tuple[ChangeKind, str]]:
        """As ``docker diff``."""
        lowers = self.snapshots.lowers(self.snapshots.get(key))
        return await self._run(upper.list_changes, self.snapshots.upper(key), lowers)

    async def usage(self, key: str) -> tuple[int, int]:
        """(bytes, files) that the snapshot itself holds: ``SizeRw``."""
        return await self._run(upper.usage_of, self.snapshots.upper(key))

    def diff(self, key: str) -> AsyncGenerator[bytes, None]:
        """The upper directory as a layer tar."""
        return archives.stream_upper(self, key)

    def export(self, key: str) -> AsyncGenerator[bytes, None]:
        """``docker export``."""
        return archives.export_snapshot(self, key)

    # -- volumes and space --------------------------------------------------------------------------------------------

    async def fill_volume(self, name: str, root: Path, path: str) -> bool:
        """Copy what the mounted root has at ``path`` into an empty volume."""
        return await self._run(copy_up, str(root), path, self.volumes.get(name).mountpoint)

    async def disk_usage(self) -> DiskUsage:
        """For ``docker system df``. Walks volumes and upper directories in a thread."""
        holders: dict[Digest, int] = {}
        for image in self.images.all():
            for diff_id in set(image.diff_ids):
                holders[diff_id] = holders.get(diff_id, 0) + 1
        sizes = {
            image.id: (image.size, sum(
                size for diff_id, size in zip(image.diff_ids, image.layer_sizes, strict=True) if holders[diff_id] > 1
            ))
            for image in self.images.all()
        }  # fmt: skip
        volumes = {volume.name: await self._run(self.volumes.usage, volume.name) for volume in self.volumes.all()}
        snapshots = {snapshot.key: (await self.usage(snapshot.key))[0] for snapshot in self.snapshots.all()}
        of_images = self.images.used_layers()  # the build cache counts its own
        total = sum(layer.content_size for layer in self.layers.all() if layer.diff_id in of_images)
        return DiskUsage(total, sizes, volumes, snapshots)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work, *arguments)


def _lock(root: Path) -> int:
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise STORE_IN_USE(root=str(root)) from None
    return fd
