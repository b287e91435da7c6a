"""Safe paths against a root that wants out. No root is needed: openat2 works for every user."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.kernel import safefs


@pytest.fixture
def jail(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    (tmp_path / "secret").write_text("host")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("root:x:0:0")
    (root / "up").symlink_to("../../..")
    (root / "abs").symlink_to("/etc")
    (root / "out").symlink_to("../secret")
    (root / "hole").symlink_to("nowhere")
    with safefs.root_fd(str(root)) as fd:
        yield fd, root


def test_absolute_links_mean_the_root(jail: tuple[int, Path]) -> None:
    fd, _ = jail
    for path in ("/abs/passwd", "abs/passwd", "up/up/etc/passwd", "../../etc/passwd", b"/etc/passwd"):
        assert safefs.read_file(fd, path) == b"root:x:0:0"
    with pytest.raises(FileNotFoundError):
        safefs.read_file(fd, "out")
    assert safefs.real_path(fd, "up/abs") == "/etc"
    assert safefs.real_path(fd, "/") == "/"


def test_magic_links_are_refused(jail: tuple[int, Path]) -> None:
    with safefs.root_fd("/") as slash, pytest.raises(OSError) as caught:
        safefs.read_file(slash, "/proc/self/root/etc/hostname")
    assert caught.value.errno == errno.ELOOP


def test_read_has_a_limit_and_wants_a_file(jail: tuple[int, Path]) -> None:
    fd, root = jail
    os.mkfifo(root / "fifo")
    for name, code in (("etc", errno.EINVAL), ("fifo", errno.EINVAL)):
        with pytest.raises(OSError) as caught:
            safefs.read_file(fd, name)
        assert caught.value.errno == code
    with pytest.raises(OSError) as caught:
        safefs.read_file(fd, "etc/passwd", limit=3)
    assert caught.value.errno == errno.EFBIG
    assert safefs.read_file(fd, "etc/passwd", limit=10) == b"root:x:0:0"


def test_make_dirs_stays_inside(jail: tuple[int, Path], tmp_path: Path) -> None:
    fd, root = jail
    for path in ("a/b/c", "/abs/new/dir", "up/../up/x/y"):
        os.close(safefs.make_dirs(fd, path))
        assert safefs.stat_in_root(fd, path)
    assert (root / "etc/new/dir").is_dir()
    assert (root / "x/y").is_dir()
    for path, code in (("hole/x", errno.ENOENT), ("etc/passwd/x", errno.ENOTDIR)):
        with pytest.raises(OSError) as caught:
            safefs.make_dirs(fd, path)
        assert caught.value.errno == code
    assert sorted(os.listdir(tmp_path)) == ["root", "secret"]


def test_write_replaces_and_never_writes_through(jail: tuple[int, Path], tmp_path: Path) -> None:
    fd, root = jail
    os.link(tmp_path / "secret", root / "hard")
    for name in ("out", "hard"):
        with pytest.raises(FileExistsError):
            safefs.create_file(fd, name)
        safefs.write_file(fd, name, b"new", 0o600)
        assert (root / name).read_bytes() == b"new"
    assert (tmp_path / "secret").read_text() == "host"


def test_remove_tree_removes_links_not_targets(jail: tuple[int, Path], tmp_path: Path) -> None:
    fd, root = jail
    (root / "etc" / "link").symlink_to("/etc")
    safefs.remove_tree(fd, "etc")
    safefs.remove_tree(fd, "out")
    safefs.remove_tree(fd, "gone", missing_ok=True)
    with pytest.raises(FileNotFoundError):
        safefs.remove_tree(fd, "gone")
    assert sorted(os.listdir(root)) == ["abs", "hole", "up"]
    assert (tmp_path / "secret").exists()


def test_remove_tree_of_a_very_deep_one(jail: tuple[int, Path]) -> None:
    fd, root = jail
    current = os.open(root, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=current)
        following = os.open("deep", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = following
    os.close(current)
    safefs.remove_tree(fd, "deep")
    assert sorted(os.listdir(root)) == ["abs", "etc", "hole", "out", "up"]


def test_a_racing_swap_never_shows_the_outside(jail: tuple[int, Path], tmp_path: Path) -> None:
    """CVE-2018-15664: the parent becomes a symlink to the outside between two looks."""
    fd, root = jail
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "passwd").write_text("host")
    (root / "evil").symlink_to(tmp_path / "dir")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(root / "etc", root / "tmp")
            os.rename(root / "evil", root / "etc")
            os.rename(root / "etc", root / "evil")
            os.rename(root / "tmp", root / "etc")

    racer = threading.Thread(target=swap)
    racer.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(safefs.read_file(fd, "etc/passwd"))
            except (FileNotFoundError, BlockingIOError):
                continue
    finally:
        stop.set()
        racer.join()
    assert seen <= {b"root:x:0:0"}


def test_split_leaf_wants_a_name() -> None:
    assert safefs.split_leaf("/a/b/") == ("/a", "b")
    assert safefs.split_leaf("a") == (".", "a")
    for path in ("", "/", "..", "a/.."):
        with pytest.raises(OSError):
            safefs.split_leaf(path)
