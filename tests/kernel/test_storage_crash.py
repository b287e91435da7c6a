"""The store is killed at random moments of load, pull, commit, removal and collection: nothing is lost, nothing is left.

``DOCKYARD_CRASH_ROUNDS`` says how often (200 by hand, few in the everyday run); rounds are seeded, so one can be repeated.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import runpy
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from dockyard.kernel.mount import read_mounts
from dockyard.storage import Store, ingest

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]
ROUNDS = int(os.environ.get("DOCKYARD_CRASH_ROUNDS", "8"))
WORKER = Path(__file__).with_name("storage_worker.py")
START_LIMIT = 60.0
LONGEST = 0.6
"""Seconds of work before the kill, at most."""


def archive(path: Path) -> Path:
    """Two images that share a layer, as ``docker save`` writes them."""
    dice, rows = random.Random(1), []
    layers = [runpy.run_path(str(WORKER))["layer"](dice) for _ in range(3)]
    with tarfile.open(path, "w") as out:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))

        names = [hashlib.sha256(data).hexdigest() for data in layers]
        for name, data in zip(names, layers, strict=True):
            add(f"{name}/layer.tar", data)
        for number, chosen in enumerate((names[:2], names[1:])):
            diff_ids = [f"sha256:{name}" for name in chosen]
            config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
            add(f"{number}.json", config)
            rows.append({
                "Config": f"{number}.json", "RepoTags": [f"loaded:{number}"],
                "Layers": [f"{name}/layer.tar" for name in chosen],
            })  # fmt: skip
        add("manifest.json", json.dumps(rows).encode())
    return path


def work_and_die(root: Path, source: Path, seed: int, seconds: float) -> list[str]:
    """Everything that the worker said before it was killed."""
    command = [sys.executable, str(WORKER), str(root), str(seed), str(source)]
    said, complaints = source.with_name("said"), source.with_name("complaints")
    with said.open("wb") as out, complaints.open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
    try:
        end = time.monotonic() + START_LIMIT
        while not said.stat().st_size and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(seconds)  # the moment of death, not a wait for something
        assert process.poll() is None, f"seed {seed}: the worker ended: {complaints.read_text()[-2000:]}"
    finally:
        process.kill()
        process.wait()
    return said.read_text().splitlines()


async def check(root: Path, promised: set[str], seed: int) -> None:
    store = await Store.open(root)
    try:
        assert store.layers.lost == [], seed
        known = {image.id for image in store.list_images()}
        assert promised <= known, f"seed {seed}: lost {promised - known}"
        for layer in store.layers.all():
            assert ingest.verify_tar(store.layers.path(layer.diff_id, "layer.tar"), layer.diff_id), seed
        for number, image in enumerate(store.list_images()):
            store.prepare(f"look-{number}", image.id)
            assert list(store.mount(f"look-{number}").iterdir()), seed
            await store.unmount(f"look-{number}")
            store.remove(f"look-{number}")
        assert store.collect() == [], f"seed {seed}: layers that no image holds were left by open()"
        assert sorted(os.listdir(root / "layers")) == sorted(str(layer.number) for layer in store.layers.all()), seed
        assert os.listdir(root / "ingest") == [], seed
    finally:
        await store.close(unmount=True)
    assert os.listdir(root / "trash") == [], seed
    assert read_mounts(under=str(root)) == [], seed


async def test_killed_at_random(tmp_path: Path) -> None:
    root, source = tmp_path / "root", archive(tmp_path / "images.tar")
    promised: set[str] = set()
    for seed in range(ROUNDS):
        dice = random.Random(seed)
        for line in work_and_die(root, source, seed, dice.uniform(0, LONGEST)):
            verb, _, image = line.partition(" ")
            (promised.add if verb == "have" else promised.discard)(image)
        await check(root, promised, seed)
        if seed % 20 == 19:  # keep the store small, so that a round stays short
            await empty(root)
            promised.clear()
    assert ROUNDS < 4 or promised or ROUNDS % 20 == 0, "the worker never finished anything"


async def empty(root: Path) -> None:
    store = await Store.open(root)
    for snapshot in store.snapshots.all():
        await store.unmount(snapshot.key)
        store.remove(snapshot.key)
    while images := [image for image in store.list_images() if not store.images.children(image.id)]:
        for image in images:
            store.remove_image(image.id, force=True)
    await store.close(unmount=True)
