"""mount(2) and the new mount API on the real kernel, in a throw-away tmpfs."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.kernel import mount as m
from dockyard.kernel import safefs

pytestmark = pytest.mark.root


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Path]:
    m.mount("tmpfs", str(tmp_path), "tmpfs", m.MountFlag.NODEV, "mode=0755")
    m.make_propagation(str(tmp_path), m.MountFlag.PRIVATE)
    yield tmp_path
    for row in reversed(m.read_mounts(under=str(tmp_path))):
        m.umount(row.target)
    assert m.read_mounts(under=str(tmp_path)) == []


def test_mountinfo_shows_odd_names(space: Path) -> None:
    odd = space / "a b\\c\td"
    odd.mkdir()
    m.mount("tmpfs", str(odd), "tmpfs")
    rows = m.read_mounts(under=str(space))
    assert [(row.target, row.fstype) for row in rows] == [(str(space), "tmpfs"), (str(odd), "tmpfs")]
    assert rows[0].super_option("mode") == "755"
    assert m.umount_if_mounted(str(odd))
    assert not m.umount_if_mounted(str(odd))
    assert not m.umount_if_mounted(str(space / "gone"))


def test_errors_are_sentences_with_errno(space: Path) -> None:
    with pytest.raises(OSError, match=r"cannot mount tmpfs on .*/gone: No such file") as caught:
        m.mount("tmpfs", str(space / "gone"), "tmpfs")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(OSError) as caught:
        m.mount("tmpfs", str(space), "tmpfs", 0, "x" * 5000)
    assert caught.value.errno == errno.E2BIG


@pytest.mark.parametrize("count", [1, 3, 200])
def test_overlay_of_many_layers_with_hostile_names(space: Path, count: int) -> None:
    lowers = [space / f"layer:{n},x" / ("y" * 40) for n in range(count)]
    for n, lower in enumerate(lowers):
        lower.mkdir(parents=True)
        (lower / f"f{n}").write_text("x")
    for name in ("up", "work", "merged"):
        (space / name).mkdir()
    m.mount_overlay(
        str(space / "merged"), [str(lower) for lower in lowers], str(space / "up"), str(space / "work"), ["volatile"]
    )
    assert len(os.listdir(space / "merged")) == count
    assert "volatile" in m.read_mounts(under=str(space / "merged"))[0].super_options


def test_bind_read_only_and_detached_trees(space: Path) -> None:
    for name in ("a", "b", "c"):
        (space / name).mkdir()
    m.bind(str(space / "a"), str(space / "b"), readonly=True)
    with pytest.raises(OSError) as caught:
        (space / "b" / "x").write_text("")
    assert caught.value.errno == errno.EROFS
    tree = m.open_tree(str(space / "a"))
    m.mount_setattr(tree, attr_set=m.MOUNT_ATTR_RDONLY)
    with safefs.root_fd(str(space)) as root, safefs.opened(root, "c", os.O_PATH) as place:
        m.move_mount(tree, "", dir_fd=place)
    os.close(tree)
    with pytest.raises(OSError) as caught:
        (space / "c" / "x").write_text("")
    assert caught.value.errno == errno.EROFS


def test_remove_tree_does_not_cross_a_mount(space: Path) -> None:
    for name in ("precious", "tree/inner"):
        (space / name).mkdir(parents=True)
    (space / "precious/file").write_text("x")
    m.bind(str(space / "precious"), str(space / "tree/inner"))
    with safefs.root_fd(str(space)) as root, pytest.raises(OSError) as caught:
        safefs.remove_tree(root, "tree")
    assert caught.value.errno == errno.EXDEV
    assert (space / "precious/file").exists()
