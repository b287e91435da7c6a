"""One layer from a registry into the store: retried, resumed by Range, verified once at the end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from dockyard.errors import Cancelled, DataLoss, DockyardError, InvalidParameter, NotFound, Unavailable
from dockyard.oci import Digest

from .cancel import Cancel
from .errors import BLOB_MISMATCH, BROKEN_STREAM
from .feed import Feed
from .manifests import Descriptor
from .partial import Partial, Partials
from .ports import ImageStore
from .repository import Repository

log = logging.getLogger(__name__)

CHUNK = 1 << 20
"""Bytes held per layer while streaming; larger reads gain nothing on loopback."""
RETRY_DELAY = 5
"""Seconds times the number of failed attempts in a row, as dockerd waits (distribution/xfer/download.go)."""
MIRROR_ATTEMPTS = 2
"""Where another source can go on, waiting for this one helps nobody."""
SHORT_ID = 12


def short_id(digest: Digest) -> str:
    return digest.partition(":")[2][:SHORT_ID]


class BlobReader:
    """A blob as a file to read from its first byte to its last, whatever happens to the connection.

    ``sources`` are tried in order; a later one goes on at the byte where an earlier one failed.
    """

    def __init__(
        self, sources: Sequence[Repository], blob: Descriptor, feed: Feed, cancel: Cancel, attempts: int,
        partial: Partial | None = None,
    ) -> None:  # fmt: skip
        self._sources = list(sources)
        self._blob = blob
        self._feed = feed
        self._cancel = cancel
        self._attempts = attempts
        self._partial = partial
        self._id = short_id(blob.digest)
        self._offset = 0
        self._failed = 0
        self._response: BaseHTTPResponse | None = None

    def read(self, size: int = -1, /) -> bytes:
        """b"" at the end. Raises NotFound or Unavailable if no source can go on, DataLoss if one sends too much."""
        while True:
            self._cancel.check()
            try:
                data = self._some(CHUNK if size < 0 else min(size, CHUNK))
            except (ConnectionError, Unavailable, NotFound) as error:
                self.close()
                self._cancel.check()
                self._next_try(error)
                continue
            if data:
                self._failed = 0
                self._offset += len(data)
                self._feed.count("Downloading", self._id, self._offset, self._blob.size)
                if self._offset > self._blob.size:
                    raise BLOB_MISMATCH(digest=self._blob.digest, size=self._blob.size)
            return data

    def close(self) -> None:
        """Give the connection back if the blob was read whole, else close it."""
        if self._response is not None:
            if self._offset != self._blob.size:
                self._response.close()
            self._response.release_conn()
            self._response = None

    def _some(self, size: int) -> bytes:
        if self._partial is not None and (kept := self._partial.read(size)):
            return kept
        if self._response is None:
            if self._offset == self._blob.size > 0:
                return b""
            self._response = self._open()
        try:
            with self._cancel.reading(self._response):
                data = self._response.read(size)
        except (HTTPError, OSError) as error:
            raise ConnectionError(str(error)) from error
        if not data and self._offset < self._blob.size:
            raise ConnectionError(f"unexpected EOF after {self._offset} of {self._blob.size} bytes")
        if self._partial is not None and data:
            self._partial.write(data)
        return data

    def _open(self) -> BaseHTTPResponse:
        response = self._sources[0].open_blob(self._blob.digest, self._offset)
        skip = 0 if response.status == 206 else self._offset
        while skip and (data := response.read(min(skip, CHUNK))):
            skip -= len(data)
        return response

    def _next_try(self, error: Exception) -> None:
        """Wait for another try, or move on to the next source, or give up."""
        self._failed += 1
        attempts = self._attempts if len(self._sources) == 1 else MIRROR_ATTEMPTS
        if self._failed < attempts and not isinstance(error, NotFound):
            for left in range(RETRY_DELAY * (self._failed - 1), 0, -1):
                plural = "s" if left != 1 else ""
                self._feed.state(f"Retrying in {left} second{plural}", self._id)
                self._cancel.wait(1.0)
        elif len(self._sources) > 1:
            del self._sources[0]
            self._failed = 0
        elif isinstance(error, DockyardError):
            raise error
        else:
            raise BROKEN_STREAM(
                digest=self._blob.digest, host=self._sources[0].session.endpoint.host, offset=self._offset,
                size=self._blob.size, cause=error,
            ) from error  # fmt: skip


def download(
    sources: Sequence[Repository], layer: Descriptor, diff_id: Digest, store: ImageStore, feed: Feed, cancel: Cancel,
    attempts: int, partials: Partials,
) -> None:  # fmt: skip
    """One layer into the store. A source with wrong bytes (a bad mirror) does not stop it while there is another; what
    an earlier pull left may be wrong too, and is then fetched from the first byte."""
    place = 0
    while True:
        partial = partials.open(layer)
        resumed = partial is not None and partial.size > 0
        reader = BlobReader(sources[place:], layer, feed, cancel, attempts, partial)
        try:
            store.ingest_layer(reader, layer.digest, layer.size, diff_id)
        except (DataLoss, InvalidParameter) as error:
            if partial is not None:
                partial.drop()
            if not resumed and place == len(sources) - 1:
                raise
            log.warning("%s from %s is damaged: %s", layer.digest, sources[place].session.endpoint.host, error)
            place += not resumed
        else:
            if partial is not None:
                partial.drop()
            feed.state("Verifying Checksum", short_id(layer.digest))
            feed.state("Download complete", short_id(layer.digest))
            return
        finally:
            reader.close()
            if partial is not None:
                partial.close()


class Downloads:
    """All layer downloads of the daemon: bounded, and each layer is fetched once however many pulls want it."""

    def __init__(self, workers: int, partials: Partials | None = None) -> None:
        self.partials = partials or Partials(None)
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
