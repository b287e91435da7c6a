"""A build context as a tar stream: what .dockerignore leaves of a directory, with the Dockerfile from wherever it is."""

from __future__ import annotations

import io
import os
import secrets
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dockyard.build.dockerfile.patterns import Patterns, read_ignore_file
from dockyard.compose.errors import CANNOT_READ


def pack(context: str, dockerfile: str, inline: str = "") -> tuple[IO[bytes], str]:
    """An open file with the tar, at its beginning, and the Dockerfile's name in it. Raises NotFound.

    ``dockerfile`` may lie outside the context, then it goes in under a name of its own, as ``inline`` text does.
    """
    root = Path(context)
    if not root.is_dir():
        raise CANNOT_READ(path=context, cause="the build context is not a directory")
    path = root / dockerfile
    relative = os.path.relpath(path, root)
    outside = bool(inline) or relative.startswith("..")
    if not inline and not path.is_file():
        raise CANNOT_READ(path=str(path), cause="no such Dockerfile")
    ignored = _ignored(root, path)
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - handed out open
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in _walk(root, ignored, {relative, ".dockerignore"}):
            tar.add(root / name, name, recursive=False, filter=_anonymous)
        if outside:
            relative = f".dockerfile.{secrets.token_hex(8)}"
            text = inline.encode() if inline else path.read_bytes()
            entry = tarfile.TarInfo(relative)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    spool.seek(0)
    return spool, relative


def _ignored(root: Path, dockerfile: Path) -> Patterns:
    for path in (Path(f"{dockerfile}.dockerignore"), root / ".dockerignore"):
        if path.is_file():
            try:
                return Patterns(read_ignore_file(path.read_text(encoding="utf-8")))
            except ValueError as wrong:
                raise CANNOT_READ(path=str(path), cause=str(wrong)) from None
    return Patterns(())


def _walk(root: Path, ignored: Patterns, needed: set[str]) -> Iterator[str]:
    """Names below ``root`` that are not ignored; a directory that is ignored is entered only where a ``!`` may save
    something in it."""
    for folder, directories, files in os.walk(root):
        here = os.path.relpath(folder, root)
        prefix = "" if here == "." else here + "/"
        for name in sorted([*directories, *files]):
            path = prefix + name
            if path in needed or not ignored.match(path):
                yield path
        links = {name for name in directories if os.path.islink(os.path.join(folder, name))}
        directories[:] = sorted(
            name for name in directories
            if name not in links and (not ignored.match(prefix + name) or ignored.has_negation)
        )  # fmt: skip


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The user's own IDs are nobody's business in an image; sockets are no files."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
