"""Cache mounts that travel: out as a tar, in again on a builder that has nothing, and hostile tars."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from dockyard.errors import Conflict, InvalidParameter, NotFound

from .conftest import BuildClient

pytestmark = pytest.mark.root
FILL = "FROM busybox\nRUN --mount=type=cache,id=trip,target=/c,mode=1777,uid=7 mkdir -p /c/d && echo kept > /c/d/f && ln -s d/f /c/l && chown 5:6 /c/d/f\n"
LOOK = "FROM busybox\nRUN --mount=type=cache,id=trip,target=/c cat /c/l && stat -c '%u:%g' /c/d/f && stat -c 'root %a %u' /c\n"


def cli(builder: BuildClient, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dockyard.cli", "-H", builder.engine.host, *words]
    return subprocess.run(command, input=data, capture_output=True, timeout=60)


def test_out_and_in_again(builder: BuildClient, tmp_path: Path) -> None:
    builder.build(FILL, nocache="1")
    listed = cli(builder, "builder", "mounts")
    assert b"trip" in listed.stdout, listed
    assert cli(builder, "builder", "export", "trip", "-o", str(tmp_path / "trip.tar")).returncode == 0
    with tarfile.open(tmp_path / "trip.tar") as archive:
        assert {name.lstrip("./") for name in archive.getnames()} == {"", "d", "d/f", "l"}
    builder.client.request("POST", "/build/prune", {"all": "1"})
    assert b"trip" not in cli(builder, "builder", "mounts").stdout
    gone = cli(builder, "builder", "export", "trip", "-o", str(tmp_path / "no.tar"))
    assert gone.returncode == 1
    assert b"no such cache mount: trip" in gone.stderr
    assert not (tmp_path / "no.tar").exists()
    brought = cli(builder, "builder", "import", "trip", data=(tmp_path / "trip.tar").read_bytes())
    assert brought.returncode == 0, brought.stderr
    text = builder.build(LOOK, nocache="1").text
    for line in ("kept", "5:6", "root 1777 7"):
        assert line in text
    row = next(r for r in builder.client.request("GET", "/system/df", {"type": "build-cache"})["BuildCache"] if "trip" in r["Description"])
    assert row["Type"] == "exec.cachemount"
    assert row["Size"] > 0, "counted like every other"


@pytest.mark.parametrize("what", ["name", "link", "cut", "nothing"])
def test_a_hostile_tar_changes_nothing(builder: BuildClient, what: str) -> None:
    builder.build(FILL, nocache="1")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("innocent"))
        if what == "name":
            archive.addfile(tarfile.TarInfo("../../escaped"))
        elif what == "link":
            link = tarfile.TarInfo("out")
            link.type, link.linkname = tarfile.LNKTYPE, "../../../etc/passwd"
            archive.addfile(link)
    data = {"cut": out.getvalue()[:700], "nothing": b"no tar at all" * 100}.get(what, out.getvalue())
    with pytest.raises(InvalidParameter):
        builder.client.request("PUT", "/build/mount", {"id": "trip"}, data, headers={"Content-Type": "application/x-tar"})
    assert "kept" in builder.build(LOOK, nocache="1").text
    with pytest.raises(InvalidParameter):
        builder.client.request("PUT", "/build/mount", {"id": f"never-{what}"}, data, headers={"Content-Type": "application/x-tar"})
    with pytest.raises(NotFound):
        builder.client.request("GET", "/build/mount", {"id": f"never-{what}"})


def test_one_in_use_is_left_alone(builder: BuildClient) -> None:
    builder.build(FILL, nocache="1")
    text = "FROM busybox\nRUN --mount=type=cache,id=trip,target=/c touch /c/began; while [ ! -e /c/go ]; do sleep 0.1; done; rm /c/go /c/began\n"
    other = BuildClient(builder.engine)
    thread = threading.Thread(target=lambda: other.build(text, nocache="1"))
    thread.start()
    root = next(path for path in builder.engine.root.rglob("build/caches") if path.is_dir())
    try:
        deadline = time.monotonic() + 30
        while not (begun := list(root.glob("*/began"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        for method, body in (("GET", None), ("PUT", b"")):
            with pytest.raises(Conflict, match="in use"):
                builder.client.request(method, "/build/mount", {"id": "trip"}, body)
    finally:
        (begun[0].parent / "go").touch()
        thread.join(30)
        other.client.close()
    assert builder.client.request("GET", "/build/mount", {"id": "trip"})
