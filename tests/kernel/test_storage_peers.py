"""Images there and back: what we save is read by skopeo, umoci, buildah, podman and dockerd, and what they write by us.

A round trip is right when the image has the same layers (diff IDs) and config, and the files come out the same.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dockyard.oci import parse_reference
from dockyard.oci.documents import encode
from dockyard.storage import Image, Store
from dockyard.testing.engines import PrivateEngine, private_engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
NAME = "docker.io/library/round:1"


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "root")
    yield opened
    await opened.close(unmount=True)


async def pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece


def layer(path: Path, *entries: tuple[str, str, str]) -> Path:
    """A tar of (kind, name, text or target)."""
    kinds = {"d": tarfile.DIRTYPE, "f": tarfile.REGTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for kind, name, text in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = kinds[kind], 0o755 if kind == "d" else 0o644, 1_600_000_000
            if kind == "f":
                info.size = len(text)
                info.pax_headers = {"SCHILY.xattr.user.note": "é"}
            elif kind in "lh":
                info.linkname = text
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.fixture
async def image(store: Store, tmp_path: Path) -> Image:
    """Two layers with links, a whiteout, an opaque directory, an attribute, a long name."""
    base = layer(tmp_path / "1.tar", ("d", "etc", ""), ("f", "etc/one", "1"), ("f", "gone", "x"), ("d", "dir", ""),
                 ("f", "dir/old", "o"), ("l", "link", "etc/one"), ("h", "hard", "etc/one"), ("f", "n" * 120 + "/é", "long"))  # fmt: skip
    top = layer(tmp_path / "2.tar", ("f", ".wh.gone", ""), ("d", "dir", ""), ("f", "dir/.wh..wh..opq", ""), ("f", "dir/new", "n"))
    with store.lease() as lease:
        diff_ids = [(await store.ingest_layer(pieces(path), lease))[0].diff_id for path in (base, top)]
        config = {
            "architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z",
            "config": {"Env": ["A=1"], "Cmd": ["true"], "Labels": {"x": "y"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": f"step {number}"} for number in (1, 2)],
        }  # fmt: skip
        return store.register_image(encode(config), tags=[parse_reference(NAME)])


@pytest.fixture
async def saved(store: Store, image: Image, tmp_path: Path) -> Path:
    path = tmp_path / "saved.tar"
    with path.open("wb") as file:
        async for piece in store.save(["round:1"]):
            file.write(piece)
    return path


def run(*words: str | Path, **environment: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=os.environ | environment)
    assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    return done.stdout


async def back(store: Store, archive: Path, image: Image, tmp_path: Path) -> None:
    """Loaded into another store, it is the same image."""
    other = await Store.open(tmp_path / "other")
    try:
        (loaded, *more) = await other.load(pieces(archive))
        assert more == []
        found = other.get_image(loaded.id)
        assert found.diff_ids == image.diff_ids
        theirs, ours = json.loads(found.config.raw), json.loads(image.config.raw)
        settings = {name: value for name, value in theirs["config"].items() if value}
        assert {name: settings.get(name) for name in ours["config"]} == ours["config"]
        other.prepare("look", found.id)
        root = other.mount("look")
        files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        assert {"dir/new", "etc/one", "hard", "link", "n" * 120 + "/é"} <= set(files)
        assert not {"gone", "dir/old"} & set(files)
        assert os.getxattr(root / "etc/one", "user.note").decode() == "é"
        assert (root / "hard").stat().st_ino == (root / "etc/one").stat().st_ino
    finally:
        await other.close(unmount=True)


@needs("skopeo")
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
async def test_skopeo(store: Store, image: Image, saved: Path, tmp_path: Path, kind: str) -> None:
    away = tmp_path / "away.tar"
    run("skopeo", "copy", "-q", f"docker-archive:{saved}:{NAME}", f"{kind}:{away}:{NAME}")
    await back(store, away, image, tmp_path)


@needs("skopeo")
async def test_skopeo_reads_the_same_archive_as_an_oci_layout(image: Image, saved: Path) -> None:
    text = run("skopeo", "inspect", "--config", f"oci-archive:{saved}")
    assert json.loads(text)["rootfs"]["diff_ids"] == list(image.diff_ids)


@needs("skopeo", "umoci")
async def test_umoci(store: Store, image: Image, saved: Path, tmp_path: Path) -> None:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    run("skopeo", "copy", "-q", f"docker-archive:{saved}:{NAME}", f"oci:{layout}:1")
    run("umoci", "unpack", "--image", f"{layout}:1", bundle)
    assert (bundle / "rootfs/dir/new").read_text() == "n"
    assert not (bundle / "rootfs/dir/old").exists()
    (bundle / "rootfs/added").write_text("by umoci")
    run("umoci", "repack", "--image", f"{layout}:2", bundle)
    archive = tmp_path / "repacked.tar"
    run("skopeo", "copy", "-q", f"oci:{layout}:2", f"oci-archive:{archive}:{NAME}")
    (loaded,) = await store.load(pieces(archive))
    found = store.get_image(loaded.id)
    assert found.diff_ids[:2] == image.diff_ids
    store.prepare("umoci", found.id)
    assert (store.mount("umoci") / "added").read_text() == "by umoci"


@needs("buildah")
async def test_buildah(store: Store, image: Image, saved: Path, tmp_path: Path) -> None:
    places = ["--root", str(tmp_path / "b/root"), "--runroot", str(tmp_path / "b/run"), "--storage-driver", "vfs"]
    away = tmp_path / "away.tar"
    known = run("buildah", *places, "pull", "-q", f"docker-archive:{saved}").strip()
    run("buildah", *places, "push", "-q", known, f"oci-archive:{away}:{NAME}")
    await back(store, away, image, tmp_path)


@pytest.fixture(params=["dockerd", "podman"])
def engine(request: pytest.FixtureRequest) -> Iterator[PrivateEngine]:
    if shutil.which(request.param) is None:
        pytest.skip(f"not installed: {request.param}")
    with (
        tempfile.TemporaryDirectory(prefix="dy-") as short,  # podman refuses a run root of more than 50 characters
        private_engine(request.param, Path(short) / "e") as running,
    ):
        yield running


@needs("docker")
async def test_engines(store: Store, image: Image, saved: Path, tmp_path: Path, engine: PrivateEngine) -> None:
    done = engine.docker("load", "-i", str(saved))
    assert done.returncode == 0, done.stderr
    told = json.loads(engine.docker("image", "inspect", "round:1").stdout)[0]
    assert told["Id"] == image.id
    assert told["RootFS"]["Layers"] == list(image.diff_ids)
    away = tmp_path / "away.tar"
    done = engine.docker("save", "-o", str(away), "round:1")
    assert done.returncode == 0, done.stderr
    await back(store, away, image, tmp_path)
