"""What this kernel can do for layers, found out by doing it once."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dockyard.kernel import mount as kmount
from dockyard.oci.layers import build_tree
from dockyard.oci.tar import END_OF_ARCHIVE, TarHeader, encode_header, padding, read_headers

from .erofs import build_index
from .errors import NO_OVERLAY
from .idmapped import Mapper


@dataclass(frozen=True, slots=True)
class Capabilities:
    erofs: bool
    erofs_reason: str
    backing_filesystem: str


def probe(directory: Path, mapper: Mapper | None = None) -> Capabilities:
    """Mounts a one-file layer and an overlay over it below ``directory``. Raises Unavailable without overlayfs, or where
    owners are to be mapped and cannot be."""
    scratch = Path(tempfile.mkdtemp(prefix="probe-", dir=directory))
    try:
        reason = _try_erofs(scratch)
        _try_overlay(scratch)
        if mapper is not None:
            (scratch / "mapped").mkdir()
            mapper.probe(scratch / "mapped", f"{scratch}/lower")
        return Capabilities(not reason, reason, filesystem_of(directory))
    finally:
        for row in reversed(kmount.read_mounts(under=str(scratch))):
            kmount.umount(row.target, kmount.UmountFlag.DETACH)
        shutil.rmtree(scratch, ignore_errors=True)


def _try_erofs(scratch: Path) -> str:
    data = b"probe"
    archive = encode_header(TarHeader(b"probe", size=len(data))) + data + padding(len(data)) + END_OF_ARCHIVE
    (scratch / "layer.tar").write_bytes(archive)
    tree = build_tree(read_headers(archive, 1))
    (scratch / "index.erofs").write_bytes(build_index(tree, len(archive), lambda o, n: archive[o : o + n]))
    (scratch / "lower").mkdir()
    try:
        kmount.mount_erofs(f"{scratch}/index.erofs", f"{scratch}/lower", [f"{scratch}/layer.tar"])
        content = (scratch / "lower" / "probe").read_bytes()
    except OSError as error:
        return str(error.strerror)
    return "" if content == data else "reads back wrong content"


def _try_overlay(scratch: Path) -> None:
    for name in ("upper", "work", "merged"):
        (scratch / name).mkdir()
    try:
        kmount.mount_overlay(
            f"{scratch}/merged", [f"{scratch}/lower"], f"{scratch}/upper", f"{scratch}/work"
        )
    except OSError as error:
        raise NO_OVERLAY(directory=str(scratch.parent), cause=str(error.strerror)) from error


def filesystem_of(directory: Path) -> str:
    """Type of the file system a directory lies on ("extfs" for ext4, as dockerd says it)."""
    best = ("", "unknown")
    path = str(directory.resolve())
    for row in kmount.read_mounts():
        target = row.target.rstrip("/")
        if (path == target or path.startswith(target + "/")) and len(target) >= len(best[0]):
            best = (target, row.fstype)
    return "extfs" if best[1] in ("ext2", "ext3", "ext4") else best[1]
