"""Several layers as one (``--squash``): from their tars, without mounting or extracting anything.

Lowest first; per layer the whiteouts work on what came before it, then its members take their places. What a whiteout
hid may also be in the layers that stay below, so it remains one, and a directory made where one was hidden is opaque. A
hard link whose first name did not survive becomes a file of its own; its data is still in its layer's tar.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from dockyard.oci import tar
from dockyard.oci.layers import AUFS_PREFIX, OPAQUE_MARKER, WHITEOUT_PREFIX
from dockyard.oci.tar import TarHeader, encode_header, padding, read_headers

__all__ = ["merged_tar"]

PIECE = 1 << 20


@dataclass(slots=True)
class _Tree:
    """``members`` by clean path: (number of the tar that has the data, header)."""

    members: dict[bytes, tuple[int, TarHeader]] = field(default_factory=dict)
    hidden: dict[bytes, TarHeader] = field(default_factory=dict)
    opaque: set[bytes] = field(default_factory=set)

    def drop_below(self, path: bytes) -> None:
        prefix = path + b"/" if path else b""
        for kind in (self.members, self.hidden):
            for name in [name for name in kind if name.startswith(prefix)]:
                del kind[name]
        self.opaque = {name for name in self.opaque if not name.startswith(prefix)}

    def hide(self, path: bytes, header: TarHeader) -> None:
        self.members.pop(path, None)
        self.opaque.discard(path)
        self.drop_below(path)
        self.hidden[path] = header

    def put(self, path: bytes, number: int, header: TarHeader) -> None:
        before = self.members.get(path)
        is_dir = header.type == tar.DIR
        if self.hidden.pop(path, None) is not None and is_dir:
            self.opaque.add(path)
        elif before is not None and before[1].type == tar.DIR and not is_dir:
            self.drop_below(path)
            self.opaque.discard(path)
        elif before is not None and before[1].type != tar.DIR and is_dir:
            self.opaque.add(path)
        self.members[path] = (number, header)


def merged_tar(paths: Sequence[Path], limit: int) -> Generator[bytes, None, None]:
    """A blocking generator of the tar of all of ``paths`` (plain layer tars, lowest first)."""
    with ExitStack() as stack:
        files = [stack.enter_context(open(path, "rb")) for path in paths]
        tree = _Tree()
        for number, file in enumerate(files):
            if os.fstat(file.fileno()).st_size:
                data = stack.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
                _apply(tree, number, list(read_headers(data, limit)))
        yield from _write(tree, [file.fileno() for file in files])


def _clean(name: bytes) -> bytes:
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))


def _apply(tree: _Tree, number: int, headers: list[TarHeader]) -> None:
    files: dict[bytes, TarHeader] = {}
    for header in headers:
        path = _clean(header.name)
        parent, _, leaf = path.rpartition(b"/")
        if leaf == OPAQUE_MARKER:
            tree.drop_below(parent)
            tree.opaque.add(parent)
        elif leaf.startswith(WHITEOUT_PREFIX) and not leaf.startswith(AUFS_PREFIX):
            hidden = leaf[len(WHITEOUT_PREFIX) :]
            tree.hide(parent + b"/" + hidden if parent else hidden, header)
    for header in headers:
        path = _clean(header.name)
        if path.rpartition(b"/")[2].startswith(WHITEOUT_PREFIX):
            continue
        if header.type == tar.LINK:
            first = files.get(_clean(header.linkname))
            # The first name's member, under this name: whether it can stay a link is seen when all is known.
            header = first._replace(name=header.name) if first is not None else header
        elif header.type == tar.REG:
            files[path] = header
        tree.put(path, number, header)


def _write(tree: _Tree, files: Sequence[int]) -> Iterator[bytes]:
    written: dict[tuple[int, int], bytes] = {}
    for path in sorted({*tree.members, *tree.hidden, *(p for p in tree.opaque if p not in tree.members)}):
        if path in tree.hidden:
            parent, _, leaf = path.rpartition(b"/")
            name = WHITEOUT_PREFIX + leaf
            yield encode_header(tree.hidden[path]._replace(name=parent + b"/" + name if parent else name))
            continue
        if path in tree.members:
            number, header = tree.members[path]
            yield from _member(path, number, header, files, written)
        if path in tree.opaque:
            yield encode_header(TarHeader((path + b"/" if path else b"") + OPAQUE_MARKER, mode=0))
    yield tar.END_OF_ARCHIVE


def _member(
    path: bytes, number: int, header: TarHeader, files: Sequence[int], written: dict[tuple[int, int], bytes]
) -> Iterator[bytes]:
    if header.type != tar.REG or header.segments is not None:
        yield encode_header(header._replace(name=path + b"/" if header.type == tar.DIR else path))
        return
    place = (number, header.offset)
    first = written.get(place) if header.size else None
    if first is not None:
        yield encode_header(header._replace(name=path, type=tar.LINK, linkname=first, size=0))
        return
    written[place] = path
    yield encode_header(header._replace(name=path))
    offset, left = header.offset, header.size
    while left:
        piece = os.pread(files[number], min(left, PIECE), offset)
        if not piece:
            raise OSError(5, "layer is cut off", os.fsdecode(path))
        offset, left = offset + len(piece), left - len(piece)
        yield piece
    yield padding(header.size)
