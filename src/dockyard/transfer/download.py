"""One layer from a registry into the store: retried, resumed by Range, verified once at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from dockyard.errors import Cancelled, DataLoss, DockyardError, NotFound, Unavailable
from dockyard.oci import Digest

from .cancel import Cancel
from .errors import BLOB_MISMATCH, BROKEN_STREAM
from .feed import Feed
from .manifests import Descriptor
from .ports import BlobWriter, ImageStore
from .repository import Repository, read_chunks

CHUNK = 1 << 20
"""Bytes held per layer while streaming; larger reads gain nothing on loopback."""
RETRY_DELAY = 5
"""Seconds times the number of failed attempts in a row, as dockerd waits (distribution/xfer/download.go)."""
SHORT_ID = 12


def short_id(digest: Digest) -> str:
    return digest.partition(":")[2][:SHORT_ID]


class Download:
    """``sources`` are tried in order; a later one goes on at the byte where an earlier one failed."""

    def __init__(
        self, sources: Sequence[Repository], layer: Descriptor, diff_id: Digest, store: ImageStore, feed: Feed,
        cancel: Cancel, attempts: int,
    ) -> None:  # fmt: skip
        self._sources = sources
        self._layer = layer
        self._diff_id = diff_id
        self._store = store
        self._feed = feed
        self._cancel = cancel
        self._attempts = attempts
        self._id = short_id(layer.digest)
        self._offset = 0

    def run(self) -> None:
        """Raises DataLoss if no source has the right bytes, Unavailable if none can be read."""
        for place, source in enumerate(self._sources):
            writer = self._store.ingest_layer(self._layer.digest, self._layer.size, self._diff_id)
            self._offset = 0
            try:
                self._fill(writer, self._sources[place:])
                self._feed.state("Verifying Checksum", self._id)
                writer.commit()
            except DataLoss:
                writer.abort()
                if source is self._sources[-1]:
                    raise
                continue  # a mirror with wrong bytes must not stop the pull
            except BaseException:
                writer.abort()
                raise
            self._feed.state("Download complete", self._id)
            return

    def _fill(self, writer: BlobWriter, sources: Sequence[Repository]) -> None:
        for source in sources:
            try:
                self._fill_from(writer, source)
                return
            except (NotFound, Unavailable):
                if source is sources[-1]:
                    raise

    def _fill_from(self, writer: BlobWriter, source: Repository) -> None:
        failed = 0
        while True:
            before = self._offset
            try:
                self._stream(writer, source)
                return
            except (ConnectionError, Unavailable) as error:
                self._cancel.check()
                failed = 1 if self._offset > before else failed + 1
                if failed >= self._attempts:
                    raise self._broken(source, error) from error
                self._pause(failed)

    def _stream(self, writer: BlobWriter, source: Repository) -> None:
        size = self._layer.size
        if self._offset == size > 0:
            return
        response = source.open_blob(self._layer.digest, self._offset)
        skip = 0 if response.status == 206 else self._offset
        try:
            with self._cancel.reading(response):
                for data in read_chunks(response, CHUNK):
                    self._cancel.check()
                    if skip:
                        data, skip = data[skip:], max(0, skip - len(data))
                    if self._offset + len(data) > size:
                        raise BLOB_MISMATCH(digest=self._layer.digest, size=size)
                    writer.write(data)
                    self._offset += len(data)
                    self._feed.count("Downloading", self._id, self._offset, size)
        except BaseException:
            response.close()
            raise
        response.release_conn()
        if self._offset < size:
            raise ConnectionError(f"unexpected EOF after {self._offset} of {size} bytes")

    def _pause(self, failed: int) -> None:
        for left in range(RETRY_DELAY * (failed - 1), 0, -1):
            plural = "s" if left != 1 else ""
            self._feed.state(f"Retrying in {left} second{plural}", self._id)
            self._cancel.wait(1.0)

    def _broken(self, source: Repository, error: Exception) -> DockyardError:
        if isinstance(error, DockyardError):
            return error
        return BROKEN_STREAM(
            digest=self._layer.digest, host=source.session.endpoint.host, offset=self._offset,
            size=self._layer.size, cause=error,
        )  # fmt: skip


class Downloads:
    """All layer downloads of the daemon: bounded, and each layer is fetched once however many pulls want it."""

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="download")
        self._lock = threading.Lock()
        self._running: dict[Digest, Future[None]] = {}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def start(self, key: Digest, work: Callable[[], None]) -> tuple[Future[None], bool]:
        """(the running download of ``key``, whether it is ours)."""
        with self._lock:
            if (running := self._running.get(key)) is not None:
                return running, False
            future = self._pool.submit(work)
            self._running[key] = future
        future.add_done_callback(lambda _: self._forget(key, future))
        return future, True

    def fetch(self, key: Digest, work: Callable[[], None], cancel: Cancel, future: Future[None]) -> None:
        """Wait for ``future``; if it belonged to a pull that was cancelled, do the work again as our own."""
        while True:
            try:
                future.result()
                return
            except Cancelled:
                cancel.check()
                future, _ = self.start(key, work)

    def _forget(self, key: Digest, future: Future[None]) -> None:
        with self._lock:
            if self._running.get(key) is future:
                del self._running[key]


