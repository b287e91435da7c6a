"""``dockyard image bootstrap NAME...``: makes base images here and loads them into the engine, whichever it is."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dockyard.client import Client
from dockyard.errors import DockyardError

USAGE = """Usage:  dockyard image bootstrap NAME [NAME...]

Make base images without any registry: debian:SUITE[-slim] from the host's Debian mirror, busybox, alpine (a stand-in
made of busybox) and hello-world from busybox-static. What was made is cached in /var/cache/dockyard.

Examples:
  dockyard image bootstrap debian:bookworm-slim
  dockyard image bootstrap busybox alpine:3.10"""
LOAD_TIMEOUT = 300.0


def main(argv: Sequence[str]) -> int:
    names = [word for word in argv if not word.startswith("-")]
    if not names or set(argv) & {"-h", "--help"}:
        print(USAGE)
        return 0 if set(argv) & {"-h", "--help"} else 125
    try:
        with Client.from_env() as client:
            for name in names:
                print(f"{name}: making", flush=True)
                _load(client, name)
    except DockyardError as error:
        print(f"dockyard: {error}", file=sys.stderr)
        return 1
    return 0


def _load(client: Client, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="dockyard-bootstrap-") as scratch:
        archive = Path(scratch) / "image.tar"
        asyncio.run(_make(Path(scratch) / "store", name, archive))
        with archive.open("rb") as file:
            messages = client.objects(
                "POST", "/images/load", body=_pieces(file), headers={"Content-Type": "application/x-tar"},
                timeout=LOAD_TIMEOUT,
            )  # fmt: skip
            for message in messages:
                print(f"{name}: {message.get('stream', message.get('error', '')).strip()}")


def _pieces(file) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
    while piece := file.read(1 << 20):
        yield piece


async def _make(root: Path, name: str, archive: Path) -> None:
    from dockyard.storage.bootstrap import bootstrap
    from dockyard.storage.store import Store

    store = await Store.open(root)
    try:
        image = await bootstrap(store, name)
        with archive.open("wb") as out:
            async for piece in store.save([image.repo_tags[0]]):
                out.write(piece)
    finally:
        await store.close(unmount=True)
