"""Feed, records, compression and the shared downloads of the transfer room."""

from __future__ import annotations

import asyncio
import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import pytest
import zstandard

from dockyard.errors import Cancelled
from dockyard.oci import sha256_of
from dockyard.transfer.cancel import Cancel
from dockyard.transfer.compress import Packed
from dockyard.transfer.download import Downloads
from dockyard.transfer.feed import Feed
from dockyard.transfer.records import MAX_ROWS_PER_LAYER, Known, Records

A, B = sha256_of(b"a"), sha256_of(b"b")


async def test_a_sleeping_reader_makes_no_backlog_and_loses_no_state() -> None:
    feed = Feed(asyncio.get_running_loop())
    feed.state("Pulling fs layer", "one")
    for current in range(10_000):
        feed.count("Downloading", "one", current, 10_000, final=True)
    feed.state("Download complete", "one")
    items = feed.take()
    assert [item["status"] for item in items] == ["Pulling fs layer", "Downloading", "Download complete"]
    assert items[1]["progressDetail"] == {"current": 9_999, "total": 10_000}
    assert feed.take() == []


async def test_the_feed_ends_with_its_work_and_raises_its_error() -> None:
    feed, cancel = Feed(asyncio.get_running_loop()), Cancel()

    def work() -> None:
        feed.say("hello")
        raise KeyError("broken")

    with ThreadPoolExecutor(1) as pool:
        stream = feed.run(pool, work, cancel)
        assert await anext(stream) == {"status": "hello"}
        with pytest.raises(KeyError):
            await anext(stream)


async def test_leaving_the_feed_cancels_the_work() -> None:
    feed, cancel = Feed(asyncio.get_running_loop()), Cancel()
    ended = threading.Event()

    def work() -> None:
        feed.say("started")
        try:
            cancel.wait(60)
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        async with aclosing(feed.run(pool, work, cancel)) as stream:
            assert await anext(stream) == {"status": "started"}
        assert ended.is_set()


def test_records_keep_the_newest_and_are_bounded(tmp_path: Path) -> None:
    records = Records(tmp_path / "transfer.db")
    for number in range(MAX_ROWS_PER_LAYER + 20):
        records.add([Known(A, B, 5, "t", f"docker.io/r{number}")])
    rows = records.known(A)
    assert len(rows) == MAX_ROWS_PER_LAYER
    assert rows[0].repository == f"docker.io/r{MAX_ROWS_PER_LAYER + 19}"
    records.forget(rows[0])
    records.close()
    again = Records(tmp_path / "transfer.db")
    assert again.known(A) == rows[1:]
    again.close()


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_packed_layers_unpack_and_know_their_digest(kind: str) -> None:
    plain = [bytes([n]) * 300_000 for n in range(5)] + [b""]
    first, second = Packed(plain, kind), Packed(plain, kind)
    sent = b"".join(first)
    unpack = gzip.decompress if kind == "gzip" else zstandard.ZstdDecompressor().decompressobj().decompress
    assert unpack(sent) == b"".join(plain)
    assert (first.digest, first.size, first.taken) == (sha256_of(sent), len(sent), 1_500_000)
    assert b"".join(second) == sent, "the same layer must have the same digest on every push"


def test_a_layer_is_fetched_once_for_two_pulls_and_again_if_the_first_was_cancelled() -> None:
    downloads = Downloads(2)
    go, calls = threading.Event(), []

    def first() -> None:
        calls.append("first")
        go.wait(10)
        raise Cancelled("context canceled")

    future, ours = downloads.start(A, first)
    shared, also_ours = downloads.start(A, lambda: calls.append("never"))
    assert (ours, also_ours, shared) == (True, False, future)
    go.set()
    downloads.fetch(A, lambda: calls.append("second"), Cancel(), shared)
    assert calls == ["first", "second"]
    downloads.close()
