"""Downloads that did not end: kept on the disk, so that the next pull goes on where this one was cut.

::

    ROOT/partial/<hex of the digest>      the blob's bytes as they came, from the first on

The store cannot keep them (it holds the plain tar, and neither a decompressor nor a hash goes on in the middle), so the
compressed bytes are written a second time while they pass. Whatever is here is verified with the rest: a blob that does not
fit its digest is thrown away and fetched from the first byte. Small blobs are not worth it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from dockyard.oci import hex_of

from .manifests import Descriptor

LEAST = 4 << 20
"""Bytes; smaller blobs are fetched again."""
KEPT = 24 * 3600.0
"""Seconds that nobody needs to come back for a download, as containerd's leases."""


class Partial:
    """One blob's file: first ``read`` to its end, then ``write`` behind it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self.size = os.fstat(self._fd).st_size
        """Bytes that were there already."""
        self._at = 0

    def read(self, size: int) -> bytes:
        if self._at >= self.size:
            return b""
        data = os.pread(self._fd, min(size, self.size - self._at), self._at)
        self._at += len(data)
        return data

    def write(self, data: bytes) -> None:
        """Never fails: without space for it the download goes on, it is only not kept."""
        if self._fd < 0:
            return
        try:
            self._at += os.pwrite(self._fd, data, self._at)
        except OSError:
            self.drop()

    def drop(self) -> None:
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Partials:
    """The folder; None keeps nothing."""

    def __init__(self, folder: Path | None, *, least: int = LEAST) -> None:
        self._folder = folder
        self._least = least
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep(folder)

    def _sweep(self, folder: Path) -> None:
        oldest = time.time() - KEPT
        for entry in folder.iterdir():
            if entry.stat().st_mtime < oldest:
                entry.unlink(missing_ok=True)

    def open(self, blob: Descriptor) -> Partial | None:
        if self._folder is None or blob.size < self._least:
            return None
        try:
            return Partial(self._folder / hex_of(blob.digest))
        except OSError:
            return None
