"""The life of content: collection, quotas, immutable tags, retention, webhooks, proxy cache, mirrors. Time is ours."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dockyard.errors import Unavailable
from dockyard.registry.core import Actor, Config, repeat
from dockyard.registry.errors import UPSTREAM_FAILED
from dockyard.registry.retention import Rule, Tag, plan
from dockyard.registry.webhooks import PAUSES
from dockyard.testing.registry_server import INDEX, MANIFEST, PASSWORD, Client, Served, digest, served

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(tmp_path: Path, clock: Clock) -> Iterator[Served]:
    with served(tmp_path, Config(auth="none"), clock=clock) as it:
        yield it


@pytest.fixture
def client(registry: Served) -> Client:
    return registry.client()


def collect(it: Served, *, dry: bool = False, untagged: float | None = None) -> Any:
    begun = it.run(it.registry.collector.begin(Actor("test"), dry_run=dry))
    return it.run(it.registry.collector.collect(begun, untagged_seconds=untagged))


def files(it: Served) -> int:
    root = it.registry.core.blobs.root  # type: ignore[attr-defined]
    return sum(1 for place in root.rglob("*") if place.is_file() and place.parent.parent.parent.name == "blobs")


# ---- collection


def test_only_what_nobody_needs_goes(registry: Served, client: Client, clock: Clock) -> None:
    kept = [os.urandom(50_000) for _ in range(2)]
    client.image("t/app", "v1", kept, {"os": "linux"})
    lost = client.blob("t/app", os.urandom(50_000))
    small = client.blob("t/app", b"small")
    clock.now += HOUR
    assert collect(registry).blobs == 0, "the grace window"
    clock.now += 2 * HOUR
    assert collect(registry, dry=True).links == 2
    assert client("HEAD", f"/v2/t/app/blobs/{lost}").status == 200, "a dry run changes nothing"
    for place in registry.registry.core.blobs.root.rglob("*"):  # type: ignore[attr-defined]
        if place.is_file() and "blobs" in str(place):
            os.utime(place, (clock.now - 3 * HOUR,) * 2)
    done = collect(registry)
    assert (done.links, done.blobs) == (2, 2)
    assert done.freed == 50_005
    for gone in (lost, small):
        assert client("HEAD", f"/v2/t/app/blobs/{gone}").status == 404
    for data in kept:
        assert client("GET", f"/v2/t/app/blobs/{digest(data)}").data == data
    assert files(registry) == 2


def test_a_deleted_image_frees_its_bytes_but_not_a_neighbour_s(registry: Served, client: Client, clock: Clock) -> None:
    shared, own = os.urandom(40_000), os.urandom(30_000)
    _, first = client.image("t/a", "v1", [shared, own], {"os": "linux"})
    client.image("t/b", "v1", [shared], {"os": "linux"})
    assert client("DELETE", f"/v2/t/a/manifests/{first}").status == 202
    clock.now += 3 * HOUR
    collect(registry)
    assert client("HEAD", f"/v2/t/a/blobs/{digest(own)}").status == 404
    assert client("HEAD", f"/v2/t/a/blobs/{digest(shared)}").status == 404
    assert client("GET", f"/v2/t/b/blobs/{digest(shared)}").data == shared


def test_untagged_manifests_go_when_asked_for(registry: Served, client: Client, clock: Clock) -> None:
    raw, child = client.manifest("t/app", "")
    _, signature = client.manifest("t/app", "", subject={"mediaType": MANIFEST, "digest": child, "size": len(raw)})
    body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": MANIFEST, "digest": child, "size": len(raw)}]}
    client.put_manifest("t/app", "index", body, INDEX)
    _, old = client.manifest("t/app", "moving")
    client.manifest("t/app", "moving")
    clock.now += 3 * DAY
    assert collect(registry).manifests == 0, "off by default"
    assert collect(registry, untagged=DAY).manifests == 1
    assert client("HEAD", f"/v2/t/app/manifests/{old}").status == 404
    for stays in (child, signature, "index", "moving"):
        assert client("HEAD", f"/v2/t/app/manifests/{stays}").status == 200


def test_pushing_again_what_the_collector_looks_at(registry: Served, client: Client, clock: Clock) -> None:
    data = os.urandom(40_000)
    client.blob("t/app", data)
    clock.now += 3 * HOUR
    client.blob("t/app", data)
    collect(registry)
    client.image("t/app", "v1", [data], {"os": "linux"})
    assert client("GET", f"/v2/t/app/blobs/{digest(data)}").data == data


def test_uploads_that_nobody_ends(registry: Served, client: Client, clock: Clock) -> None:
    place = client("POST", "/v2/t/app/blobs/uploads/").headers["location"]
    client("PATCH", place, os.urandom(100_000))
    clock.now += DAY / 2
    assert collect(registry).uploads == 0
    clock.now += DAY
    assert collect(registry).uploads == 1
    assert client("GET", place).status == 404
    assert not list((registry.registry.core.blobs.root / "uploads").iterdir())  # type: ignore[attr-defined]


def test_bytes_that_a_crash_left(registry: Served, client: Client, clock: Clock) -> None:
    root = registry.registry.core.blobs.root  # type: ignore[attr-defined]
    client.image("t/app", "v1", [os.urandom(40_000)], {"os": "linux"})
    orphan = root / "blobs" / "sha256" / "aa" / ("a" * 64 + "-00000000")
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"lost")
    (root / "uploads" / "forgotten").write_bytes(b"lost")
    for place in (*root.rglob("*"),):
        if place.is_file() and "registry.db" not in place.name:
            os.utime(place, (clock.now - 2 * DAY,) * 2)
    assert collect(registry).orphans == 2
    assert not orphan.exists()
    assert files(registry) == 1


def test_a_collection_is_stopped(registry: Served, client: Client, clock: Clock) -> None:
    begun = registry.run(registry.registry.collector.begin(Actor("test")))
    registry.run(registry.registry.collector.stop(begun.job))
    registry.run(registry.registry.collector.collect(begun))
    assert client.api("GET", "jobs")[0]["state"] == "stopped"


def test_a_lost_collector_does_not_block_the_next(registry: Served, clock: Clock) -> None:
    registry.run(registry.registry.collector.begin(Actor("dead")))
    clock.now += 200
    collect(registry)


def test_every_change_of_content_is_recorded(registry: Served, client: Client, clock: Clock) -> None:
    _, pushed = client.manifest("t/app", "v1")
    lost = client.blob("t/app", b"lost")
    client("DELETE", "/v2/t/app/manifests/v1")
    client("DELETE", f"/v2/t/app/manifests/{pushed}")
    client("DELETE", f"/v2/t/app/blobs/{lost}")
    records = [(r["action"], r["object"]) for r in client.api("GET", "audit")]
    assert [r for r in reversed(records) if r[1].startswith("t/app")] == [
        ("push", "t/app"), ("tag.delete", "t/app:v1"), ("manifest.delete", "t/app"), ("blob.delete", "t/app")
    ]  # fmt: skip
    clock.now += 400 * DAY
    collect(registry)
    assert [r["action"] for r in client.api("GET", "audit")] == ["gc.start"], "a year is kept"


# ---- quotas, immutable tags


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Served, Client]]:
    with served(tmp_path) as it:
        it.run(it.registry.accounts.create("alice", password=PASSWORD, admin=True))
        yield it, it.client("alice", PASSWORD)


def test_a_quota_counts_every_blob_once(guarded: tuple[Served, Client]) -> None:
    _, alice = guarded
    alice.api("PATCH", "accounts/alice", quota=100_000)
    data = os.urandom(60_000)
    for repo in ("alice/a", "alice/b"):
        alice.blob(repo, data)
    assert alice.api("GET", "accounts/alice/usage")["used"] == 60_000
    place = alice("POST", "/v2/alice/a/blobs/uploads/").headers["location"]
    more = os.urandom(60_000)
    refused = alice("PUT", f"{place}?digest={digest(more)}", more)
    error = json.loads(refused.data)["errors"][0]
    assert (refused.status, error["code"]) == (403, "DENIED")
    assert "60000 of 100000 bytes used, 60000 more wanted" in error["message"]
    assert alice("HEAD", f"/v2/alice/a/blobs/{digest(more)}").status == 404
    alice.api("PATCH", "accounts/alice", quota=None)
    alice.blob("alice/a", more)


def test_immutable_tags(guarded: tuple[Served, Client]) -> None:
    _, alice = guarded
    raw, first = alice.manifest("alice/app", "v1.0")
    alice.api("PATCH", "repositories/alice/app", immutable="v* release-*")
    assert alice("PUT", "/v2/alice/app/manifests/v1.0", raw, Content_Type=MANIFEST).status == 201, "the same again is fine"
    other, second = alice.manifest("alice/app", "latest")
    for method, path, body in (("PUT", "v1.0", other), ("DELETE", "v1.0", None), ("DELETE", first, None)):
        answer = alice(method, f"/v2/alice/app/manifests/{path}", body, Content_Type=MANIFEST)
        assert answer.status == 403, (method, path)
        assert "immutable" in json.loads(answer.data)["errors"][0]["message"]
    alice.manifest("alice/app", "latest")
    assert alice("HEAD", "/v2/alice/app/manifests/v1.0").headers["docker-content-digest"] == first
    assert alice("DELETE", f"/v2/alice/app/manifests/{second}").status == 202


# ---- retention


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("rules", "gone"),
    [([Rule("t/app", "*", 2, None, None)], ["old", "older"]),
     ([Rule("t/app", "*", None, 20.0, None)], ["older"]),
     ([Rule("t/app", "*", None, None, 1.0)], ["new", "newest", "old"]),
     ([Rule("t/app", "o*", None, None, None)], []), ([Rule("t/app", "o*", 1, None, None)], ["older"]),
     ([Rule("t/app", "*", 1, None, None), Rule("t/app", "old*", None, None, 2.0)], ["new", "old"]),
     ([Rule("other/*", "*", None, None, None)], []), ([], [])],
)  # fmt: skip
def test_retention_is_a_plan(rules: list[Rule], gone: list[str]) -> None:
    tags = [Tag("newest", NOW - DAY, None), Tag("new", NOW - 2 * DAY, None), Tag("old", NOW - 10 * DAY, NOW - 5 * DAY),
            Tag("older", NOW - 30 * DAY, NOW - DAY / 2)]  # fmt: skip
    assert sorted(r.tag for r in plan("t/app", tags, rules, "", NOW)) == sorted(gone)
    assert plan("t/app", tags, rules, "*", NOW) == [], "immutable tags stay"


def test_retention_shows_and_then_does_it(guarded: tuple[Served, Client]) -> None:
    _, alice = guarded
    for tag in ("v1", "v2", "v3"):
        alice.manifest("alice/app", tag)
    alice.api("POST", "accounts/alice/rules", repository="alice/*", tags="v*", keep_last="1")
    shown = alice.api("POST", "accounts/alice/retention")
    assert shown["dry_run"] is True
    assert len(shown["tags"]) == 2
    assert len(json.loads(alice("GET", "/v2/alice/app/tags/list").data)["tags"]) == 3
    assert alice.api("POST", "accounts/alice/retention", dry_run=False)["tags"] == shown["tags"]
    assert json.loads(alice("GET", "/v2/alice/app/tags/list").data)["tags"] == ["v3"]
    assert any(row["action"] == "tag.retention" for row in alice.api("GET", "audit"))


def test_the_schedule_applies_rules_and_takes_untagged_manifests(registry: Served, client: Client, clock: Clock) -> None:
    registry.run(registry.registry.accounts.create("team", kind="org"))
    _, gone = client.manifest("team/app", "v1")
    clock.now += HOUR
    _, kept = client.manifest("team/app", "v2")
    client.api("POST", "accounts/team/rules", repository="team/*", tags="v*", keep_last="1")
    client.api("PUT", "settings/untagged_seconds", value=str(int(DAY)))
    clock.now += 2 * DAY
    registry.run(registry.registry.collector.by_schedule())
    assert json.loads(client("GET", "/v2/team/app/tags/list").data)["tags"] == ["v2"]
    assert client("HEAD", f"/v2/team/app/manifests/{gone}").status == 404
    assert client("HEAD", f"/v2/team/app/manifests/{kept}").status == 200
    assert [job["actor"] for job in client.api("GET", "jobs")] == ["schedule"]
    registry.run(registry.registry.collector.by_schedule())
    assert len(client.api("GET", "jobs")) == 1, "once a day"


async def test_a_worker_outlives_every_error() -> None:
    """One row that nobody foresaw must not end deliveries, mirrors or collections for good."""
    outcomes = iter([RuntimeError("unforeseen"), UPSTREAM_FAILED(upstream="x", reason="y", answered=0)])
    done = asyncio.Event()

    async def work() -> None:
        if (error := next(outcomes, None)) is not None:
            raise error
        done.set()

    task = asyncio.create_task(repeat(0.0, work, "do it"))
    try:
        await asyncio.wait_for(done.wait(), 10)
    finally:
        task.cancel()


def test_pulls_are_counted_when_the_database_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockyard.registry.database._BUSY_SECONDS", 0.2)
    with served(tmp_path, Config(auth="none")) as it:
        client = it.client()
        client.manifest("t/app", "v1")
        client("GET", "/v2/t/app/manifests/v1")
        with closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable):
                it.run(it.registry.flush_pulls())
            client("GET", "/v2/t/app/manifests/v1")
        it.run(it.registry.flush_pulls())
        assert client.api("GET", "repositories/t/app")["pulls"] == 2


# ---- webhooks


@dataclass
class Listener:
    url: str
    status: int = 200
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def listener() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            it.got.append((dict(self.headers), body))
            self.send_response(it.status)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"thanks")

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet: the test reads `got`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    it = Listener(f"http://127.0.0.1:{server.server_address[1]}/hook")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield it
    server.shutdown()
    server.server_close()
    thread.join(10)


def hook(it: Served, url: str, **more: Any) -> None:
    it.run(it.registry.accounts.create("team", kind="org"))
    it.client().api("POST", "accounts/team/webhooks", url=url, **({"events": ["TAG_PUSH"]} | more))


def deliver(it: Served) -> int:
    return it.run(it.registry.deliverer.deliver_due())


def settle(it: Served, done: Callable[[], bool]) -> None:
    """The background deliverer may have taken a row before us: both are the same code."""
    import time

    for _ in range(300):
        deliver(it)
        if done():
            return
        time.sleep(0.1)  # it posts in a thread of its own; bounded by 30 s
    raise AssertionError("never delivered")


def test_a_webhook_in_docker_trusted_registry_s_form(registry: Served, client: Client, listener: Listener) -> None:
    client.api("PUT", "settings/domain", value="hub.example")
    hook(registry, listener.url, secret="shared", repository="team/app*")
    client.manifest("team/other", "v1")
    _, pushed = client.manifest("team/app", "v1")
    settle(registry, lambda: len(listener.got) == 1)
    headers, body = listener.got[0]
    message = json.loads(body)
    assert message["type"] == "TAG_PUSH"
    assert message["createdAt"] == message["contents"]["pushedAt"]
    assert message["contents"] | {"author": ""} == {
        "namespace": "team", "repository": "app", "tag": "v1", "author": "", "imageName": "hub.example/team/app:v1", "digest": pushed,
        "pushedAt": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    proof = "sha256=" + hmac.new(b"shared", body, hashlib.sha256).hexdigest()
    assert headers["X-Dockyard-Signature-256"] == proof
    settle(registry, lambda: client.api("GET", "accounts/team/deliveries")[0]["due"] is None)
    told = client.api("GET", "accounts/team/deliveries")[0]
    assert (told["status"], told["answer"], told["attempts"]) == (200, "thanks", 1)


def test_a_webhook_in_docker_hub_s_form(registry: Served, client: Client, listener: Listener, clock: Clock) -> None:
    hook(registry, listener.url, form="hub")
    client.api("PUT", "settings/domain", value="hub.example")
    client.api("POST", "repositories", name="team/app")
    client.api("PATCH", "repositories/team/app", public=True, description="An app", readme="Run it.")
    clock.now += HOUR
    client.manifest("team/app", "v1")
    settle(registry, lambda: len(listener.got) == 1)
    message = json.loads(listener.got[0][1])
    assert message["push_data"] | {"pusher": ""} == {"pushed_at": int(clock.now), "pusher": "", "tag": "v1", "images": []}
    told = message["repository"]
    assert (told["repo_name"], told["namespace"], told["name"], told["owner"]) == ("team/app", "team", "app", "team")
    assert (told["is_private"], told["description"], told["full_description"]) == (False, "An app", "Run it.")
    assert (told["repo_url"], told["date_created"]) == ("https://hub.example/r/team/app", int(clock.now - HOUR))
    assert "callback_url" in message


def test_a_webhook_is_tried_again_and_given_up(registry: Served, client: Client, listener: Listener, clock: Clock) -> None:
    listener.status = 500
    hook(registry, listener.url)
    client.manifest("team/app", "v1")

    def state() -> dict[str, Any]:
        found: dict[str, Any] = client.api("GET", "accounts/team/deliveries")[0]
        return found

    for attempt in range(1, len(PAUSES) + 2):
        settle(registry, lambda attempt=attempt: state()["attempts"] == attempt)  # type: ignore[misc]
        clock.now += 3 * HOUR
    assert state()["due"] is None, "given up"
    listener.status = 204
    client.api("POST", f"accounts/team/deliveries/{state()['id']}/again")
    settle(registry, lambda: state()["status"] == 204)


def test_webhooks_do_not_reach_the_cloud_s_secrets(registry: Served, client: Client) -> None:
    hook(registry, "http://169.254.169.254/latest/meta-data/")
    client.manifest("team/app", "v1")
    settle(registry, lambda: client.api("GET", "accounts/team/deliveries")[0]["attempts"] == 1)
    assert "link-local" in client.api("GET", "accounts/team/deliveries")[0]["answer"]


@pytest.mark.parametrize("url", [f"http://{'a' * 64}.example/", "http://x..example/", "http://127.0.0.1:99999/", "http://[::1/",
                                 "http://host\n.example/", "http://\u0130.example:1/"])  # fmt: skip
def test_a_webhook_s_address_stops_nobody_else_s(registry: Served, client: Client, listener: Listener, url: str) -> None:
    hook(registry, listener.url)
    body = json.dumps({"url": url, "events": ["TAG_PUSH"]}).encode()
    assert client("POST", "/api/v0/accounts/team/webhooks", body, Content_Type="application/json").status in {200, 400}
    for tag in ("v1", "v2"):
        client.manifest("team/app", tag)
        settle(registry, lambda tag=tag: any(json.loads(got)["contents"]["tag"] == tag for _, got in listener.got))  # type: ignore[misc]
    told = client.api("GET", "accounts/team/deliveries")
    assert {row["status"] for row in told if row["answer"] not in {None, "thanks"}} <= {0}


@dataclass
class Upstream:
    """A registry that answers what it likes: (status, headers, body) by the begin of the path."""

    url: str
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)


@pytest.fixture
def hostile() -> Iterator[Upstream]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = next((a for begin, a in it.answers.items() if self.path.startswith(begin)), (404, {}, b""))
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    it = Upstream(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield it
    server.shutdown()
    server.server_close()
    thread.join(10)


_TAGS, _MANIFEST = "/v2/x/y/tags/list", "/v2/x/y/manifests/"


@pytest.mark.parametrize(
    "answers",
    [{_TAGS: (200, {}, b"[]")}, {_TAGS: (200, {}, b'{"tags": 7}')}, {_TAGS: (200, {}, b'{"tags": [7, null, "../x"]}')},
     {_TAGS: (200, {}, b"[" * 100_000)}, {_TAGS: (302, {"Location": "http://[::1"}, b"")},
     {_TAGS: (302, {"Location": "http://169.254.169.254/latest/meta-data"}, b"")},
     {_TAGS: (401, {"WWW-Authenticate": 'Bearer realm="http://[::1"'}, b"")},
     {_TAGS: (401, {"WWW-Authenticate": 'Bearer realm="http://169.254.169.254/x"'}, b"")},
     {_TAGS: (200, {}, b'{"tags": ["v1"]}'), _MANIFEST: (200, {"Content-Type": MANIFEST}, b'{"schemaVersion":2,"config":3}')},
     {_TAGS: (200, {"Link": "<http://[>"}, b'{"tags": ["v1"]}'), _MANIFEST: (200, {"Content-Type": "a/b"}, b"\x00" * 5_000_000)}],
)  # fmt: skip
def test_whatever_an_upstream_says(registry: Served, client: Client, hostile: Upstream, answers: Any) -> None:
    """To a mirror it is an outcome, to a client of the proxy cache an error of the upstream; never ours, and no secret's way out."""
    hostile.answers = answers | {"/v2/x/y/": answers[_TAGS]}
    registry.run(registry.registry.accounts.create("team", kind="org"))
    client.api("POST", "repositories", name="team/app")
    made = client.api("POST", "repositories/team/app/-/mirrors", direction="poll", remote=f"{hostile.url}/x/y", tags="*", every_seconds=60)
    outcome = client.api("POST", f"repositories/team/app/-/mirrors/{made['id']}/run")["outcome"]
    assert outcome.startswith("failed: ") or outcome == "copied 0 tags", outcome
    assert not re.search(r"(Error|Exception)$", outcome), "foreseen"
    client.api("POST", "upstreams", prefix="up", url=hostile.url)
    assert client("GET", "/v2/up/x/y/manifests/v1").status in {404, 502}


def test_an_upstream_that_lies(registry: Served, client: Client, hostile: Upstream) -> None:
    """Other bytes than the digest says: an error of the upstream, nothing is kept of it, and the truth is taken later."""
    data = os.urandom(100_000)
    path = f"/x/y/blobs/{digest(data)}"
    client.api("POST", "upstreams", prefix="up", url=hostile.url)
    hostile.answers = {f"/v2{path}": (200, {}, os.urandom(100_000))}
    for _ in range(2):
        assert client("GET", f"/v2/up{path}").status == 502
    assert files(registry) == 0
    assert b"dockyard_registry_uploads 0" in client("GET", "/metrics").data
    hostile.answers = {f"/v2{path}": (200, {}, data)}
    assert client("GET", f"/v2/up{path}").data == data


def test_any_number_of_upstreams(tmp_path: Path) -> None:
    """Each below its prefix; a host name that containerd sends wins over every prefix."""
    with ExitStack() as stack:
        one, two, three, here = (stack.enter_context(served(tmp_path / name, Config(auth="none"))) for name in ("1", "2", "3", "here"))
        ours = here.client()
        for it, prefix, host in ((one, "up", "one.example"), (two, "two", "two.example"), (three, "three", "up.example")):
            ours.api("POST", "upstreams", prefix=prefix, host=host, url=it.client().base)
        first, second, third = (it.client().manifest("team/app", "v1")[1] for it in (one, two, three))
        _, deep = one.client().manifest("three/team/app", "v1")
        for path, expected in (("up/team/app/manifests/v1", first), ("two/team/app/manifests/v1", second),
                               ("three/team/app/manifests/v1", third), ("team/app/manifests/v1?ns=two.example", second),
                               ("team/app/manifests/v1?ns=up.example", third),
                               ("three/team/app/manifests/v1?ns=one.example", deep)):  # fmt: skip
            assert ours("GET", f"/v2/{path}").headers["docker-content-digest"] == expected, path
        assert ours("GET", "/v2/team/app/manifests/v1?ns=unknown.example").status == 404


@pytest.mark.parametrize("remote", ["http://169.254.169.254/latest/x", "http://[fe80::1]/x"])
def test_mirrors_do_not_reach_the_cloud_s_secrets(registry: Served, client: Client, remote: str) -> None:
    registry.run(registry.registry.accounts.create("team", kind="org"))
    client.api("POST", "repositories", name="team/app")
    made = client.api("POST", "repositories/team/app/-/mirrors", direction="poll", remote=remote, tags="*", every_seconds=60)
    assert "link-local" in client.api("POST", f"repositories/team/app/-/mirrors/{made['id']}/run")["outcome"]


def test_pulls_and_quotas_are_told(guarded: tuple[Served, Client], listener: Listener) -> None:
    it, alice = guarded
    alice.api("POST", "accounts/alice/webhooks", url=listener.url, events=["TAG_PULL", "QUOTA_EXCEED"])
    alice.manifest("alice/app", "v1")
    for _ in range(3):
        alice("GET", "/v2/alice/app/manifests/v1")
    it.run(it.registry.flush_pulls())
    alice.api("PATCH", "accounts/alice", quota=1)
    assert alice("POST", f"/v2/alice/app/blobs/uploads/?digest={digest(b'xx')}", b"xx").status == 403
    settle(it, lambda: len(listener.got) == 2)
    told = {message["type"]: message["contents"] for message in (json.loads(body) for _, body in listener.got)}
    assert told["TAG_PULL"]["count"] == 3
    assert told["QUOTA_EXCEED"]["repository"] == "app"
    assert alice.api("GET", "repositories/alice/app")["pulls"] == 3


# ---- proxy cache and mirrors: two registries of ours


@pytest.fixture
def pair(tmp_path: Path, clock: Clock) -> Iterator[tuple[Served, Served]]:
    with ExitStack() as stack:
        upstream = stack.enter_context(served(tmp_path / "upstream"))
        upstream.run(upstream.registry.accounts.create("alice", password=PASSWORD, admin=True))
        here = stack.enter_context(served(tmp_path / "here", Config(auth="none"), clock=clock))
        yield upstream, here


def test_a_proxy_cache_fills_itself(pair: tuple[Served, Served]) -> None:
    upstream, here = pair
    theirs, ours = upstream.client("alice", PASSWORD), here.client()
    layer = os.urandom(300_000)
    raw, pushed = theirs.image("alice/app", "v1", [layer], {"os": "linux"})
    ours.api("POST", "upstreams", prefix="up", host="upstream.example", url=theirs.base, username="alice", password=PASSWORD)
    got = ours("GET", "/v2/up/alice/app/manifests/v1")
    assert (got.status, got.data, got.headers["docker-content-digest"]) == (200, raw, pushed)
    assert ours("GET", f"/v2/up/alice/app/blobs/{digest(layer)}").data == layer
    by_name = ours("GET", "/v2/alice/app/manifests/v1?ns=upstream.example")
    assert (by_name.status, by_name.headers["oci-namespace"]) == (200, "upstream.example")
    assert ours("GET", "/v2/up/alice/none/manifests/v1").status == 404
    assert PASSWORD not in json.dumps(ours.api("GET", "upstreams"))


def test_a_proxy_cache_serves_while_its_upstream_is_away(tmp_path: Path) -> None:
    with served(tmp_path / "here", Config(auth="none")) as here:
        ours = here.client()
        with served(tmp_path / "upstream", Config(auth="none")) as upstream:
            raw, pushed = upstream.client().manifest("team/app", "v1")
            ours.api("POST", "upstreams", prefix="up", url=upstream.client().base, fresh_seconds=0.001)
            assert ours("GET", "/v2/up/team/app/manifests/v1").status == 200
            _, moved = upstream.client().manifest("team/app", "v1")
            assert ours("HEAD", "/v2/up/team/app/manifests/v1").headers["docker-content-digest"] == moved
        away = ours("GET", "/v2/up/team/app/manifests/v1")
        assert (away.status, away.headers["docker-content-digest"]) == (200, moved)
        assert ours("GET", f"/v2/up/team/app/manifests/{pushed}").data == raw
        assert ours("GET", "/v2/up/team/app/manifests/never-seen").status == 502


def test_mirrors_both_ways(pair: tuple[Served, Served], clock: Clock) -> None:
    upstream, here = pair
    theirs, ours = upstream.client("alice", PASSWORD), here.client()
    layer = os.urandom(200_000)
    raw, child = theirs.image("alice/app", "", [layer], {"os": "linux"})
    body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": MANIFEST, "digest": child, "size": len(raw)}]}
    _, index = theirs.put_manifest("alice/app", "v1", body, INDEX)
    theirs.manifest("alice/app", "nightly")
    values = {"remote": f"{theirs.base}/alice/app", "username": "alice", "password": PASSWORD, "every_seconds": 3600}
    here.run(here.registry.accounts.create("team", kind="org"))
    ours.api("POST", "repositories", name="team/app")
    mirror = ours.api("POST", "repositories/team/app/-/mirrors", direction="poll", tags="v*", **values)["id"]
    assert ours.api("POST", f"repositories/team/app/-/mirrors/{mirror}/run")["outcome"] == "copied 1 tags"
    assert json.loads(ours("GET", "/v2/team/app/tags/list").data)["tags"] == ["v1"]
    assert ours("HEAD", "/v2/team/app/manifests/v1").headers["docker-content-digest"] == index
    assert ours("GET", f"/v2/team/app/blobs/{digest(layer)}").data == layer
    assert ours.api("POST", f"repositories/team/app/-/mirrors/{mirror}/run")["outcome"] == "copied 0 tags", "nothing new"

    ours.manifest("team/app", "v2")
    values["remote"] = f"{theirs.base}/alice/copy"
    push = ours.api("POST", "repositories/team/app/-/mirrors", direction="push", tags="*", **values)["id"]
    assert ours.api("POST", f"repositories/team/app/-/mirrors/{push}/run")["outcome"] == "copied 2 tags"
    assert json.loads(theirs("GET", "/v2/alice/copy/tags/list").data)["tags"] == ["v1", "v2"]
    assert theirs("GET", f"/v2/alice/copy/blobs/{digest(layer)}").data == layer
    shown = ours.api("GET", "repositories/team/app/-/mirrors")
    assert PASSWORD not in json.dumps(shown)

    theirs.manifest("alice/app", "v3")
    ours.manifest("team/app", "v4")
    ours.api("POST", "repositories/team/app/-/mirrors", direction="poll", remote="http://127.0.0.1:9/x/y", tags="*", every_seconds=3600)
    clock.now += 3601
    for _ in range(2):  # by the clock: what one of them brought is pushed on by the next look
        here.run(here.registry.mirrors.copy_due())
        clock.now += 3601
    assert json.loads(ours("GET", "/v2/team/app/tags/list").data)["tags"] == ["v1", "v2", "v3", "v4"]
    assert json.loads(theirs("GET", "/v2/alice/copy/tags/list").data)["tags"] == ["v1", "v2", "v3", "v4"]
    outcomes = [row["outcome"] for row in ours.api("GET", "repositories/team/app/-/mirrors")]
    assert sum(outcome.startswith("failed") for outcome in outcomes) == 1, "one that is away holds up nobody"

    values["password"] = "wrong"
    bad = ours.api("POST", "repositories/team/app/-/mirrors", direction="poll", tags="*", **values)["id"]
    assert "failed" in ours.api("POST", f"repositories/team/app/-/mirrors/{bad}/run")["outcome"]
