"""Layer rules: from the members of one layer tar to the tree that overlayfs must see.

The tree is built in memory and touches nothing, so a hostile name can at worst be refused. Rules (image-spec layer.md,
and what Docker does where that is silent):

- Names are cleaned lexically; one that still climbs out of the root is an error. A parent that is a symlink *of this
  layer* is followed inside the root, as GNU tar would; the last component never is.
- The last of several members with one name wins; a directory over a directory only changes its metadata.
- ``.wh.NAME`` hides NAME of lower layers, whatever its place in the tar: a directory of that name in this same layer
  becomes opaque, a file simply replaces it. ``.wh..wh..opq`` makes its directory opaque. Inside an opaque directory
  plain whiteouts are dropped, because overlayfs would list them (umoci tar_extract.go). Other ``.wh..wh.`` names are
  leavings of AUFS: kept only as targets of hard links.
- ``trusted.overlay.*`` that arrives in a layer would steer overlayfs: it is stored under ``trusted.overlay.overlay.*``,
  which overlayfs shows as the former (kernel 6.7) and never obeys.
- A directory that no member describes is 0755 root; ``implied`` lists these, for a lower layer may know better.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from . import tar
from .errors import BAD_LAYER, BREAKOUT
from .tar import TarHeader

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
MAX_COMPONENT = 255
MAX_TIME_NS = (1 << 40) * 10**9  # what a base-256 field may claim fits no inode
MAX_SYMLINKS = 40  # as the kernel's own ELOOP
OVERLAY_PREFIX = "trusted.overlay."
OPAQUE_XATTR = OVERLAY_PREFIX + "opaque"
# Not restored by any engine: labels of the host that wrote the tar.
DROPPED_XATTRS = frozenset(("security.selinux", "security.ima", "security.evm", "system.nfs4_acl"))

_KINDS = {
    tar.REG: stat.S_IFREG, tar.SYMLINK: stat.S_IFLNK, tar.CHAR: stat.S_IFCHR, tar.BLOCK_DEV: stat.S_IFBLK,
    tar.DIR: stat.S_IFDIR, tar.FIFO: stat.S_IFIFO, "S": stat.S_IFREG,
}  # fmt: skip


@dataclass(slots=True, eq=False)
class Node:
    """One inode of the layer. ``mode`` has the type bits; ``offset``/``segments`` say where the tar holds the data."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    offset: int = 0
    segments: tuple[tuple[int, int, int], ...] | None = None
    target: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[str, bytes] | None = None
    children: dict[bytes, Node] | None = None
    whiteouts: set[bytes] | None = None
    nlink: int = 1

    @property
    def is_dir(self) -> bool:
        return self.children is not None


@dataclass(slots=True)
class LayerTree:
    root: Node
    entries: int = 0
    implied: frozenset[bytes] = frozenset()


def directory(mode: int = 0o755) -> Node:
    return Node(stat.S_IFDIR | mode, children={})


def clean_name(name: bytes) -> tuple[bytes, ...]:
    """Components of a member's name, ``.`` and ``..`` resolved lexically. Raises InvalidParameter where it climbs
    out."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise BREAKOUT(name=name.decode(errors="replace"))
            parts.pop()
            continue
        if len(part) > MAX_COMPONENT:
            raise BAD_LAYER(name=name[:80].decode(errors="replace"), cause="file name too long")
        parts.append(part)
    return tuple(parts)


def build_tree(headers: Iterable[TarHeader]) -> LayerTree:
    """The tree of one layer. Raises InvalidParameter for a name or link that no honest layer has."""
    builder = _Builder()
    for header in headers:
        builder.add(header)
    _settle_whiteouts(builder.root)
    implied = frozenset(b"/".join(path) for path in builder.implied)
    return LayerTree(builder.root, builder.entries, implied)


class _Builder:
    def __init__(self) -> None:
        self.root = directory()
        self.entries = 0
        self.implied: set[tuple[bytes, ...]] = {()}
        self._aufs: dict[tuple[bytes, ...], Node] = {}
        self._last: tuple[bytes, Node] | None = None  # (raw dirname, its node): members come sorted by directory

    def add(self, header: TarHeader) -> None:
        self.entries += 1
        dirname, _, leaf = header.name.rpartition(b"/")
        if self._last and self._last[0] == dirname and leaf not in (b"", b".", b"..") and len(leaf) <= MAX_COMPONENT:
            parent = self._last[1]
        else:
            parts = clean_name(header.name)
            if not parts:
                self._set_root(header)
                return
            if any(part.startswith(AUFS_PREFIX) and part != OPAQUE_MARKER for part in parts):
                self._aufs[parts] = self._node(header)
                return
            leaf = parts[-1]
            parent = self._parent(parts[:-1], header)
            self._last = (dirname, parent) if header.name.endswith(leaf) else None
        if leaf.startswith(WHITEOUT_PREFIX):
            self._whiteout(parent, leaf, header)
        else:
            self._put(parent, leaf, header)

    def _set_root(self, header: TarHeader) -> None:
        if header.type == tar.DIR:
            _copy_metadata(self._node(header), self.root)
            self.implied.discard(())

    def _whiteout(self, parent: Node, leaf: bytes, header: TarHeader) -> None:
        if leaf == OPAQUE_MARKER:
            parent.xattrs = {**(parent.xattrs or {}), OPAQUE_XATTR: b"y"}
        elif leaf.startswith(AUFS_PREFIX):
            self._aufs[clean_name(header.name)] = self._node(header)
        else:
            hidden = leaf[len(WHITEOUT_PREFIX) :]
            if hidden in (b"", b".", b".."):
                raise BAD_LAYER(name=header.name.decode(errors="replace"), cause="invalid whiteout")
            parent.whiteouts = (parent.whiteouts or set()) | {hidden}

    def _put(self, parent: Node, leaf: bytes, header: TarHeader) -> None:
        assert parent.children is not None
        old = parent.children.get(leaf)
        if header.type == tar.LINK:
            node = self._link_target(header)
            if node is old:
                return
            node.nlink += 1
        elif header.type == tar.DIR and old is not None and old.is_dir:
            opaque = bool(old.xattrs and OPAQUE_XATTR in old.xattrs)
            _copy_metadata(self._node(header), old)
            if opaque:
                old.xattrs = {**(old.xattrs or {}), OPAQUE_XATTR: b"y"}
            self._implied_no_more(header)
            return
        else:
            node = self._node(header)
        if old is not None:
            self._forget(old)
        parent.children[leaf] = node

    def _implied_no_more(self, header: TarHeader) -> None:
        if self.implied:
            self.implied.discard(clean_name(header.name))

    def _forget(self, old: Node) -> None:
        """A replaced file loses a link; what was cached may have led through the replaced one."""
        if not stat.S_ISREG(old.mode):
            self._last = None
        stack = [old]
        while stack:
            node = stack.pop()
            node.nlink -= 1
            stack += (node.children or {}).values()

    def _node(self, header: TarHeader) -> Node:
        kind = _KINDS.get(header.type)
        if kind is None:
            raise BAD_LAYER(name=header.name.decode(errors="replace"), cause=f"unhandled tar type {header.type!r}")
        if not (0 <= header.uid < 1 << 32 and 0 <= header.gid < 1 << 32):
            raise BAD_LAYER(name=header.name.decode(errors="replace"), cause="owner out of range")
        mtime_ns = min(max(header.mtime_ns, -MAX_TIME_NS), MAX_TIME_NS)
        node = Node(kind | header.mode, header.uid, header.gid, mtime_ns, header.size, header.offset)
        if kind == stat.S_IFREG:
            node.segments = header.segments
        elif kind == stat.S_IFLNK:
            if not 0 < len(header.linkname) < tar.MAX_NAME_BYTES:
                raise BAD_LAYER(name=header.name.decode(errors="replace"), cause="invalid symlink target")
            node.target = header.linkname
        elif kind == stat.S_IFDIR:
            node.children = {}
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            if not (0 <= header.major < 1 << 12 and 0 <= header.minor < 1 << 20):
                raise BAD_LAYER(name=header.name.decode(errors="replace"), cause="device number out of range")
            node.major, node.minor = header.major, header.minor
        if header.xattrs:
            node.xattrs = _safe_xattrs(header)
        return node

    def _link_target(self, header: TarHeader) -> Node:
        parts = clean_name(header.linkname)
        node = self._aufs.get(parts)
        if node is None and parts:
            parent = self._walk(parts[:-1])
            node = parent.children.get(parts[-1]) if parent and parent.children else None
        if node is None or node.is_dir:
            target = header.linkname.decode(errors="replace")
            cause = f"hard link to {target!r}, which is no file of this layer"
            raise BAD_LAYER(name=header.name.decode(errors="replace"), cause=cause)
        return node

    def _walk(self, parts: tuple[bytes, ...]) -> Node | None:
        """The existing directory at ``parts``, symlinks of this layer followed inside the root."""
        return self._resolve(parts, create=False)

    def _parent(self, parts: tuple[bytes, ...], header: TarHeader) -> Node:
        node = self._resolve(parts, create=True)
        if node is None:
            raise BREAKOUT(name=header.name.decode(errors="replace"))
        return node

    def _resolve(self, parts: tuple[bytes, ...], *, create: bool) -> Node | None:
        stack: list[tuple[bytes, Node]] = [(b"", self.root)]
        todo, links = list(reversed(parts)), 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del stack[max(1, len(stack) - 1) :]
                continue
            children = stack[-1][1].children
            assert children is not None
            node = children.get(part)
            if node is not None and stat.S_ISLNK(node.mode):
                links += 1
                if links > MAX_SYMLINKS:
                    return None
                if node.target.startswith(b"/"):
                    del stack[1:]
                todo += reversed(node.target.split(b"/"))
                continue
            if node is None or not node.is_dir:
                if not create:
                    return None
                node = self._imply(stack, part)
            stack.append((part, node))
        return stack[-1][1]

    def _imply(self, stack: list[tuple[bytes, Node]], part: bytes) -> Node:
        """A directory that no member described, in place of nothing or of a file (as Docker's untar)."""
        children = stack[-1][1].children
        assert children is not None
        if len(part) > MAX_COMPONENT:
            raise BAD_LAYER(name=part[:80].decode(errors="replace"), cause="file name too long")
        if part in children:
            self._forget(children[part])
        self.implied.add((*(name for name, _ in stack[1:]), part))
        children[part] = directory()
        return children[part]


def _copy_metadata(new: Node, old: Node) -> None:
    old.mode, old.uid, old.gid, old.mtime_ns, old.xattrs = new.mode, new.uid, new.gid, new.mtime_ns, new.xattrs


def _safe_xattrs(header: TarHeader) -> dict[str, bytes] | None:
    safe: dict[str, bytes] = {}
    for name, value in header.xattrs.items():
        if name in DROPPED_XATTRS or "." not in name or len(name) > 255 or len(value) > 0xFFFF:
            continue
        if name.startswith(OVERLAY_PREFIX):
            name = f"{OVERLAY_PREFIX}overlay.{name[len(OVERLAY_PREFIX) :]}"
        safe[name] = value
    return safe or None


def _settle_whiteouts(root: Node) -> None:
    for node in iter_dirs(root):
        if not node.whiteouts:
            continue
        assert node.children is not None
        opaque = bool(node.xattrs and OPAQUE_XATTR in node.xattrs)
        for name in node.whiteouts:
            child = node.children.get(name)
            if child is None and not opaque:
                node.children[name] = Node(stat.S_IFCHR)
            elif child is not None and child.is_dir:
                child.xattrs = {**(child.xattrs or {}), OPAQUE_XATTR: b"y"}
        node.whiteouts = None


def iter_dirs(root: Node) -> Iterator[Node]:
    """All directories, parents before children; no recursion, for a tar may nest as deep as it likes."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack += [child for child in (node.children or {}).values() if child.children is not None]
