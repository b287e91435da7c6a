"""Removal off the critical path: a rename into trash/ now, the deleting in a background thread, the rest at the next
open."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dockyard.kernel import mount as kmount
from dockyard.kernel import safefs

log = logging.getLogger(__name__)


class Trash:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pool = ThreadPoolExecutor(1, "dockyard-trash")
        self._lock = threading.Lock()
        self._closed = False

    def put(self, path: Path) -> None:
        """``path`` is gone when this returns. It must lie on the file system of the trash; mounts below it go along and
        are undone in the background (umount of overlayfs syncs its upper file system, which can take seconds)."""
        target = self._directory / f"{path.name}.{secrets.token_hex(6)}"
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._delete(path.parent, path.name)  # no room for one more name in the trash
            return
        self._delete_later(target.name)

    def sweep(self) -> None:
        for name in os.listdir(self._directory):
            self._delete_later(name)

    def _delete_later(self, name: str) -> None:
        with self._lock:
            if not self._closed:
                self._pool.submit(self._delete, self._directory, name)

    @staticmethod
    def _delete(directory: Path, name: str) -> None:
        try:
            for row in reversed(kmount.read_mounts(under=f"{directory}/{name}")):
                kmount.umount(row.target, kmount.UmountFlag.DETACH)
            with safefs.root_fd(directory.as_posix()) as parent:
                safefs.remove_tree(parent, name, missing_ok=True)
        except OSError as error:
            log.warning("cannot delete %s/%s: %s; tried again at the next start", directory, name, error)

    def close(self) -> None:
        """Wait for what is queued."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True)
