"""Layers for containers in a user namespace: nothing is copied and nothing is owned anew (``userns-remap``).

Files keep on the disk the owners that the image gives them. A container's overlay stands on *idmapped* copies of its
directories' mounts (mount_setattr(2), overlayfs since Linux 5.19, EROFS too), through which they belong to the
namespace's ids; what the container writes comes to the upper directory by the same way, back. So ``diff``, ``commit`` and
builds read an upper directory as it is, and an image is stored once for both kinds of container.

The host's own root (the engine that makes a mount point, overlayfs' work directory) has no id in the namespace, but must
be able to create: the map of the *mounts* has one line more than that of the containers, the first free id for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dockyard.kernel import mount as kmount
from dockyard.kernel import userns
from dockyard.model.idmap import IdMaps, IdRange

from .errors import NO_IDMAPPED


class Mapper:
    """Owned by the event loop's thread. The mounts that it attaches last for one call."""

    def __init__(self, directory: Path, ids: IdMaps) -> None:
        self.ids = ids
        self._directory = directory
        directory.mkdir(mode=0o711, exist_ok=True)
        for row in reversed(kmount.read_mounts(under=str(directory))):  # of an engine that was killed
            kmount.umount(row.target, kmount.UmountFlag.DETACH)
        self._userns = userns.create(_lines(ids.uids), _lines(ids.gids))

    @contextmanager
    def attached(self, paths: Sequence[str]) -> Iterator[list[str]]:
        """The same directories through the map, for who mounts an overlay over them: it keeps copies of its own."""
        places: list[str] = []
        try:
            for number, path in enumerate(paths):
                place = f"{self._directory}/{number}"
                os.makedirs(place, exist_ok=True)
                copy = kmount.open_tree(path)
                try:
                    kmount.mount_setattr(copy, attr_set=kmount.MOUNT_ATTR_IDMAP, userns_fd=self._userns)
                    kmount.move_mount(copy, place)
                finally:
                    os.close(copy)
                places.append(place)
            yield places
        finally:
            for place in places:
                kmount.umount(place, kmount.UmountFlag.DETACH)

    def probe(self, scratch: Path, lower: str) -> None:
        """An overlay over ``lower`` and a file written through it. Raises Unavailable where this kernel or the file
        system below cannot do it."""
        for name in ("upper", "work", "merged"):
            (scratch / name).mkdir()
        try:
            with self.attached([lower, str(scratch)]) as (below, own):
                kmount.mount_overlay(f"{scratch}/merged", [below], f"{own}/upper", f"{own}/work")
            try:
                written = scratch / "merged" / "probe-ids"
                written.touch()
                os.chown(written, *self.ids.root)
                seen = os.stat(scratch / "upper" / "probe-ids")
            finally:
                kmount.umount(f"{scratch}/merged", kmount.UmountFlag.DETACH)
        except OSError as error:
            raise NO_IDMAPPED(directory=str(scratch.parent), cause=str(error.strerror or error)) from error
        if (seen.st_uid, seen.st_gid) != (0, 0):
            raise NO_IDMAPPED(directory=str(scratch.parent), cause="the kernel does not map owners")

    def close(self) -> None:
        os.close(self._userns)


def _lines(ranges: Sequence[IdRange]) -> list[tuple[int, int, int]]:
    free = max(each.container + each.size for each in ranges)
    return [*((each.container, each.host, each.size) for each in ranges), (free, 0, 1)]
