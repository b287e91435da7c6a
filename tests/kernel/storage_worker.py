"""A process that works on a store until it is killed: ``storage_worker.py ROOT SEED ARCHIVE``.

It says on stdout what it may be held to: ``have ID`` once an image is recorded, ``dropping ID`` before one is removed.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

from dockyard.oci.documents import encode
from dockyard.storage import LayerSource, Store


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def slowly(data: bytes, piece: int = 64 << 10) -> AsyncIterator[bytes]:
    """As a network gives it: the loop turns between the pieces."""
    for start in range(0, len(data), piece):
        await asyncio.sleep(0)
        yield data[start : start + piece]


def layer(dice: random.Random) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(dice.randrange(1, 40)):
            info = tarfile.TarInfo(f"dir{number % 5}/file{number}")
            info.size = dice.randrange(0, 60_000)
            tar.addfile(info, io.BytesIO(dice.randbytes(info.size)))
    return out.getvalue()


class Worker:
    def __init__(self, store: Store, dice: random.Random, archive: bytes) -> None:
        self.store, self.dice, self.archive, self.count = store, dice, archive, 0

    async def load(self) -> None:
        for loaded in await self.store.load(slowly(self.archive)):
            say(f"have {loaded.id}")

    async def pull(self) -> None:
        """As the transfer room does it: layers at once under a lease, then the image."""
        with self.store.lease() as lease:
            works = [self.store.ingest_layer(slowly(layer(self.dice)), lease) for _ in range(3)]
            diff_ids = [made.diff_id for made, _ in await asyncio.gather(*works)]
            document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
            image = self.store.register_image(encode(document), layers=[LayerSource(each) for each in diff_ids])
        say(f"have {image.id}")

    async def commit(self) -> None:
        images = self.store.list_images()
        if not images:
            return
        self.count += 1
        key = f"work-{os.getpid()}-{self.count}"
        self.store.prepare(key, self.dice.choice(images).id)
        (self.store.mount(key) / "changed").write_bytes(self.dice.randbytes(200_000))
        image = await self.store.commit(key, {"Cmd": ["true"]}, ref=f"made:{self.count}")
        say(f"have {image.id}")
        await self.store.unmount(key)
        self.store.remove(key)

    async def drop(self) -> None:
        images = [image for image in self.store.list_images() if not self.store.images.children(image.id)]
        if len(images) > 3:
            image = self.dice.choice(images)
            say(f"dropping {image.id}")
            self.store.remove_image(image.id, force=True, prune=False)
            self.store.collect()


async def main(root: Path, seed: int, archive: Path) -> None:
    worker = Worker(await Store.open(root), random.Random(seed), archive.read_bytes())
    say("ready")
    while True:
        await worker.dice.choice([worker.load, worker.pull, worker.pull, worker.commit, worker.drop])()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
