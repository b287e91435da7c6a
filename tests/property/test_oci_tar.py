"""The tar reader against arbitrary members (own writer, GNU tar, the standard library) and arbitrary rubbish."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockyard.errors import InvalidParameter
from dockyard.oci import tar
from dockyard.oci.layers import build_tree
from dockyard.oci.tar import END_OF_ARCHIVE, StreamReader, TarHeader, encode_header, padding, read_headers
from dockyard.storage.erofs import build_index

names = st.binary(min_size=1, max_size=300).filter(lambda raw: b"\0" not in raw and raw.strip(b"/") == raw)
letters = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="=")
xattr_names = st.text(letters, min_size=1, max_size=20)
kinds = st.sampled_from([tar.REG, tar.SYMLINK, tar.CHAR, tar.FIFO])
headers = st.builds(
    TarHeader, name=names, type=kinds, mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1), gid=st.integers(0, 2**32 - 1),
    mtime_ns=st.integers(-(10**11), 10**11).map(lambda seconds: seconds * 10**9), linkname=names,
    xattrs=st.dictionaries(xattr_names.map(lambda name: "user." + name), st.binary(max_size=50), max_size=3),
)  # fmt: skip


@given(st.lists(st.tuples(headers, st.binary(max_size=700)), max_size=5))
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read(members: list[tuple[TarHeader, bytes]]) -> None:
    archive = b""
    for header, data in members:
        size = len(data) if header.type == tar.REG else 0
        archive += encode_header(_with(header, size)) + (data + padding(size) if size else b"")
    archive += END_OF_ARCHIVE
    found = list(read_headers(archive, 10))
    assert len(found) == len(members)
    for got, (header, data) in zip(found, members, strict=True):
        fields = ("name", "type", "mode", "uid", "gid", "mtime_ns", "linkname")
        assert [getattr(got, field) for field in fields] == [getattr(header, field) for field in fields]
        assert dict(got.xattrs) == dict(header.xattrs)
        if header.type == tar.REG:
            assert archive[got.offset : got.offset + got.size] == data
    stream = io.BytesIO(archive)
    reader = StreamReader(stream.read, 10)
    assert [item.name for item in iter(reader.next, None)] == [header.name for header, _ in members]


def _with(header: TarHeader, size: int) -> TarHeader:
    return header._replace(size=size)


@given(st.binary(max_size=3000), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6))
@settings(max_examples=300, deadline=None)
def test_rubbish_is_refused_and_nothing_else(tail: bytes, flips: list[tuple[int, int]]) -> None:
    sample = bytearray(_sample())
    for position, value in flips:
        sample[position % len(sample)] = value
    for archive in (tail, bytes(sample), bytes(sample) + tail):
        try:
            tree = build_tree(read_headers(archive, 100))
            build_index(tree, len(archive), lambda offset, length, data=archive: data[offset : offset + length])  # type: ignore[misc]
        except InvalidParameter:
            continue


def _sample() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("d/" + "n" * 150)
        info.pax_headers = {"SCHILY.xattr.user.a": "b"}
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.LNKTYPE, "d/" + "n" * 150
        archive.addfile(link)
    return out.getvalue()


@pytest.mark.parametrize("style", ["gnu", "pax", "ustar", "v7"])
def test_gnu_tar_in_every_format(style: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "dir" / ("n" * 80)).write_bytes(b"x" * 1000)
    (source / "link").symlink_to("dir")
    if style in ("gnu", "pax"):
        (source / ("w" * 200)).write_bytes(b"long")
        with open(source / "sparse", "wb") as file:
            file.write(b"head")
            file.seek(1 << 20)
            file.write(b"tail")
    sparse = ["--sparse"] if style in ("gnu", "pax") else []
    target = str(tmp_path / "t")
    subprocess.run(["tar", f"--format={style}", *sparse, "-cf", target, "-C", str(source), "."], check=True)
    data = (tmp_path / "t").read_bytes()
    found = {header.name.strip(b"./").decode(): header for header in read_headers(data, 100)}
    expected = {str(path.relative_to(source)): path for path in source.rglob("*")}
    assert set(found) - {""} == set(expected)
    for name, path in expected.items():
        if path.is_file() and not path.is_symlink():
            assert _content(data, found[name]) == path.read_bytes()


def _content(data: bytes, header: TarHeader) -> bytes:
    if header.segments is None:
        return data[header.offset : header.offset + header.size]
    content = bytearray(header.size)
    for offset, start, length in header.segments:
        content[offset : offset + length] = data[start : start + length]
    return bytes(content)
