"""Images for conformance runs that need no registry: docker archives made from this host's busybox and Debian mirror.

The names are those that the suites of others ask for; the content is a busybox tree (``alpine:3.10``, ``busybox``),
one static program (``hello-world``), a small Debian with Python (``python:3.13-alpine``), or Debian's docker-registry.
Every engine loads the same file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
CREATED = "2024-01-01T00:00:00Z"
EPOCH = 1704067200
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUSYBOX_NAMES = ("alpine:3.10", "alpine:latest", "busybox:latest", "busybox:buildroot-2014.02")
PYTHON_NAMES = ("python:3.13-alpine", "python:3.14-alpine", "python:latest")
REGISTRY_NAMES = ("registry:2",)
REGISTRY = Path("/usr/bin/docker-registry")
_FOLDERS = "bin sbin etc root home usr usr/bin usr/sbin lib var var/run var/opt proc sys dev mnt opt srv run"
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\npostgres:x:70:\nnogroup:x:65534:\n",
    "etc/os-release": 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.10.9\nPRETTY_NAME="Alpine Linux v3.10"\n',
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/shadow": "root:*::0:::::\nnobody:!::0:::::\n",
}


def archive(path: Path, *, python: bool = False) -> Path:
    """A docker archive with the whole kit at ``path`` (kept if it is there). ``python`` adds the Debian and registry images."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    busybox = _busybox_layer()
    images: list[tuple[tuple[str, ...], bytes, dict[str, Any]]] = [
        # An image each: a prune unties the further names of an image that a container uses.
        *(((name,), busybox, {"Cmd": ["/bin/sh"]}) for name in BUSYBOX_NAMES),
        (("hello-world:latest",), _hello_layer(), {"Cmd": ["/bin/echo", "Hello from Docker!"]}),
    ]
    if python:
        images.append((REGISTRY_NAMES, _registry_layer(), {"Cmd": ["/bin/registry", "serve", "/config.yml"]}))
        images.append((PYTHON_NAMES, _python_layer(path.parent), {"Cmd": ["python3"]}))
    part = path.with_suffix(".part")
    with tarfile.open(part, "w") as out:
        _write(out, images)
    part.rename(path)
    return path


def _write(out: tarfile.TarFile, images: Iterable[tuple[tuple[str, ...], bytes, dict[str, Any]]]) -> None:
    manifest: list[dict[str, Any]] = []
    written: set[str] = set()
    for names, layer, settings in images:
        diff_id = hashlib.sha256(layer).hexdigest()
        config = json.dumps(
            {
                "architecture": "amd64", "os": "linux", "created": CREATED,
                "config": {"Env": [PATH], **settings}, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
                "history": [{"created": CREATED, "created_by": f"kit {names[0]}"}],
            },
            sort_keys=True,
        ).encode()  # fmt: skip
        image_id = hashlib.sha256(config).hexdigest()
        _add(out, f"{image_id}.json", config)
        if diff_id not in written:
            _add(out, f"{diff_id}/layer.tar", layer)
            written.add(diff_id)
        tags = [f"docker.io/library/{name}" for name in names]
        manifest.append({"Config": f"{image_id}.json", "RepoTags": tags, "Layers": [f"{diff_id}/layer.tar"]})
    _add(out, "manifest.json", json.dumps(manifest).encode())


def _busybox_layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in _FOLDERS.split():
            _add(tar, name, b"", tarfile.DIRTYPE, 0o755)
        for name in ("tmp", "var/tmp"):
            _add(tar, name, b"", tarfile.DIRTYPE, 0o1777)
        _add(tar, "bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
        done = subprocess.run([BUSYBOX, "--list-full"], check=True, capture_output=True, text=True)
        for applet in done.stdout.split():
            if applet != "bin/busybox" and applet.startswith(("bin/", "sbin/", "usr/bin/", "usr/sbin/")):
                _add(tar, applet, b"", tarfile.SYMTYPE, 0o777, link="/bin/busybox")
        for name, text in _FILES.items():
            _add(tar, name, text.encode())
    return buffer.getvalue()


def _hello_layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, "bin", b"", tarfile.DIRTYPE, 0o755)
        _add(tar, "bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
        _add(tar, "bin/echo", b"", tarfile.SYMTYPE, 0o777, link="busybox")
    return buffer.getvalue()


def _registry_layer() -> bytes:
    """Debian's docker-registry with the two files of libc that it needs, on port 5000."""
    config = {
        "version": 0.1, "http": {"addr": ":5000", "secret": "for-tests"},
        "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}, "delete": {"enabled": True}},
    }  # fmt: skip
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("bin", "lib64", "lib", "lib/x86_64-linux-gnu", "tmp", "etc", "var", "var/lib", "var/lib/registry"):
            _add(tar, name, b"", tarfile.DIRTYPE, 0o755)
        _add(tar, "bin/registry", REGISTRY.read_bytes(), mode=0o755)
        for library in ("lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"):
            _add(tar, library, Path("/", library).resolve().read_bytes(), mode=0o755)
        _add(tar, "config.yml", json.dumps(config).encode())
    return buffer.getvalue()


def _python_layer(folder: Path) -> bytes:
    """Debian with Python from the mirror that this host uses; ``python`` is a link as in the official images."""
    target = folder / "python.tar"
    command = ["mmdebstrap", "--variant=minbase", "--include=python3-minimal", "bookworm", str(target)]
    environ = os.environ | {"SOURCE_DATE_EPOCH": str(EPOCH)}
    lists = (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.sources"))
    sources = [str(path) for path in lists if path.is_file()]
    subprocess.run([*command, *sources], check=True, capture_output=True, env=environ)
    with tarfile.open(target, "a") as tar:
        _add(tar, "./usr/bin/python", b"", tarfile.SYMTYPE, 0o777, link="python3")
    data = target.read_bytes()
    target.unlink()
    return data


def _add(
    tar: tarfile.TarFile, name: str, data: bytes, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = ""
) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.mode, entry.linkname, entry.mtime = len(data), kind, mode, link, EPOCH
    tar.addfile(entry, io.BytesIO(data))
