"""Our own registry for tests: served from a thread on a loopback port of the kernel's choice, and a client for it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import urllib3

from dockyard.registry.app import Pages, Places, Registry
from dockyard.registry.core import Config
from dockyard.registry.manifest import OCI_INDEX, OCI_MANIFEST

T = TypeVar("T")

MANIFEST, INDEX = OCI_MANIFEST, OCI_INDEX
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
START_LIMIT = 20.0


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class Client:
    """Any request; `authorization` goes with every one of them."""

    def __init__(self, port: int, authorization: str = "") -> None:
        self.port = port
        self.base = f"http://127.0.0.1:{port}"
        self.authorization = authorization
        self.http = urllib3.PoolManager(retries=False, maxsize=8)

    def __call__(self, method: str, path: str, body: Any = None, redirect: bool = False, **headers: str) -> Any:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        if self.authorization:
            named.setdefault("Authorization", self.authorization)
        url = path if path.startswith("http") else self.base + path
        return self.http.request(method, url, body=body, headers=named, redirect=redirect)

    def api(self, method: str, path: str, **body: Any) -> Any:
        """An operation of /api/v0/: its answer, or AssertionError with what was said."""
        answer = self(method, f"/api/v0/{quote(path)}", json.dumps(body).encode(), Content_Type="application/json")
        assert answer.status == 200, answer.data
        return json.loads(answer.data)

    def token(self, *scopes: str) -> str:
        """The value of an Authorization header with a bearer token for the scopes."""
        query = "&".join(f"scope={quote(scope)}" for scope in scopes)
        answer = self("GET", f"/token?service=dockyard-registry&{query}")
        assert answer.status == 200, answer.data
        return "Bearer " + str(json.loads(answer.data)["token"])

    def blob(self, repo: str, data: bytes, algorithm: str = "sha256") -> str:
        d = digest(data, algorithm)
        begun = self("POST", f"/v2/{repo}/blobs/uploads/")
        assert begun.status == 202, begun.data
        place = begun.headers["location"]
        assert self("PUT", f"{place}?digest={d}", data, Content_Type="application/octet-stream").status == 201
        return d

    def image(self, repo: str, ref: str, layers: list[bytes], config: dict[str, Any], **extra: Any) -> tuple[bytes, str]:
        """(manifest, digest). `ref` "" pushes by digest."""
        raw_config = json.dumps(config).encode()
        body = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG_TYPE, "digest": self.blob(repo, raw_config), "size": len(raw_config)},
            "layers": [{"mediaType": LAYER_TYPE, "digest": self.blob(repo, layer), "size": len(layer)} for layer in layers],
            **extra,
        }  # fmt: skip
        return self.put_manifest(repo, ref, body, MANIFEST)

    def put_manifest(self, repo: str, ref: str, body: dict[str, Any], media_type: str) -> tuple[bytes, str]:
        raw = json.dumps(body).encode()
        answer = self("PUT", f"/v2/{repo}/manifests/{ref or digest(raw)}", raw, Content_Type=media_type)
        assert answer.status == 201, answer.data
        assert answer.headers["docker-content-digest"] == digest(raw)
        return raw, digest(raw)

    def manifest(self, repo: str, ref: str, **extra: Any) -> tuple[bytes, str]:
        """A small image of random bytes."""
        return self.image(repo, ref, [os.urandom(30)], {"os": "linux", "architecture": "amd64"}, **extra)


@dataclass
class Served:
    """A registry that runs, and the loop that runs it."""

    registry: Registry
    port: int
    loop: asyncio.AbstractEventLoop
    clients: list[Client] = field(default_factory=list)

    def client(self, name: str = "", password: str = "", authorization: str = "") -> Client:
        made = Client(self.port, authorization or (basic(name, password) if name else ""))
        self.clients.append(made)
        return made

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


@contextlib.contextmanager
def served(
    data: Path, config: Config | None = None, *, pages: Pages | None = None, database: str = "", bucket: str = "",
    clock: Callable[[], float] | None = None,
) -> Iterator[Served]:  # fmt: skip
    """`config` None: accounts on."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="registry-under-test")
    thread.start()

    async def start() -> tuple[Registry, int]:
        registry = Registry.open(Places(data, database, bucket), config or Config(), pages)
        if clock is not None:
            registry.core.clock = clock
            registry.tokens.clock = clock
        await registry.start()
        return registry, await registry.server.listen_tcp("127.0.0.1", 0)

    try:
        registry, port = asyncio.run_coroutine_threadsafe(start(), loop).result(START_LIMIT)
        made = Served(registry, port, loop)
        try:
            yield made
        finally:
            for client in made.clients:
                client.http.clear()
            asyncio.run_coroutine_threadsafe(registry.close(), loop).result(START_LIMIT)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_LIMIT)
        loop.close()


PASSWORD = "correct horse"


def populate(served: Served) -> Client:
    """Accounts with a life: alice (administrator), bob, carol, the organisation acme with teams; returns alice."""
    run, accounts = served.run, served.registry.accounts
    run(accounts.create("alice", password=PASSWORD, admin=True, full_name="Alice Liddell"))
    alice = served.client("alice", PASSWORD)
    for name, full in (("bob", "Bob Dock"), ("carol", "Carol Crane")):
        alice.api("POST", "accounts", name=name, password=PASSWORD, full_name=full)
    alice.api("POST", "accounts", name="acme", kind="org", full_name="Acme Shipping")
    alice.api("PUT", "accounts/acme/members/bob", owner=True)
    for team, person in (("builders", "carol"), ("readers", "bob")):
        alice.api("POST", "accounts/acme/teams", name=team)
        alice.api("PUT", f"accounts/acme/teams/{team}/members/{person}")
    return alice
