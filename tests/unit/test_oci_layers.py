"""Layer rules on trees in memory. The attack table follows the ideas of containerd's breakout cases, umoci's and
go-archive's: each row is an archive that once made some engine write, read or change something outside of its root."""

import stat
from collections.abc import Iterable

import pytest

from dockyard.errors import InvalidParameter
from dockyard.oci import tar
from dockyard.oci.layers import OPAQUE_XATTR, LayerTree, Node, build_tree
from dockyard.oci.tar import TarHeader


def f(name: str, **more: object) -> TarHeader:
    return TarHeader(name.encode(), **more)  # type: ignore[arg-type]


def d(name: str, mode: int = 0o755) -> TarHeader:
    return TarHeader(name.encode() + b"/", tar.DIR, mode)


def s(name: str, target: str) -> TarHeader:
    return TarHeader(name.encode(), tar.SYMLINK, linkname=target.encode())


def h(name: str, target: str) -> TarHeader:
    return TarHeader(name.encode(), tar.LINK, linkname=target.encode())


def listing(tree: LayerTree) -> dict[str, str]:
    """path -> kind, "l:target" for symlinks, "w" for whiteouts, "D" for opaque directories."""
    rows: dict[str, str] = {}
    stack: list[tuple[str, Node]] = [("", tree.root)]
    while stack:
        path, node = stack.pop()
        for raw, child in (node.children or {}).items():
            name = f"{path}/{raw.decode()}"
            kind = stat.S_IFMT(child.mode)
            opaque = bool(child.xattrs and OPAQUE_XATTR in child.xattrs)
            rows[name] = {
                stat.S_IFREG: "f", stat.S_IFDIR: "D" if opaque else "d", stat.S_IFCHR: "w",
                stat.S_IFLNK: f"l:{child.target.decode()}",
            }[kind]  # fmt: skip
            stack.append((name, child))
    return rows


REFUSED = {
    "climbs out": [f("../etc/passwd")],
    "climbs out in the middle": [f("a/../../etc/passwd")],
    "climbs out behind the root": [f("/../etc/passwd")],
    "directory climbs out": [d("..")],
    "hard link climbs out": [h("x", "../../etc/shadow")],
    "hard link to nothing of this layer": [h("x", "/etc/shadow")],
    "hard link through a symlink to the outside": [s("up", "/etc"), h("x", "up/shadow")],
    "hard link to the root": [h("x", "/")],
    "hard link to a directory": [d("a"), h("x", "a")],
    "hard link to itself": [h("x", "x")],
    "parent is a symlink loop": [s("a", "b"), s("b", "a"), f("a/x")],
    "parent is a symlink to itself": [s("a", "a"), f("a/x")],
    "whiteout of nothing": [f(".wh.")],
    "whiteout of dot": [f("a/.wh..")],
    "whiteout of dot dot": [f("a/.wh...")],
    "symlink to nowhere at all": [s("a", "")],
    "name longer than the kernel's": [f("n" * 256)],
    "parent longer than the kernel's": [f("n" * 256 + "/x")],
    "owner out of range": [f("x", uid=1 << 32)],
    "negative owner": [f("x", gid=-1)],
    "device out of range": [TarHeader(b"x", tar.CHAR, major=1 << 12)],
    "unknown type": [TarHeader(b"x", "V")],
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    with pytest.raises(InvalidParameter):
        build_tree(REFUSED[case])


CONTAINED: dict[str, tuple[Iterable[TarHeader], dict[str, str]]] = {
    "absolute name": ([f("/etc/passwd")], {"/etc": "d", "/etc/passwd": "f"}),
    "dots inside": ([f("./a/./b/../c")], {"/a": "d", "/a/c": "f"}),
    "write through an absolute symlink": (
        [s("out", "/etc"), f("out/passwd")], {"/out": "l:/etc", "/etc": "d", "/etc/passwd": "f"}),
    "write through a relative symlink that climbs": (
        [s("out", "../../../etc"), f("out/passwd")], {"/out": "l:../../../etc", "/etc": "d", "/etc/passwd": "f"}),
    "write through two symlinks": (
        [s("a", "b"), s("b", "/c"), f("a/x")], {"/a": "l:b", "/b": "l:/c", "/c": "d", "/c/x": "f"}),
    "symlink with dot dot behind a symlink": (
        [d("d/e"), s("l", "d/e"), s("m", "l/.."), f("m/x")],
        {"/d": "d", "/d/e": "d", "/l": "l:d/e", "/m": "l:l/..", "/d/x": "f"}),
    "file over a symlink is not written through": ([s("x", "/etc/passwd"), f("x")], {"/x": "f"}),
    "directory over a symlink replaces it": ([s("x", "/etc"), d("x"), f("x/y")], {"/x": "d", "/x/y": "f"}),
    "symlink over a directory removes its content": ([f("x/y"), s("x", "/etc")], {"/x": "l:/etc"}),
    "then writes through it stay inside": (
        [f("x/y"), s("x", "/etc"), f("x/z")], {"/x": "l:/etc", "/etc": "d", "/etc/z": "f"}),
    "hard link to a symlink links the symlink": (
        [s("a", "/etc/shadow"), h("b", "a")], dict.fromkeys(("/a", "/b"), "l:/etc/shadow")),
    "file over a hard link leaves the other": ([f("a"), h("b", "a"), f("b", size=3)], {"/a": "f", "/b": "f"}),
    "file used as a directory gives way": ([f("a"), f("a/b")], {"/a": "d", "/a/b": "f"}),
    "last of two wins": ([d("a"), f("a/b"), f("a")], {"/a": "f"}),
    "root described as a file": ([f("/"), f("a")], {"/a": "f"}),
    "whiteout": ([f("a/.wh.b")], {"/a": "d", "/a/b": "w"}),
    "whiteout before the file of that name": ([f(".wh.b"), f("b")], {"/b": "f"}),
    "whiteout after the file of that name": ([f("b"), f(".wh.b")], {"/b": "f"}),
    "whiteout and new directory": ([f(".wh.b"), f("b/c")], {"/b": "D", "/b/c": "f"}),
    "whiteout behind the new directory": ([f("b/c"), f(".wh.b")], {"/b": "D", "/b/c": "f"}),
    "whiteout inside of an opaque directory": ([f("b/.wh..wh..opq"), f("b/.wh.c"), f("b/d")], {"/b": "D", "/b/d": "f"}),
    "opaque, then described again": ([f("b/.wh..wh..opq"), d("b", 0o700)], {"/b": "D"}),
    "leavings of aufs": (
        [d(".wh..wh.plnk"), f(".wh..wh.plnk/12.3"), f(".wh..wh.aufs"), h("a", ".wh..wh.plnk/12.3")], {"/a": "f"}),
    "whiteout through a symlink": (
        [d("real"), s("l", "/real"), f("l/.wh.x")], {"/real": "d", "/l": "l:/real", "/real/x": "w"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTAINED)
def test_contained(case: str) -> None:
    headers, expected = CONTAINED[case]
    assert listing(build_tree(headers)) == expected


def test_overlay_attributes_of_a_layer_never_steer_overlayfs() -> None:
    overlay = {"trusted.overlay.redirect": b"/etc", "trusted.overlay.opaque": b"y"}
    xattrs = {**overlay, "user.a": b"1", "security.selinux": b"x"}
    root = build_tree([TarHeader(b"a/", tar.DIR, xattrs=xattrs)]).root
    assert (root.children or {})[b"a"].xattrs == {
        "trusted.overlay.overlay.redirect": b"/etc", "trusted.overlay.overlay.opaque": b"y", "user.a": b"1",
    }  # fmt: skip


def test_implied_directories_are_known() -> None:
    tree = build_tree([d("./"), f("a/b/c"), d("a"), f("d/e")])
    assert tree.implied == {b"a/b", b"d"}
    assert (tree.root.children or {})[b"d"].mode == stat.S_IFDIR | 0o755


def test_links_are_counted() -> None:
    root = build_tree([f("a"), h("b", "a"), h("c", "b"), f("b")]).root
    assert (root.children or {})[b"a"].nlink == 2


def test_a_very_deep_tree_needs_no_recursion() -> None:
    name = "/".join(["d"] * 2000)
    tree = build_tree([f(name + "/x"), s("d", "/other")])
    assert listing(tree) == {"/d": "l:/other"}
