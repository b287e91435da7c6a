"""The project's files as one archive for all containers: read once, below ``app/test``, with its own digest.

Dotfiles are in it (the old tool lost them when it put files back). Sockets and what cannot be read are left out.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from dockyard.errors import Exhausted

TARGET = "/app/test"
PIECE = 1 << 20
MOST_KEPT = 4 << 30
"""Bytes of what a stage hands on."""


class Tree:
    """An open archive. ``digest`` tells its content, modes and names, not times."""

    def __init__(self, file: IO[bytes], digest: str) -> None:
        self._file, self.digest = file, digest

    def pieces(self) -> Iterator[bytes]:
        """The archive from its beginning; several may read at once."""
        position = 0
        while piece := os.pread(self._file.fileno(), PIECE, position):
            position += len(piece)
            yield piece

    def close(self) -> None:
        self._file.close()


class Kept(Tree):
    """What a stage made: an archive as the engine gives it, and the ``folder`` in a container that it belongs into."""

    def __init__(self, file: IO[bytes], digest: str, folder: str) -> None:
        super().__init__(file, digest)
        self.folder = folder

    @classmethod
    def of(cls, path: str, chunks: Iterable[bytes]) -> Kept:
        """Raises Exhausted beyond MOST_KEPT."""
        spool = tempfile.TemporaryFile()  # noqa: SIM115 - handed out open
        digest, size = hashlib.sha256(path.encode()), 0
        for piece in chunks:
            size += len(piece)
            if size > MOST_KEPT:
                spool.close()
                raise Exhausted(f"cannot keep {path}: it is larger than {MOST_KEPT >> 30} GiB")
            digest.update(piece)
            spool.write(piece)
        spool.flush()
        return cls(spool, digest.hexdigest(), f"{TARGET}/{path}".rpartition("/")[0])


def pack(project: Path) -> Tree:
    """Raises OSError when the directory itself cannot be read."""
    os.listdir(project)
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - handed out open
    digest = hashlib.sha256()
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in ("app", TARGET.lstrip("/")):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path in _walk(project):
            _add(tar, path, f"{TARGET.lstrip('/')}/{path.relative_to(project)}", digest)
    spool.flush()
    return Tree(spool, digest.hexdigest())


def _walk(project: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(project):
        folders.sort()
        for name in sorted([*folders, *names]):
            yield Path(folder, name)


def _add(tar: tarfile.TarFile, path: Path, name: str, digest: hashlib._Hash) -> None:
    try:
        entry = tar.gettarinfo(path, name)
        if entry is None or not (entry.isreg() or entry.isdir() or entry.issym()):
            return
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        digest.update(
            f"{name}\0{stat.S_IMODE(entry.mode)}\0{entry.linkname}\0{entry.size}\0".encode("utf-8", "replace")
        )
        if not entry.isreg():
            tar.addfile(entry)
            return
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
            content.seek(0)
            tar.addfile(entry, content)
    except OSError:
        return
