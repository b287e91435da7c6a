"""Where things rest: one suite for every blob store, one for both databases, and several replicas on one of each."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3

from dockyard.errors import DockyardError, InvalidParameter, NotFound, Unavailable
from dockyard.registry.core import Config
from dockyard.registry.database import Database, PostgresDatabase, SqliteDatabase, open_database
from dockyard.registry.drivers.bucket import BucketStore, Part, chain
from dockyard.registry.drivers.files import FileStore
from dockyard.registry.ports import BlobStore
from dockyard.testing.backends import azure, fresh_schema, google, postgres, s3
from dockyard.testing.registry_server import INDEX, MANIFEST, PASSWORD, Served, digest, served
from dockyard.web import pages


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3() as url:
        yield url


@pytest.fixture(scope="module")
def gs() -> Iterator[str]:
    with google() as (url, _):
        yield url


@pytest.fixture(scope="module")
def az() -> Iterator[str]:
    with azure() as (url, _):
        yield url


# ---- blob stores

_SERVICES = {"s3": "bucket", "google": "gs", "azure": "az"}


@pytest.fixture(params=["files", "memory", *_SERVICES])
async def store(request: Any, tmp_path: Path) -> Any:
    if request.param == "files":
        made: BlobStore = FileStore(tmp_path)
    elif request.param == "memory":
        made = BucketStore("memory:///")
    else:
        made = BucketStore(f"{request.getfixturevalue(_SERVICES[request.param])}/{tmp_path.name}")
    yield made
    await made.close()


async def add(store: BlobStore, upload: str, offset: int, data: bytes, algorithm: str = "sha256") -> int:
    ingest = await store.begin(upload, offset, algorithm)
    for start in range(0, len(data), 70_000):
        await ingest.write(data[start : start + 70_000])
    size = await ingest.sync()
    await ingest.close()
    return size


async def read(store: BlobStore, location: str, offset: int, count: int) -> bytes:
    return b"".join([piece async for piece in store.read(location, offset, count)])


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_from_begin_to_delete(store: BlobStore, algorithm: str) -> None:
    data = os.urandom(300_000)
    assert await add(store, "u1", 0, data[:100_000], algorithm) == 100_000
    assert await add(store, "u1", 100_000, data[100_000:], algorithm) == 300_000
    assert [s.location async for s in store.list("uploads")] == ["u1"]
    proven = await store.digest("u1", algorithm, 300_000)
    assert proven == digest(data, algorithm)
    location = await store.commit("u1", proven)
    assert await read(store, location, 0, 300_000) == data
    assert await read(store, location, 299_990, 10) == data[-10:]
    assert await read(store, location, 5, 0) == b""
    assert [s.location async for s in store.list("uploads")] == []
    assert [(s.location, s.size) async for s in store.list("blobs")] == [(location, 300_000)]
    await store.delete(location)
    await store.delete(location)
    assert [s.location async for s in store.list("blobs")] == []


async def test_a_location_is_never_used_twice(store: BlobStore) -> None:
    places = set()
    for upload in ("a", "b"):
        await add(store, upload, 0, b"same" * 10_000)
        places.add(await store.commit(upload, await store.digest(upload, "sha256", 40_000)))
    assert len(places) == 2


async def test_bytes_that_nobody_acknowledged_are_dropped(store: BlobStore) -> None:
    """A crash after writing and before the record: the client goes on at the offset that was acknowledged."""
    await add(store, "u", 0, b"a" * 100_000)
    await add(store, "u", 100_000, b"lost" * 25_000)
    await add(store, "u", 100_000, b"b" * 50_000)
    expected = b"a" * 100_000 + b"b" * 50_000
    assert await store.digest("u", "sha256", 150_000) == digest(expected)
    location = await store.commit("u", digest(expected))
    assert await read(store, location, 0, 150_000) == expected


async def test_bytes_that_are_missing_are_noticed(store: BlobStore) -> None:
    await add(store, "u", 0, b"a" * 100_000)

    async def go_on() -> None:  # files notice it when they are opened, buckets when they are put together
        await add(store, "u", 200_000, b"b")
        await store.digest("u", "sha256", 200_001)

    with pytest.raises(InvalidParameter):
        await go_on()


async def test_an_abandoned_upload_leaves_nothing(store: BlobStore) -> None:
    await add(store, "u", 0, b"a" * 100_000)
    await store.abandon("u")
    await store.abandon("u")
    assert [s.location async for s in store.list("uploads")] == []


async def test_another_process_finishes_an_upload(store: BlobStore, tmp_path: Path) -> None:
    """The hash that the first one kept in memory is not there: it is read back."""
    data = os.urandom(200_000)
    await add(store, "u", 0, data)
    if isinstance(store, FileStore):
        other: BlobStore = FileStore(tmp_path)
    else:
        assert isinstance(store, BucketStore)
        other = store
        store._states.clear()
    assert await other.digest("u", "sha256", 200_000) == digest(data)
    location = await other.commit("u", digest(data))
    assert await read(store, location, 0, 200_000) == data


async def test_nobody_changes_what_another_process_acknowledged(store: BlobStore, tmp_path: Path) -> None:
    """Two processes that write to one upload: whatever is committed is what its digest says."""
    ours, theirs = b"o" * 100_000, b"t" * 100_000
    other: BlobStore = FileStore(tmp_path) if isinstance(store, FileStore) else _second(store)
    first = await store.begin("u", 0, "sha256")
    await first.write(ours)
    try:
        second = await other.begin("u", 0, "sha256")
    except InvalidParameter:
        assert isinstance(store, FileStore), "files are locked"
        await first.sync()
        await first.close()
        second = await other.begin("u", 0, "sha256")  # late, with an old look at the database
        await second.write(theirs)
    else:
        await first.sync()
        await first.close()
        await second.write(theirs)
    await second.sync()
    await second.close()
    proven = await store.digest("u", "sha256", 100_000)
    location = await store.commit("u", proven)
    assert digest(await read(store, location, 0, 100_000)) == proven
    if not isinstance(store, FileStore):
        assert proven == digest(ours), "objects are not even touched"
    await other.close()


def _second(store: BlobStore) -> BlobStore:
    """Another process on the same bucket: the same objects, none of the memory."""
    assert isinstance(store, BucketStore)
    made = BucketStore.__new__(BucketStore)
    made.__dict__.update(store.__dict__ | {"_states": type(store._states)()})
    return made


@pytest.mark.parametrize(
    ("parts", "size", "expected"),
    [([], 0, []), ([], 5, None), ([(0, 5)], 5, [0]), ([(0, 5), (5, 5), (5, 3)], 8, [0, 2]), ([(0, 5), (5, 5), (5, 3)], 10, [0, 1]),
     ([(0, 3), (0, 5), (5, 5)], 10, [1, 2]), ([(0, 5), (6, 4)], 10, None), ([(0, 0), (0, 5)], 5, [1]), ([(0, 7)], 5, None)],
)  # fmt: skip
def test_objects_are_put_together_by_size(parts: list[tuple[int, int]], size: int, expected: list[int] | None) -> None:
    found = [Part(offset, length, 0.0, str(n)) for n, (offset, length) in enumerate(parts)]
    assert chain(found, size) == (None if expected is None else tuple(map(str, expected)))


async def test_a_large_upload_in_parts(store: BlobStore) -> None:
    piece = os.urandom(6_000_000)
    size = 0
    for _ in range(3):
        size = await add(store, "big", size, piece)
    whole = hashlib.sha256(piece * 3).hexdigest()
    location = await store.commit("big", await store.digest("big", "sha256", size))
    assert whole in location
    assert hashlib.sha256(await read(store, location, 0, size)).hexdigest() == whole


async def test_lists_longer_than_a_page(store: BlobStore) -> None:
    size, pieces = 0, [os.urandom(70_000) for _ in range(8)]
    for piece in pieces:
        size = await add(store, "many", size, piece)
    for upload in ("a", "b", "c", "d"):
        await add(store, upload, 0, b"x" * 70_000)
    assert sorted([s.location async for s in store.list("uploads")]) == ["a", "b", "c", "d", "many"]
    if isinstance(store, BucketStore):
        store._states.clear()
    location = await store.commit("many", await store.digest("many", "sha256", size))
    assert await read(store, location, 0, size) == b"".join(pieces)


async def test_bytes_that_vanished(store: BlobStore) -> None:
    await add(store, "u", 0, b"a" * 100_000)
    location = await store.commit("u", await store.digest("u", "sha256", 100_000))
    await store.delete(location)
    with pytest.raises(NotFound, match=digest(b"a" * 100_000)):
        await read(store, location, 0, 100_000)


_SERVICE = {"google": google, "azure": azure}


@pytest.mark.parametrize("kind", list(_SERVICE))
def test_a_bucket_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Told by a status, nothing that was acknowledged is lost, and the upload goes on when the bucket is back."""
    monkeypatch.setattr("dockyard.registry.drivers.bucket._RETRY", {"max_retries": 0})
    with _SERVICE[kind]() as (url, objects), served(tmp_path, Config(auth="none"), bucket=url) as it:
        client = it.client()
        kept, begun, rest = (os.urandom(n) for n in (100_000, 200_000, 50_000))
        client.blob("t/app", kept)
        raw, _ = client.manifest("t/app", "v1")
        place = client("POST", "/v2/t/app/blobs/uploads/").headers["location"]
        assert client("PATCH", place, begun).status == 202
        for failing in ("PUT", "GET"):
            objects.failing = lambda method, path, failing=failing: 503 if method == failing else 0  # type: ignore[misc]
            if failing == "PUT":
                refused = client("PATCH", place, rest, Content_Range="200000-249999")
            else:
                refused = client("GET", f"/v2/t/app/blobs/{digest(kept)}")
            assert (refused.status, json.loads(refused.data)["errors"][0]["code"]) == (503, "UNKNOWN")
            assert client("GET", "/v2/t/app/manifests/v1").data == raw, "what is in the database goes on"
            assert client("HEAD", f"/v2/t/app/blobs/{digest(kept)}").headers["content-length"] == "100000"
        objects.failing = lambda method, path: 0
        assert client("GET", place).headers["range"] == "0-199999", "what was acknowledged stands"
        assert client("PATCH", place, rest, Content_Range="200000-249999").status == 202
        assert client("PUT", f"{place}?digest={digest(begun + rest)}").status == 201
        for data in (kept, begun + rest):
            assert client("GET", f"/v2/t/app/blobs/{digest(data)}").data == data
        objects.whole.clear()
        assert client("GET", f"/v2/t/app/blobs/{digest(kept)}").status == 404, "bytes that somebody removed"


async def test_a_bucket_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    store = BucketStore("s3://none/x", endpoint="http://127.0.0.1:9", access_key_id="x", secret_access_key="y", region="us-east-1",
                        retry_config={"max_retries": 0})  # fmt: skip
    with pytest.raises(Unavailable):
        await add(store, "u", 0, b"x" * 100)


async def test_a_slow_reader_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of a call is none of a pull, which takes as long as its client does."""
    monkeypatch.setattr("dockyard.registry.drivers.bucket._CALLS", {"timeout": timedelta(seconds=1)})
    monkeypatch.setattr("dockyard.registry.drivers.bucket._RETRY", {"max_retries": 0})
    with google() as (url, objects):
        objects.put("blobs-of-tests/blobs/sha256/00/00-0", bytes(64_000_000))
        store, taken = BucketStore(url), 0
        async for piece in store.read("sha256/00/00-0", 0, 64_000_000):
            if not taken:
                await asyncio.sleep(1.5)  # longer than the bound; the rest is far more than sockets hold
            taken += len(piece)
    assert taken == 64_000_000


# ---- databases


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: Any, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "registry.db")
        return
    with fresh_schema(request.getfixturevalue("server"), f"d{abs(hash(tmp_path))}") as url:
        yield url


@pytest.fixture
async def opened(place: str) -> Any:
    made: list[Database] = []

    def another() -> Database:
        made.append(open_database(place))
        return made[-1]

    yield another
    for db in made:
        await db.close()


def set_value(name: str, value: str) -> Callable[[Any], None]:
    def work(tx: Any) -> None:
        tx.run("INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value))
        tx.changed()

    return work


def values(tx: Any) -> dict[str, str]:
    return dict(tx.all("SELECT name, value FROM settings"))


async def test_what_is_written_is_read_by_all(opened: Callable[[], Database]) -> None:
    one, other = opened(), opened()
    await one.write(set_value("a", "1"))
    assert await other.read(values) == {"a": "1"}
    assert await other.search(values) == {"a": "1"}


async def test_the_epoch_is_seen_by_all_at_once(opened: Callable[[], Database]) -> None:
    one, other = opened(), opened()
    for _ in range(5):
        before = await other.epoch()
        await one.write(set_value("a", "1"))
        assert await other.epoch() > before


async def test_a_piece_that_fails_takes_nobody_along(opened: Callable[[], Database]) -> None:
    db = opened()

    def bad(tx: Any) -> None:
        set_value("bad", "1")(tx)
        raise InvalidParameter("no")

    outcomes = await asyncio.gather(
        *(db.write(bad if n % 3 == 0 else set_value(f"k{n}", "1")) for n in range(30)), return_exceptions=True
    )
    assert [isinstance(o, InvalidParameter) for o in outcomes] == [n % 3 == 0 for n in range(30)]
    found = await db.read(values)
    assert set(found) == {f"k{n}" for n in range(30) if n % 3}


async def test_counts_are_not_lost_between_replicas(opened: Callable[[], Database]) -> None:
    one, other = opened(), opened()
    await one.write(set_value("n", "0"))

    def add_one(tx: Any) -> None:
        tx.run("UPDATE settings SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE name = 'n'")

    await asyncio.gather(*((one if n % 2 else other).write(add_one) for n in range(60)))
    assert (await one.read(values))["n"] == "60"


async def test_foreign_keys_hold(opened: Callable[[], Database]) -> None:
    db = opened()

    def work(tx: Any) -> None:
        tx.run("INSERT INTO accounts (name, kind, created) VALUES ('a', 'user', 0)")
        tx.run("INSERT INTO secrets (account, kind, digest, created) SELECT id, 'token', 'd', 0 FROM accounts")
        tx.run("DELETE FROM accounts")

    await db.write(work)
    assert await db.read(lambda tx: tx.all("SELECT * FROM secrets")) == []


async def test_a_newer_schema_is_left_alone(opened: Callable[[], Database]) -> None:
    db = opened()
    table = "PRAGMA user_version = 999" if isinstance(db, SqliteDatabase) else "UPDATE schema_version SET value = 999"
    if isinstance(db, SqliteDatabase):
        db._writer.execute(table)
    else:
        await db.write(lambda tx: tx.run(table))
    with pytest.raises(DockyardError, match="newer version"):
        opened()


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_a_server_that_went_away_comes_back(opened: Callable[[], Database]) -> None:
    db = opened()
    assert isinstance(db, PostgresDatabase)
    await db.write(set_value("a", "1"))

    def cut(tx: Any) -> None:
        tx.all("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()")

    await opened().write(cut)
    for _ in range(10):
        assert await db.read(values) == {"a": "1"}


def test_a_registry_whose_database_is_gone(server: str, tmp_path: Path) -> None:
    """503 while it is, also for health (a load balancer takes the replica out); nothing needs a restart when it is back."""
    with fresh_schema(server, "gone") as url, served(tmp_path, Config(auth="none"), database=url) as it:
        client = it.client()
        raw, _ = client.manifest("t/app", "v1")
        with psycopg.connect(server, autocommit=True) as other:
            other.execute("ALTER DATABASE gone WITH ALLOW_CONNECTIONS false")
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'gone'")
            for method, path in (("GET", "/health"), ("GET", "/v2/t/app/manifests/v1"), ("PUT", "/v2/t/app/manifests/v2"),
                                 ("POST", "/v2/t/app/blobs/uploads/"), ("GET", "/v2/_catalog")):  # fmt: skip
                answer = client(method, path, raw if method == "PUT" else None, Content_Type=MANIFEST)
                assert answer.status == 503, (path, answer.data)
                assert json.loads(answer.data)["errors"][0]["code"] == "UNKNOWN"
            other.execute("ALTER DATABASE gone WITH ALLOW_CONNECTIONS true")
        assert client("GET", "/health").status == 200
        assert client("GET", "/v2/t/app/manifests/v1").data == raw
        assert client("GET", "/v2/t/app/manifests/v2").status == 404
        client.manifest("t/app", "v2")


# ---- replicas


@pytest.fixture(scope="module")
def replicas(server: str, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Served]]:
    with fresh_schema(server, "replicas") as url:
        one, other = (tmp_path_factory.mktemp("replica") for _ in range(2))
        with served(one, database=url, bucket=bucket) as first, served(other, database=url, bucket=bucket) as second:
            first.run(first.registry.accounts.create("alice", password=PASSWORD, admin=True))
            yield first, second


def test_an_upload_wanders_between_replicas(replicas: tuple[Served, Served]) -> None:
    first, second = (it.client("alice", PASSWORD) for it in replicas)
    pieces = [os.urandom(120_000) for _ in range(4)]
    place = first("POST", "/v2/alice/app/blobs/uploads/").headers["location"]
    for number, piece in enumerate(pieces):
        answer = (first, second)[number % 2]("PATCH", place, piece)
        assert answer.status == 202, answer.data
        assert answer.headers["range"] == f"0-{120_000 * (number + 1) - 1}"
    whole = b"".join(pieces)
    assert second("PUT", f"{place}?digest={digest(whole)}").status == 201
    for client in (first, second):
        assert client("GET", f"/v2/alice/app/blobs/{digest(whole)}").data == whole
        part = client("GET", f"/v2/alice/app/blobs/{digest(whole)}", Range="bytes=119990-120009")
        assert (part.status, part.data) == (206, whole[119990:120010])


def test_a_tag_moves_for_all_at_once(replicas: tuple[Served, Served]) -> None:
    first, second = (it.client("alice", PASSWORD) for it in replicas)
    for number in range(6):
        pusher, puller = (first, second) if number % 2 else (second, first)
        _, pushed = pusher.manifest("alice/moving", "latest")
        for client in (puller, pusher):
            assert client("GET", "/v2/alice/moving/manifests/latest").headers["docker-content-digest"] == pushed


def test_a_token_of_one_opens_the_other(replicas: tuple[Served, Served]) -> None:
    first, second = replicas
    first.client("alice", PASSWORD).manifest("alice/token", "v1")
    token = first.client("alice", PASSWORD).token("repository:alice/token:pull")
    assert second.client(authorization=token)("GET", "/v2/alice/token/manifests/v1").status == 200


def test_two_writers_of_one_upload(replicas: tuple[Served, Served]) -> None:
    """One of them is told; nothing is mixed."""
    first, second = (it.client("alice", PASSWORD) for it in replicas)
    place = first("POST", "/v2/alice/race/blobs/uploads/").headers["location"]
    outcomes: list[tuple[int, bytes]] = []
    datas = [bytes([n]) * 200_000 for n in (1, 2)]
    threads = [
        threading.Thread(target=lambda c=c, d=d: outcomes.append((c("PATCH", place, d, Content_Range="0-199999").status, d)))
        for c, d in zip((first, second), datas, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    won = [d for status, d in outcomes if status == 202]
    assert len(won) == 1, outcomes
    assert all(status in {202, 400, 416} for status, _ in outcomes)
    done = first("PUT", f"{place}?digest={digest(won[0])}")
    if done.status == 201:
        assert second("GET", f"/v2/alice/race/blobs/{digest(won[0])}").data == won[0]
    else:
        assert json.loads(done.data)["errors"][0]["code"] == "DIGEST_INVALID", "never a lie: the client starts again"


def test_pushes_through_both_at_the_same_time(replicas: tuple[Served, Served]) -> None:
    failures: list[Exception] = []
    pushed: list[tuple[str, str]] = []

    def work(it: Served, number: int) -> None:
        client = it.client("alice", PASSWORD)
        try:
            for step in range(4):
                pushed.append((f"t{number}-{step}", client.manifest("alice/busy", f"t{number}-{step}")[1]))
        except (AssertionError, OSError, urllib3.exceptions.HTTPError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(it, n)) for n, it in enumerate(replicas * 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not failures
    assert len(pushed) == 24
    for it in replicas:
        client = it.client("alice", PASSWORD)
        assert json.loads(client("GET", "/v2/alice/busy/tags/list").data)["tags"] == sorted(tag for tag, _ in pushed)
        for tag, expected in pushed:
            assert client("HEAD", f"/v2/alice/busy/manifests/{tag}").headers["docker-content-digest"] == expected


def test_one_collection_at_a_time(replicas: tuple[Served, Served]) -> None:
    first, second = replicas
    begun = first.run(first.registry.collector.begin(_actor()))
    with pytest.raises(Unavailable):
        second.run(second.registry.collector.begin(_actor()))
    first.run(first.registry.collector.collect(begun))
    again = second.run(second.registry.collector.begin(_actor()))
    second.run(second.registry.collector.collect(again))


def _actor() -> Any:
    from dockyard.registry.core import Actor

    return Actor("test")


def test_every_page_on_postgresql(server: str, tmp_path: Path) -> None:
    """The pages ask more of SQL than the protocol does."""
    with fresh_schema(server, "pages") as url, served(tmp_path, Config(auth="none"), pages=pages, database=url) as it:
        client = it.client()
        it.run(it.registry.accounts.create("acme", kind="org"))
        it.run(it.registry.accounts.create("alice"))
        client.api("PUT", "accounts/acme/members/alice")
        client.api("POST", "accounts/acme/teams", name="crew")
        client.api("POST", "accounts/acme/webhooks", url="http://127.0.0.1:9/", events=["TAG_PUSH"])
        client.api("POST", "accounts/acme/rules", keep_last="3")
        client.manifest("acme/web", "v1")
        client.api("PUT", "repositories/acme/web/-/grant", team="acme/crew", level="read")
        client.api("PUT", "accounts/acme/grant", user="alice", level="admin")
        client.api("POST", "gc", wait=True)
        assert client.api("POST", "accounts/acme/retention")["tags"] == []
        for path in ("/", "/?q=web", "/r/acme/web", "/r/acme/web/-/tags/v1", "/r/acme/web/-/access", "/r/acme/web/-/mirrors",
                     "/r/acme/web/-/settings", "/n/acme", "/n/acme/-/members", "/n/acme/-/webhooks", "/n/acme/-/retention",
                     "/n/alice/-/tokens", "/system", "/system/accounts", "/system/upstreams", "/system/settings",
                     "/system/audit", "/metrics", "/health"):  # fmt: skip
            answer = client("GET", path)
            assert answer.status == 200, (path, answer.data[:500])


def test_referrers_and_deletes_over_there(replicas: tuple[Served, Served]) -> None:
    first, second = (it.client("alice", PASSWORD) for it in replicas)
    raw, subject = first.manifest("alice/refs", "v1")
    second.manifest("alice/refs", "", artifactType="application/x", subject={"mediaType": INDEX, "digest": subject, "size": len(raw)})
    listed = json.loads(first("GET", f"/v2/alice/refs/referrers/{subject}?artifactType=application/x").data)
    assert len(listed["manifests"]) == 1
    assert second("DELETE", f"/v2/alice/refs/manifests/{subject}").status == 202
    assert first("GET", "/v2/alice/refs/manifests/v1").status == 404
