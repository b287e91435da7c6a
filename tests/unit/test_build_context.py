"""Contexts and archives as trees: limits, links, devices; and what COPY's tar makes of them."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dockyard.build.context import Context, ContextLimits, read_context
from dockyard.build.copy import Packing, Selected, TargetRoot, pack, place, select
from dockyard.build.dockerfile.parser import SyntaxProblem, parse
from dockyard.build.dockerfile.patterns import Patterns
from dockyard.build.model import BaseImage, Copy, Request
from dockyard.build.plan import plan
from dockyard.build.tree import RootTree
from dockyard.errors import Exhausted, InvalidParameter


class Endless:
    """A sender that never stops: one file header, then zeros for ever."""

    def __init__(self, size: int) -> None:
        info = tarfile.TarInfo("big")
        info.size = size
        self._head = info.tobuf(tarfile.GNU_FORMAT)

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            head, self._head = self._head[:size], self._head[size:] if size >= 0 else b""
            return head
        return bytes(min(size, 1 << 16) if size >= 0 else 1 << 16)


def archive(*members: tuple[str, bytes, str, bytes]) -> io.BytesIO:
    """(name, tar type, link, content); devices are 1:3."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, kind, link, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.uid = kind, link, len(data), 7
            if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                info.devmajor, info.devminor = (1, 3) if not link else (0, 0)
                info.linkname = ""
            made.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


class Dribble:
    """A stream that gives as much as it likes, never more than ``most``."""

    def __init__(self, data: bytes, most: int) -> None:
        self._left, self._most = data, most

    def read(self, size: int = -1, /) -> bytes:
        size = self._most if size < 0 else min(size, self._most)
        taken, self._left = self._left[:size], self._left[size:]
        return taken


@pytest.mark.parametrize("most", [7, 512, 1000, 1 << 20])
def test_a_context_is_the_same_however_it_arrives(tmp_path: Path, most: int) -> None:
    files = {"big": os.urandom(3_000), "./d/e/../f": b"x" * 511, "empty": b"", "/abs//g": b"y" * 1025}
    data = archive(*((name, tarfile.REGTYPE, "", content) for name, content in files.items())).getvalue()
    context = read_context(Dribble(data, most), tmp_path, ContextLimits())
    found = {path: b"".join(context.tree.read(entry)) for path, entry in context.tree.entries.items() if not entry.is_dir}  # type: ignore[attr-defined]
    assert found == {"big": files["big"], "d/f": files["./d/e/../f"], "empty": b"", "abs/g": files["/abs//g"]}
    digests = {path: context.tree.lookup(path).digest for path in found}  # type: ignore[union-attr]
    assert digests == {path: hashlib.sha256(content).digest() for path, content in found.items()}
    assert os.fstat(context.tree.spool).st_size <= len(data), "the archive itself, not a copy beside it"  # type: ignore[attr-defined]
    context.close()


@pytest.mark.parametrize("limits", [ContextLimits(bytes=1 << 20), ContextLimits()])
def test_an_endless_context_is_refused(tmp_path: Path, limits: ContextLimits) -> None:
    """Also one that only the disk would bound: what is promised is compared with what is free before it is read."""
    with pytest.raises(Exhausted, match="over the limit"):
        read_context(Endless(1 << 42), tmp_path, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
def test_a_compressed_bomb_stops_at_the_limit(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """100 MiB of zeros in at most 100 KiB: no more is written than the limit and one piece."""
    bomb = pack(archive(("zeros", tarfile.REGTYPE, "", bytes(100 << 20))).getvalue())
    assert len(bomb) < 200 << 10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Exhausted, match="over the limit"):
        read_context(io.BytesIO(bomb), tmp_path, ContextLimits(bytes=4 << 20))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("program", "pack"), [("unpigz", gzip.compress), ("xz", lzma.compress), ("bzip2", bz2.compress)])
def test_no_helper_program_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, pack: Callable[[bytes], bytes]
) -> None:
    """CVE-2026-41567: what is first in PATH is not what unpacks."""
    trap = tmp_path / "bin" / program
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/trapped\nexit 1\n")
    trap.chmod(0o755)
    monkeypatch.setenv("PATH", str(trap.parent))
    context = read_context(io.BytesIO(pack(archive(("a", tarfile.REGTYPE, "", b"x")).getvalue())), tmp_path, ContextLimits())
    assert context.read_text("a") == b"x"
    context.close()
    assert not (tmp_path / "trapped").exists()


def test_a_sparse_map_is_refused(tmp_path: Path) -> None:
    """CVE-2025-58183: a map of a few bytes that names as many holes as its sender likes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        info = tarfile.TarInfo("holes")
        info.size = 512
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
        made.addfile(info, io.BytesIO(b"999999999\n".ljust(512, b"\0")))
    with pytest.raises(InvalidParameter, match="sparse"):
        read_context(io.BytesIO(out.getvalue()), tmp_path, ContextLimits())


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    many = archive(*((f"f{n}", tarfile.REGTYPE, "", b"") for n in range(50)))
    with pytest.raises(Exception, match="too many members"):
        read_context(many, tmp_path, ContextLimits(entries=10))


def _unpacked(context: Context) -> list[tarfile.TarInfo]:
    tree = context.tree
    top = tree.lookup("")
    assert top is not None
    chosen = [Selected(entry.path, entry, tree=tree) for entry in tree.walk(top)]
    placed = place(Copy(("x.tar",), "/t/", add=True), chosen, TargetRoot(None))
    out = io.BytesIO(b"".join(pack(placed, tree, Packing())))
    with tarfile.open(fileobj=out) as made:
        return [item for item in made if not item.isdir()]


def test_an_archive_keeps_links_owners_and_devices(tmp_path: Path) -> None:
    reader = archive(
        ("a", tarfile.REGTYPE, "", b"content"), ("b", tarfile.LNKTYPE, "a", b""), ("null", tarfile.CHRTYPE, "", b""),
        ("whiteout", tarfile.CHRTYPE, "zero", b""), ("s", tarfile.SYMTYPE, "a", b""),
    )  # fmt: skip
    context = read_context(reader, tmp_path, ContextLimits(), owners=True)
    found = {item.name: item for item in _unpacked(context)}
    context.close()
    assert sorted(found) == ["t/a", "t/b", "t/null", "t/s"]
    assert found["t/b"].islnk()
    assert found["t/b"].linkname == "t/a"
    assert (found["t/null"].devmajor, found["t/null"].devminor) == (1, 3)
    assert found["t/a"].uid == 7


def test_a_context_has_no_devices_and_no_owners(tmp_path: Path) -> None:
    reader = archive(("a", tarfile.REGTYPE, "", b"x"), ("null", tarfile.CHRTYPE, "", b""))
    context = read_context(reader, tmp_path, ContextLimits())
    chosen = select(Copy((".",), "/t/"), context.tree, Patterns(()))
    context.close()
    assert [(item.relative, item.entry.uid) for item in chosen] == [("", 0), ("a", 0)]


def test_a_root_shows_no_sockets(tmp_path: Path) -> None:
    import socket

    (tmp_path / "f").touch()
    os.mkfifo(tmp_path / "p")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        fd = os.open(tmp_path, os.O_PATH)
        try:
            tree = RootTree(fd)
            top = tree.lookup("")
            assert top is not None
            assert [entry.path for entry in tree.walk(top)] == ["f", "p"]
        finally:
            os.close(fd)


def test_stages_nested_too_deeply_are_refused() -> None:
    text = "FROM base AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(5000))
    images = {("base", "linux/amd64"): BaseImage("base", "sha256:1", {"config": {}}, ("sha256:d",))}
    with pytest.raises(SyntaxProblem, match="too deeply"):
        plan(parse(text), Request(), images, "linux/amd64")
