"""Moving images beside dockerd and podman. ``python -m bench.images [--rounds N] [--xfs] [--write]``.

One image of five layers with the files of this host's /usr, at least 90 MB each; the docker CLI and Debian's docker-registry are
the same for all. In every round each engine loads, saves, pushes, removes, pulls, runs twice and removes again. Root.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import peers
from bench.peers import FALLBACK, OURS, SCRATCH, Report, docker, say
from dockyard.testing.engines import PrivateEngine
from dockyard.testing.kit import BUSYBOX, CREATED, PATH

PAGE = Path(__file__).parents[1] / "docs" / "image-numbers.md"
LAYERS, LAYER_BYTES = 5, 90 << 20
NAME, REGISTRY = "bench/tree:1", "127.0.0.1:5000"
REMOTE = f"{REGISTRY}/{NAME}"
STEPS = ("load", "save", "push", "rmi", "pull", "first run", "second run")
BIG_LAYERS, BIG_BYTES = 4, 512 << 20


def host_files() -> Iterator[Path]:
    """Regular files and links below /usr in a fixed order; nothing of this project's own tools."""
    for folder in ("/usr/share", "/usr/lib", "/usr/bin", "/usr/include", "/usr/local"):
        for parent, names, files in os.walk(folder):
            names.sort()
            for name in sorted(files):
                yield Path(parent, name)


def make_image(path: Path) -> tuple[int, int]:
    """The docker archive at ``path``; (bytes, entries) of its layers."""
    files, layers, entries = host_files(), [], 0
    for number in range(LAYERS):
        layer = path.with_suffix(f".{number}")
        with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
            if number == 0:
                _add_program(tar)
            size = 0
            for file in files:
                with contextlib.suppress(OSError):
                    info = tar.gettarinfo(file)
                    if info.isfile() or info.issym():
                        if info.isfile():
                            with file.open("rb") as data:
                                tar.addfile(info, data)
                        else:
                            tar.addfile(info)
                        size += info.size
                        entries += 1
                if size >= LAYER_BYTES:
                    break
        layers.append(layer)
    size = sum(layer.stat().st_size for layer in layers)
    pack(path, layers)
    for layer in layers:
        layer.unlink()
    return size, entries


def _add_program(tar: tarfile.TarFile) -> None:
    for name in ("bin", "etc", "proc", "dev", "sys", "tmp"):
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
    tar.add(BUSYBOX.resolve(), "bin/busybox")
    link = tarfile.TarInfo("bin/true")
    link.type, link.linkname = tarfile.SYMTYPE, "busybox"
    tar.addfile(link)


def pack(path: Path, layers: list[Path], name: str = NAME) -> None:
    diff_ids = []
    with tarfile.open(path, "w") as out:
        for layer in layers:
            with layer.open("rb") as file:
                diff_ids.append(hashlib.file_digest(file, "sha256").hexdigest())
            out.add(layer, f"{diff_ids[-1]}/layer.tar")
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "created": CREATED, "config": {"Env": [PATH], "Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}" for diff_id in diff_ids]},
            "history": [{"created": CREATED, "created_by": f"layer {diff_id[:12]}"} for diff_id in diff_ids],
        }).encode()  # fmt: skip
        image = hashlib.sha256(config).hexdigest()
        row = {"Config": f"{image}.json", "RepoTags": [name], "Layers": [f"{diff_id}/layer.tar" for diff_id in diff_ids]}
        for member, data in ((f"{image}.json", config), ("manifest.json", json.dumps([row]).encode())):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


class Registry:
    """Debian's docker-registry in the engine's own network namespace, so that every engine has it on one address."""

    def __init__(self, engine: PrivateEngine) -> None:
        self.data = engine.root / "registry"
        self.data.mkdir(exist_ok=True)
        config = {
            "version": 0.1, "log": {"level": "error", "accesslog": {"disabled": True}},
            "http": {"addr": REGISTRY, "secret": "bench"}, "storage": {"filesystem": {"rootdirectory": str(self.data)}},
        }  # fmt: skip
        (engine.root / "registry.yml").write_text(json.dumps(config))
        command = engine.inside("docker-registry", "serve", str(engine.root / "registry.yml"))
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def empty(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(exist_ok=True)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def save(engine: PrivateEngine, name: str) -> float:
    begin = time.perf_counter()
    subprocess.run(["docker", "-H", engine.host, "save", name], check=True, stdout=subprocess.DEVNULL, timeout=600)
    return time.perf_counter() - begin


def one_round(engine: PrivateEngine, registry: Registry, archive: Path) -> dict[str, float]:
    took: dict[str, float] = {}
    took["load"] = docker(engine, "load", "-q", "-i", str(archive))
    took["save"] = save(engine, NAME)
    docker(engine, "tag", NAME, REMOTE)
    registry.empty()
    took["push"] = docker(engine, "push", "-q", REMOTE)
    docker(engine, "rmi", REMOTE)
    took["rmi"] = docker(engine, "rmi", NAME)
    os.sync()
    took["pull"] = docker(engine, "pull", "-q", REMOTE)
    words = ("run", "--rm", "--network", "none", REMOTE, "true")
    took["first run"] = docker(engine, *words)
    took["second run"] = docker(engine, *words)
    docker(engine, "rmi", REMOTE)
    os.sync()  # what one engine wrote is not written while another is measured
    return took


def side_by_side(running: dict[str, PrivateEngine], kinds: list[str], count: int, archive: Path, report: Report) -> None:
    registries = {kind: Registry(running[kind]) for kind in kinds}
    taken: dict[str, dict[str, list[float]]] = {step: {kind: [] for kind in kinds} for step in STEPS}
    try:
        for number in range(count):
            for place in range(len(kinds)):
                kind = kinds[(number + place) % len(kinds)]
                took = one_round(running[kind], registries[kind], archive)
                say(f"round {number + 1}, {kind}: " + ", ".join(f"{step} {took[step]:.2f} s" for step in STEPS))
                for step in STEPS:
                    taken[step][kind].append(took[step])
    finally:
        for registry in registries.values():
            registry.close()
    goals = {"load": "4 x", "save": "2 x", "push": "3 x", "rmi": "10 x", "pull": "4 x", "first run": "as the second"}
    for step in STEPS:
        report.row(
            f"{step}", "s", {kind: statistics.median(values) for kind, values in taken[step].items()},
            goal=goals.get(step, ""),
        )  # fmt: skip
    ready = {
        kind: statistics.median(
            pull + run for pull, run in zip(taken["pull"][kind], taken["first run"][kind], strict=True)
        )
        for kind in kinds
    }
    report.row("pull and run once", "s", dict(ready), goal="4 x")


def memory(engine: PrivateEngine, report: Report) -> None:
    """The most that our daemon held during a pull of 2 GB, from a registry beside it."""
    registry = Registry(engine)
    archive = SCRATCH / "big.tar"
    try:
        layers = []
        for number in range(BIG_LAYERS):
            layer = archive.with_suffix(f".{number}")
            with tarfile.open(layer, "w") as tar:
                info = tarfile.TarInfo(f"data{number}")
                info.size = BIG_BYTES
                tar.copybufsize = 1 << 20
                tar.addfile(info, _Noise(number))
            layers.append(layer)
        pack(archive, layers, f"{REGISTRY}/big:1")
        docker(engine, "load", "-q", "-i", str(archive))
        docker(engine, "push", "-q", f"{REGISTRY}/big:1")
        docker(engine, "rmi", f"{REGISTRY}/big:1")
        Path(f"/proc/{engine.process.pid}/clear_refs").write_text("5")  # the high-water mark begins anew
        took = docker(engine, "pull", "-q", f"{REGISTRY}/big:1")
        status = Path(f"/proc/{engine.process.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        report.note(f"Pull of 2 GB in {BIG_LAYERS} layers that do not compress: {took:.1f} s, the daemon's highest resident memory "
                    f"{peak:.0f} MB (goal: under 150 MB).")  # fmt: skip
        docker(engine, "rmi", f"{REGISTRY}/big:1")
    finally:
        registry.close()
        for file in SCRATCH.glob("big.*"):
            file.unlink()


class _Noise(io.RawIOBase):
    """Bytes that do not compress, the same each time."""

    def __init__(self, seed: int) -> None:
        self._state = hashlib.shake_128(str(seed).encode()).digest(1 << 20) * 2
        self._count = 0

    def read(self, size: int = -1) -> bytes:
        self._count += 1
        shift = self._count * 7919 % (1 << 20)
        return self._state[shift : shift + min(size, 1 << 20)]

    def readable(self) -> bool:
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="dockerd,podman")
    parser.add_argument("--no-fallback", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--xfs", action="store_true", help="all engines on an XFS in a file: see peers.on_xfs")
    parser.add_argument("--write", action="store_true", help="write docs/image-numbers.md")
    given = parser.parse_args()
    others = [name for name in given.peers.split(",") if name]
    kinds = [OURS, *others, *([] if given.no_fallback else [FALLBACK])]
    peers.install(*others, "docker-registry")
    with peers.on_xfs() if given.xfs else contextlib.nullcontext():
        measure(given, kinds)


def measure(given: argparse.Namespace, kinds: list[str]) -> None:
    report = Report("Images: measured side by side", kinds)
    report.note(f"Engines, registry and archive lie on {'an XFS in a file' if given.xfs else 'the host file system'}.")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    archive = SCRATCH / "tree.tar"
    size, entries = make_image(archive)
    report.note(f"The image: {LAYERS} layers, {size / 1e6:.0f} MB, {entries} entries; save goes to /dev/null.")
    report.note("rmi of ours answers when the image is gone for every caller; its files are deleted behind that.")
    try:
        with peers.engines(kinds) as running:
            side_by_side(running, kinds, given.rounds, archive, report)
            if not given.no_memory:
                memory(running[OURS], report)
    finally:
        archive.unlink(missing_ok=True)
    print(report.text())
    if given.write:
        report.write(PAGE)


if __name__ == "__main__":
    main()
