"""A disk without a block left: what cannot be done says so, what makes room works, and the engine starts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.testing import engines
from dockyard.testing.engines import PrivateEngine, private_engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
SIZE = 48 << 20


@pytest.fixture(scope="module")
def engine(folder: Path, archive: Path) -> Iterator[PrivateEngine]:
    """A private Dockyard whose data root is a small ext4, without blocks reserved for root."""
    disk, root = folder / "disk", folder / "e"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk], check=True)
    with private_engine("dockyard", root, before=f"mkdir -p {root}/data && mount -o loop {disk} {root}/data") as made:
        assert made.docker("load", "-q", "-i", str(archive)).returncode == 0
        yield made


FILL = (
    "for size in 1M 64k 4k 1k; do dd if=/dev/zero of={root}/data/filler bs=$size oflag=append conv=notrunc 2>/dev/null; "
    "sync; done; true"
)


def fill(engine: PrivateEngine) -> None:
    """Down to the last block, more than once: ext4 gives some back when its journal is written."""
    for _ in range(3):
        subprocess.run(engine.inside("sh", "-c", FILL.format(root=engine.root)), check=True, timeout=60)


@pytest.fixture
def full(engine: PrivateEngine) -> Iterator[PrivateEngine]:
    """With something of every kind that can be removed, and then not a block."""
    for words in (
        ("tag", "busybox", "spare:1"), ("run", "--name", "ended", "busybox", "true"), ("run", "-d", "--name", "up", "busybox", "sleep", "1000"),
        ("network", "create", "net1"), ("volume", "create", "vol1"),
    ):  # fmt: skip
        done = engine.docker(*words)
        assert done.returncode == 0, done.stderr
    fill(engine)
    yield engine
    if engine.process.poll() is not None:
        return
    subprocess.run(engine.inside("rm", "-f", f"{engine.root}/data/filler"), check=True, timeout=60)
    engine.docker("rm", "-f", "ended", "up", "new")
    engine.docker("network", "rm", "net1")
    engine.docker("volume", "rm", "vol1")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("run", "--rm", "busybox", "echo", "hi"), 125, "no space left on device"),
        (("run", "-d", "--name", "new", "busybox", "true"), 125, "no space left on device"),
        (("start", "ended"), 1, "no space left on device"),
        (("tag", "busybox", "other:1"), 1, "no space left on device"),
        (("volume", "create", "vol2"), 1, "no space left on device"),
        (("network", "create", "net2"), 1, "no space left on device"),
        (("commit", "ended", "made:1"), 1, "no space left on device"),
    ],
)
def test_what_needs_room_says_so(full: PrivateEngine, words: tuple[str, ...], code: int, told: str) -> None:
    done = full.docker(*words)
    assert (done.returncode, told in done.stderr.lower()) == (code, True), done.stderr
    assert "new" not in full.docker("ps", "-a", "--format", "{{.Names}}").stdout.split()


@pytest.mark.parametrize(
    "words",
    [
        ("rmi", "spare:1"), ("image", "prune", "-af"), ("rm", "ended"), ("rm", "-f", "up"), ("container", "prune", "-f"),
        ("volume", "rm", "vol1"), ("volume", "prune", "-af"), ("network", "rm", "net1"), ("network", "prune", "-f"),
        ("system", "prune", "-af", "--volumes"), ("stop", "-t", "0", "up"), ("kill", "up"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_makes_room_works(full: PrivateEngine, words: tuple[str, ...]) -> None:
    assert full.docker("tag", "busybox", "full:1").returncode == 1, "the disk is not full"
    done = full.docker(*words)
    assert done.returncode == 0, done.stderr


def test_looking_around_works(full: PrivateEngine) -> None:
    for words in (("ps", "-a"), ("images"), ("logs", "ended"), ("inspect", "up"), ("system", "df"), ("info"), ("exec", "up", "df", "/")):
        done = full.docker(*([words] if isinstance(words, str) else words))
        assert done.returncode == 0, (words, done.stderr)


def test_a_program_that_finds_no_room_hears_it(full: PrivateEngine) -> None:
    done = full.docker("exec", "up", "sh", "-c", "echo x > /file && sync")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr


def test_the_engine_starts_on_a_full_disk(full: PrivateEngine) -> None:
    """The last test: its engine is another afterwards."""
    subprocess.run(full.inside("rm", "-f", f"{full.root}/data/reserve"), check=True, timeout=60)  # as if it had been spent
    fill(full)
    again = engines.killed_and_again(full)
    try:
        fill(again)
        assert again.docker("tag", "busybox", "full:1").returncode == 1, "the disk is not full"
        assert again.docker("inspect", "-f", "{{.State.Running}}", "up").stdout.strip() == "true"
        done = again.docker("rmi", "spare:1")
        assert done.returncode == 0, done.stderr
    finally:
        engines.stop(again)
