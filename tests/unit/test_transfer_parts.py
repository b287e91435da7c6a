"""Feed, records, compression and the shared downloads of the transfer room."""

from __future__ import annotations

import asyncio
import gzip
import io
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import pytest
import zstandard
from urllib3 import HTTPResponse

from dockyard.errors import Cancelled
from dockyard.oci import sha256_of
from dockyard.transfer.cancel import Cancel
from dockyard.transfer.compress import Packed
from dockyard.transfer.download import Downloads
from dockyard.transfer.feed import Feed
from dockyard.transfer.model import ANONYMOUS, Context
from dockyard.transfer.records import MAX_ROWS_PER_LAYER, Known, Records
from dockyard.transfer.session import Session, TokenCache
from dockyard.transfer.settings import Endpoint
from dockyard.transfer.transport import trusted

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


class Scripted:
    """A transport whose registry trusts one token only; the token server tells the present one."""

    def __init__(self) -> None:
        self.right, self.asked = "old", 0

    def request(
        self, endpoint: Endpoint, method: str, url: str, headers: Mapping[str, str], body: object = None
    ) -> HTTPResponse:
        if url.startswith("https://auth/"):
            self.asked += 1
            return answer(200, b'{"token": "%s", "expires_in": 300}' % self.right.encode())
        if headers.get("Authorization") == f"Bearer {self.right}":
            return answer(200, b"{}")
        return answer(401, b"{}", {"WWW-Authenticate": 'Bearer realm="https://auth/token",service="site"'})


def answer(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    sized = {"Content-Length": str(len(body)), **(headers or {})}
    return HTTPResponse(io.BytesIO(body), headers=sized, status=status, preload_content=False)


def ask(transport: Scripted, tokens: TokenCache) -> int:
    session = Session(transport, tokens, Endpoint("r.corp", "https://r.corp"), ANONYMOUS, Context("pull"), Cancel())  # type: ignore[arg-type]
    return session.request("GET", "https://r.corp/v2/a/tags/list", want=(200,), scopes=("repository:a:pull",)).status


def test_a_cached_token_that_is_refused_is_asked_for_anew_once() -> None:
    transport, tokens = Scripted(), TokenCache()
    assert ask(transport, tokens) == ask(transport, tokens) == 200
    assert transport.asked == 1
    transport.right = "new"
    assert ask(transport, tokens) == 200
    assert transport.asked == 2


def test_a_file_put_into_certs_d_changes_the_trust_at_once(tmp_path: Path) -> None:
    endpoint = Endpoint("r.corp:5000", "https://r.corp:5000")
    before = trusted(endpoint, [tmp_path])
    (tmp_path / endpoint.host).mkdir()
    (tmp_path / endpoint.host / "ca.crt").write_text("one")
    after = trusted(endpoint, [tmp_path])
    assert before == () != after == trusted(endpoint, [tmp_path])
