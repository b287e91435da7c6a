"""Layers merged into one, compared with what an overlay of them would show (oci.layers has the rules of one layer)."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from dockyard.storage.merge import merged_tar

Spec = dict[str, str | tuple[str, str] | None]
"""name -> content; None a directory; ("link", target) a hard link, ("symlink", target)."""


def layer(path: Path, members: Spec) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            elif isinstance(content, tuple):
                info.type = tarfile.LNKTYPE if content[0] == "link" else tarfile.SYMTYPE
                info.linkname = content[1]
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content.encode()))
    return path


def merged(tmp_path: Path, *specs: Spec) -> Spec:
    paths = [layer(tmp_path / f"{number}.tar", spec) for number, spec in enumerate(specs)]
    out: Spec = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(merged_tar(paths, 1000)))) as archive:
        for item in archive:
            if item.isdir():
                out[item.name] = None
            elif item.islnk() or item.issym():
                out[item.name] = ("link" if item.islnk() else "symlink", item.linkname)
            else:
                file = archive.extractfile(item)
                out[item.name] = file.read().decode() if file else ""
    return out


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([{"a": "1"}, {"b": "2"}], {"a": "1", "b": "2"}),
        ([{"a": "1"}, {"./a": "2"}], {"a": "2"}),
        ([{"d": None, "d/a": "1"}, {"d/.wh.a": ""}], {"d": None, "d/.wh.a": ""}),
        ([{"d/a": "1", "d/b": "2"}, {".wh.d": ""}], {".wh.d": ""}),
        ([{".wh.a": ""}, {"a": "back"}], {"a": "back"}),
        ([{".wh.d": ""}, {"d": None, "d/x": "1"}], {"d": None, "d/.wh..wh..opq": "", "d/x": "1"}),
        ([{"d": None, "d/a": "1"}, {"d/.wh..wh..opq": "", "d/b": "2"}], {"d": None, "d/.wh..wh..opq": "", "d/b": "2"}),
        ([{"d": None, "d/a": "1"}, {"d": "a file now"}], {"d": "a file now"}),
        ([{"f": "file"}, {"f": None, "f/a": "1"}], {"f": None, "f/.wh..wh..opq": "", "f/a": "1"}),
        ([{"a": "1", "b": ("link", "a")}], {"a": "1", "b": ("link", "a")}),
        ([{"a": "1", "b": ("link", "a")}, {"a": "2"}], {"a": "2", "b": "1"}),
        ([{"a": "1", "b": ("link", "a")}, {".wh.a": ""}], {".wh.a": "", "b": "1"}),
        ([{"s": ("symlink", "/x")}, {"s2": ("symlink", "y")}], {"s": ("symlink", "/x"), "s2": ("symlink", "y")}),
        ([{}, {}], {}),
    ],
)
def test_merge(tmp_path: Path, layers: list[Spec], expected: Spec) -> None:
    assert merged(tmp_path, *layers) == expected
