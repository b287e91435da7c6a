"""The EROFS index writer: a layer becomes mountable without being extracted.

A read-only file system of metadata only, whose regular files point into the untouched layer tar (its "extra device").
512-byte blocks, because that is how tar aligns data. Format: Linux Documentation/filesystems/erofs.rst,
fs/erofs/erofs_fs.h.

::

    0     1024      1152          1280   1536                       aligned 512
    | nil | super   | device slot |  nil | inodes ...              | directory blocks, copied data |
                                         | extended inode (64)     |
                                         | xattr header + entries  |
                                         | chunk index (8) | short symlink target

Node ids are byte offset / 32; the root is the first. Every regular file is one chunk {device 1, block of the tar}:
chunk size 2^31 blocks, so one index entry does for any length. Only sparse members are copied into the index (device
0), chunked, holes left out. Directories and long symlinks are plain blocks after the inodes.

Measured here: see docs/image-numbers.md. ``mkfs.erofs`` of Debian 12 (1.5) cannot read tar, which is why this exists.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass

from dockyard.oci.layers import LayerTree, Node, iter_dirs

from .errors import LAYER_TOO_BIG

BLOCK = 512
MAGIC = 0xE0F5E1E2
SUPER_OFFSET, DEVICE_OFFSET, META_OFFSET = 1024, 1152, 1536
FEATURE_CHUNKED, FEATURE_DEVICES, FEATURE_MTIME = 0x4, 0x8, 0x2
FLAT_PLAIN, FLAT_INLINE, CHUNK_BASED = 0, 2, 4
CHUNK_INDEXES, CHUNK_BITS = 0x20, 31
HOLE = 0xFFFFFFFF
SPARSE_CHUNK_BITS = 3  # 4 KiB
MAX_SPARSE_CHUNKS = 1 << 18
MAX_INDEX = 1 << 34

_INODE = struct.Struct("<HHHHQIIIIqIIQQ")
_DIRENT = struct.Struct("<QHBB")
_CHUNK = struct.Struct("<HHI")
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24x")
_XATTR_PREFIXES = (
    ("user.", 1), ("system.posix_acl_access", 2), ("system.posix_acl_default", 3), ("trusted.", 4), ("security.", 6),
)  # fmt: skip
_FILE_TYPES = {
    stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}  # fmt: skip

ReadAt = Callable[[int, int], bytes]  # (offset in the tar, length)


@dataclass(slots=True)
class _Placed:
    """What the second pass needs of an inode: where it is and what follows it."""

    node: Node
    offset: int
    xattrs: bytes
    layout: int
    chunks: bytes = b""
    u: int = 0


def build_index(tree: LayerTree, tar_size: int, read_at: ReadAt) -> bytes:
    """The whole index. Raises Exhausted where it cannot be described (2 TiB of tar, 16 GiB of index)."""
    if tar_size >= BLOCK << 32:
        raise LAYER_TOO_BIG(size=tar_size)
    return _Writer(read_at).write(tree, tar_size)


class _Writer:
    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._nids: dict[int, int] = {}  # id(node) -> byte offset
        self._placed: list[_Placed] = []
        self._end = META_OFFSET
        self._blocks: list[bytes] = []
        self._block_count = 0
        self._xattr_cache: dict[tuple[tuple[str, bytes], ...], bytes] = {}

    def write(self, tree: LayerTree, tar_size: int) -> bytes:
        self._place_all(tree.root)
        first = -(-self._end // BLOCK)
        meta = bytearray(first * BLOCK)
        for placed in self._placed:
            self._emit(placed, meta, first)
        total = first + self._block_count
        meta[SUPER_OFFSET : SUPER_OFFSET + _SUPER.size] = _super_block(len(self._placed), total)
        meta[DEVICE_OFFSET : DEVICE_OFFSET + 72] = struct.pack("<64sII", b"layer.tar", -(-tar_size // BLOCK), 0)
        body = b"".join([bytes(meta), *self._blocks])
        return body + bytes(-len(body) % 4096)

    def _place_all(self, root: Node) -> None:
        self._place(root)
        for folder in iter_dirs(root):
            assert folder.children is not None
            for child in folder.children.values():
                if id(child) not in self._nids:
                    self._place(child)

    def _place(self, node: Node) -> None:
        xattrs = self._xattrs(node.xattrs) if node.xattrs else b""
        kind, layout, tail = stat.S_IFMT(node.mode), FLAT_PLAIN, 0
        if kind == stat.S_IFREG and node.size:
            layout = CHUNK_BASED
            tail = 8 * (1 if node.segments is None else _sparse_layout(node)[1])
        elif kind == stat.S_IFLNK and 64 + len(xattrs) + len(node.target) <= BLOCK:
            layout, tail = FLAT_INLINE, len(node.target)
        length = 64 + len(xattrs)
        length = (-(-length // 8) * 8 if layout == CHUNK_BASED else length) + tail
        offset = self._end
        if layout == FLAT_INLINE and offset // BLOCK != (offset + length - 1) // BLOCK:
            offset = -(-offset // BLOCK) * BLOCK  # inline data must not cross a block
        self._nids[id(node)] = offset
        self._placed.append(_Placed(node, offset, xattrs, layout))
        self._end = -(-(offset + length) // 32) * 32
        if self._end > MAX_INDEX:
            raise LAYER_TOO_BIG(size=self._end)

    def _emit(self, placed: _Placed, meta: bytearray, first: int) -> None:
        node, offset = placed.node, placed.offset
        kind, size, u, nlink = stat.S_IFMT(node.mode), node.size, 0, max(node.nlink, 1)
        tail, at = b"", offset + 64 + len(placed.xattrs)
        if placed.layout == CHUNK_BASED:
            at = -(-at // 8) * 8
            tail, u = self._file(node, first)
        elif kind == stat.S_IFDIR:
            data, size, nlink = self._directory(node)
            u = self._add_blocks(data, first)
        elif kind == stat.S_IFLNK:
            size = len(node.target)
            if placed.layout == FLAT_INLINE:
                tail = node.target
            else:
                u = self._add_blocks(node.target + bytes(-size % BLOCK), first)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            u, size = (node.minor & 0xFF) | node.major << 8 | (node.minor & ~0xFF) << 12, 0
        seconds, nanoseconds = divmod(node.mtime_ns, 1_000_000_000)
        icount = (len(placed.xattrs) - 12) // 4 + 1 if placed.xattrs else 0
        _INODE.pack_into(
            meta, offset, 1 | placed.layout << 1, icount, node.mode, 0, size, u, offset // 32 & 0xFFFFFFFF,
            node.uid, node.gid, seconds, nanoseconds, nlink, 0, 0,
        )  # fmt: skip
        if placed.xattrs:
            meta[offset + 64 : offset + 64 + len(placed.xattrs)] = placed.xattrs
        if tail:
            meta[at : at + len(tail)] = tail

    def _add_blocks(self, data: bytes, first: int) -> int:
        block = first + self._block_count
        self._blocks.append(data)
        self._block_count += len(data) // BLOCK
        return block

    def _file(self, node: Node, first: int) -> tuple[bytes, int]:
        if node.segments is None:
            return _CHUNK.pack(0, 1, node.offset // BLOCK), CHUNK_INDEXES | CHUNK_BITS
        bits, count = _sparse_layout(node)
        chunk = BLOCK << bits
        filled: dict[int, bytearray] = {}
        for offset, source, length in node.segments:
            while length:
                number, inside = divmod(offset, chunk)
                step = min(length, chunk - inside)
                filled.setdefault(number, bytearray(chunk))[inside : inside + step] = self._read_at(source, step)
                offset, source, length = offset + step, source + step, length - step
        index = bytearray()
        for number in range(count):
            data = filled.get(number)
            index += _CHUNK.pack(0, 0, self._add_blocks(bytes(data), first) if data else HOLE)
        return bytes(index), CHUNK_INDEXES | bits

    def _directory(self, node: Node) -> tuple[bytes, int, int]:
        """(blocks, size, nlink). Names are sorted over the whole directory; each block is entries, then their names."""
        assert node.children is not None
        nids, here = self._nids, self._nids[id(node)] // 32
        rows = [(b".", here, 2), (b"..", here, 2)]  # ".." is never asked: the VFS walks up by itself
        subdirs = 0
        for name, child in node.children.items():
            kind = _FILE_TYPES[stat.S_IFMT(child.mode)]
            subdirs += kind == 2
            rows.append((name, nids[id(child)] // 32, kind))
        rows.sort()
        blocks: list[bytes] = []
        batch: list[tuple[bytes, int, int]] = []
        used = 0
        for row in rows:
            need = 12 + len(row[0])
            if used + need > BLOCK:
                blocks.append(_dir_block(batch))
                batch, used = [], 0
            batch.append(row)
            used += need
        blocks.append(_dir_block(batch))
        return b"".join(blocks), (len(blocks) - 1) * BLOCK + used, 2 + subdirs

    def _xattrs(self, xattrs: dict[str, bytes]) -> bytes:
        key = tuple(sorted(xattrs.items()))
        if key not in self._xattr_cache:
            self._xattr_cache[key] = _encode_xattrs(key)
        return self._xattr_cache[key]


def _sparse_layout(node: Node) -> tuple[int, int]:
    """(chunk bits, chunks): chunks grow with the file, so that a terabyte of holes stays a small table."""
    bits = SPARSE_CHUNK_BITS
    while (count := -(-node.size // (BLOCK << bits))) > MAX_SPARSE_CHUNKS:
        bits += 1
    if bits > 16 and node.segments and len(node.segments) << (bits + 9) > MAX_INDEX:
        raise LAYER_TOO_BIG(size=node.size)
    return bits, count


def _dir_block(rows: list[tuple[bytes, int, int]]) -> bytes:
    position = 12 * len(rows)
    entries = []
    for name, nid, kind in rows:
        entries.append(_DIRENT.pack(nid, position, kind, 0))
        position += len(name)
    entries += [name for name, _, _ in rows]
    return b"".join(entries).ljust(BLOCK, b"\0")


def _encode_xattrs(items: tuple[tuple[str, bytes], ...]) -> bytes:
    body = bytearray(12)
    for name, value in items:
        for prefix, index in _XATTR_PREFIXES:
            if name.startswith(prefix):
                rest = name[len(prefix) :].encode("utf-8", "surrogateescape")
                body += struct.pack("<BBH", len(rest), index, len(value)) + rest + value
                body += bytes(-len(body) % 4)
                break
    return bytes(body) if len(body) > 12 else b""


def _super_block(inodes: int, blocks: int) -> bytes:
    return _SUPER.pack(
        MAGIC, 0, FEATURE_MTIME, 9, 0, META_OFFSET // 32, inodes, 0, 0, blocks, 0, 0, b"", b"",
        FEATURE_CHUNKED | FEATURE_DEVICES, 0, 1, DEVICE_OFFSET // 128, 0, 0, 0, 0,
    )  # fmt: skip
