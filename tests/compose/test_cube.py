"""The scale cube with requests: clones share, host and path choose the service, a key stays with its shard, pins hold."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockyard.compose.balancer import Balancer
from dockyard.compose.haproxy import RuntimeSocket
from dockyard.compose.layout import commands, layout_of
from dockyard.compose.loader import Request, load
from dockyard.testing.balanced import Server, free_port

CUBE = """
services:
  web: {image: x, x-dockyard: {balance: {listen: "127.0.0.1:%d", errors: 10000}}}
  api: {image: x, x-dockyard: {balance: {listen: "127.0.0.1:%d", path: /api}}}
  blog: {image: x, labels: {dockyard.balance.listen: "127.0.0.1:%d", dockyard.balance.host: "*.blog.example"}}
  shard: {image: x, x-dockyard: {balance: {listen: "127.0.0.1:%d", path: /t, shard: "header:Tenant", pin: {acme: 2}}}}
"""
COUNTS = {"web": 3, "api": 1, "blog": 1, "shard": 3}
Ask = Callable[..., str]


class One:
    def __init__(self, text: str) -> None:
        self._text = text

    def read(self, path: str) -> str:
        return self._text

    def exists(self, path: str) -> bool:
        return False


@pytest.fixture
def cube(tmp_path: Path) -> Iterator[tuple[Ask, Balancer]]:
    """Asks, and tells the instance that answered ("web-2")."""
    port = free_port()
    made = layout_of(load(Request(["/app/c.yaml"], "/app", {}), One(CUBE % ((port,) * 4))))
    servers = {(f"b_{name}", slot): Server() for name, count in COUNTS.items() for slot in range(1, count + 1)}
    names = {str(server.server_port): f"{place[0][2:]}-{place[1]}" for place, server in servers.items()}
    balancer = Balancer(made, RuntimeSocket(str(tmp_path / "h.sock")), lambda line: None)
    process = balancer.start()
    balancer.control.ask(*commands({}, {place: ("127.0.0.1", server.server_port) for place, server in servers.items()}))

    def ask(path: str, **headers: str) -> str:
        wire = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        wire.request("GET", path, headers=headers)
        answer = wire.getresponse()
        wire.close()
        return names.get(answer.headers.get("X-Server", ""), str(answer.status))

    yield ask, balancer
    process.close()
    for server in servers.values():
        server.shutdown()
        server.server_close()


def test_three_axes(cube: tuple[Ask, Balancer]) -> None:
    ask, balancer = cube
    assert Counter(ask("/") for _ in range(30)) == {"web-1": 10, "web-2": 10, "web-3": 10}
    assert [ask("/api"), ask("/api/x")] == ["api-1", "api-1"]
    assert ask("/apis").startswith("web-")
    assert ask("/", Host="my.blog.example") == "blog-1"
    assert ask("/", Host="blog.example.evil").startswith("web-")
    places = {f"t{number}": ask("/t", Tenant=f"t{number}") for number in range(30)}
    assert set(places.values()) == {"shard-1", "shard-2", "shard-3"}
    assert {name: ask("/t", Tenant=name) for name in places} == places, "a key stays with its shard"
    assert {ask("/t", Tenant="acme") for _ in range(5)} == {"shard-2"}
    balancer.control.ask("set server b_shard/s3 state maint")
    after = {name: ask("/t", Tenant=name) for name in places}
    stayed = [name for name, place in places.items() if place != "shard-3"]
    assert all(after[name] == places[name] for name in stayed), "only the keys of the shard that went have moved"
