"""The build context as the command line sends it: a tar of the directory, less what .dockerignore hides.

Owners are not sent (all is root's, as docker's CLI has it), times and modes are. A Dockerfile from outside of the directory
or from standard input travels under a name that no file has.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dockyard.build.dockerfile.patterns import Patterns, read_ignore_file
from dockyard.errors import Code, InvalidParameter, NotFound
from dockyard.oci.tar import DIR, END_OF_ARCHIVE, FIFO, REG, SYMLINK, TarHeader, encode_header, padding

__all__ = ["LocalContext", "open_context"]

BAD_IGNORE = Code("DY-CLI-020", InvalidParameter, "cannot read {path}: {cause}")
NO_CONTEXT = Code(
    "DY-CLI-021", NotFound, "unable to prepare context: path {path!r} not found", hint="dockyard build . builds this directory"
)
NO_DOCKERFILE = Code(
    "DY-CLI-022", NotFound, "unable to prepare context: unable to evaluate symlinks in Dockerfile path: {path}: no such file",
    hint="dockyard build -f FILE names another",
)  # fmt: skip
CHANGED = Code("DY-CLI-023", InvalidParameter, "{path} changed while it was sent")
PIECE = 1 << 20
SENT = 256 << 10
IGNORE_FILE = ".dockerignore"
_KINDS = {stat.S_IFREG: REG, stat.S_IFDIR: DIR, stat.S_IFLNK: SYMLINK, stat.S_IFIFO: FIFO}


@dataclass(frozen=True, slots=True)
class LocalContext:
    """``dockerfile`` is its name in the context, ``text`` its content, ``extra`` whether it must be sent besides."""

    root: Path
    dockerfile: str
    text: bytes
    extra: bool
    ignore: Patterns
    always: frozenset[str] = field(default=frozenset())
    """Sent even where ignored: the engine reads them."""

    def tar(self) -> Iterator[bytes]:
        """In pieces of about a quarter of a megabyte: sent one by one, the members of 20,000 files are 60,000 calls."""
        gathered = bytearray()
        for piece in self._members():
            gathered += piece
            if len(gathered) >= SENT:
                yield bytes(gathered)
                gathered.clear()
        yield bytes(gathered)

    def _members(self) -> Iterator[bytes]:
        if self.extra:
            yield encode_header(TarHeader(self.dockerfile.encode(), size=len(self.text), mode=0o600))
            yield self.text + padding(len(self.text))
        yield from self._folder("")
        yield END_OF_ARCHIVE

    def _folder(self, below: str) -> Iterator[bytes]:
        with os.scandir(self.root / below) as found:
            children = sorted(found, key=lambda child: child.name)
        for child in children:
            path = f"{below}/{child.name}" if below else child.name
            hidden = bool(self.ignore) and path not in self.always and self.ignore.match(path)
            is_dir = child.is_dir(follow_symlinks=False)
            if hidden and not (is_dir and (self.ignore.has_negation or any(a.startswith(path + "/") for a in self.always))):
                continue
            if not hidden:
                yield from _member(path, child)
            if is_dir:
                yield from self._folder(path)


def _member(path: str, child: os.DirEntry[str]) -> Iterator[bytes]:
    info = child.stat(follow_symlinks=False)
    kind = _KINDS.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        return  # sockets and devices are nothing to copy
    name = os.fsencode(path + "/" if kind == DIR else path)
    link = os.fsencode(os.readlink(child.path)) if kind == SYMLINK else b""
    size = info.st_size if kind == REG else 0
    yield encode_header(TarHeader(name, kind, stat.S_IMODE(info.st_mode), 0, 0, size, info.st_mtime_ns, link))
    if size:
        yield from _content(child.path, size)


def _content(path: str, size: int) -> Iterator[bytes]:
    left = size
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while left and (piece := os.read(fd, min(left, PIECE))):
            left -= len(piece)
            yield piece
    finally:
        os.close(fd)
    if left:
        raise CHANGED(path=path)
    yield padding(size)


def open_context(directory: str, dockerfile: str, stdin: bytes | None = None) -> LocalContext:
    """``stdin``: the Dockerfile, where it comes from there. Raises NotFound, InvalidParameter."""
    root = Path(directory)
    if not root.is_dir():
        raise NO_CONTEXT(path=directory)
    if stdin is not None:
        return LocalContext(root, _spare_name(), stdin, True, _ignored(root, None))
    path = Path(dockerfile) if dockerfile else root / "Dockerfile"
    try:
        text = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NO_DOCKERFILE(path=path) from None
    try:
        inside = str(path.resolve().relative_to(root.resolve()))
    except ValueError:
        return LocalContext(root, _spare_name(), text, True, _ignored(root, path))
    always = frozenset({inside, IGNORE_FILE, f"{inside}{IGNORE_FILE}"})
    return LocalContext(root, inside, text, False, _ignored(root, path), always)


def _spare_name() -> str:
    return f".dockerfile.{secrets.token_hex(10)}"


def _ignored(root: Path, dockerfile: Path | None) -> Patterns:
    candidates = [Path(f"{dockerfile}{IGNORE_FILE}")] if dockerfile is not None else []
    for path in (*candidates, root / IGNORE_FILE):
        try:
            return Patterns(read_ignore_file(path.read_text("utf-8", "replace")))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except ValueError as error:
            raise BAD_IGNORE(path=path, cause=error) from None
    return Patterns(())
