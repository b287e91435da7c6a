"""Authorization plugins over a real socket: they see what the daemon acts on, and without them nothing goes."""

from __future__ import annotations

import base64
import json
import socketserver
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from dockyard.api.authz import Authorizer
from dockyard.api.server import listen, make_server
from dockyard.client import plugins
from dockyard.client.client import Client
from dockyard.engine.dryrun import dry_engine
from dockyard.errors import DockyardError, Forbidden, System

Json = dict[str, Any]
CREATE = {"Image": "busybox", "Cmd": ["top"]}


class Plugin(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A plugin as others write them: JSON over a unix socket."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.seen: list[tuple[str, Json]] = []
        self.decide: Callable[[str, Json], Any] = lambda method, request: {"Allow": True}
        self.kinds = ["authz"]
        super().__init__(str(path), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Plugin
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        method = self.path.strip("/")
        if method == "Plugin.Activate":
            answer: Any = {"Implements": self.server.kinds}
        else:
            self.server.seen.append((method, request))
            answer = self.server.decide(method, request)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the test reads ``seen``."""


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    (tmp_path / "plugins").mkdir()
    made = Plugin(tmp_path / "plugins/guard.sock")
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(10)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    engine = dry_engine(tmp_path / "state")
    async for _ in await engine.images.pull("busybox", "latest", platform="", auth={}):
        pass
    dirs = plugins.PluginDirs((tmp_path / "plugins",), (tmp_path / "specs",))
    authorizer = Authorizer(["guard", "guard"], lambda name: plugins.find(name, dirs))
    server = make_server(engine, server_name="Docker/0 (linux)", authorizer=authorizer)
    await listen(server, [f"unix://{tmp_path}/e.sock"], group=None, tls=None)
    with Client(f"unix://{tmp_path}/e.sock", version="1.51", timeout=30) as made:
        yield made
    await server.close(1)
    await engine.close()


async def ask(client: Client, *words: Any, **more: Any) -> Any:
    import asyncio

    return await asyncio.to_thread(lambda: client.request(*words, **more))


def body_of(document: Json) -> bytes:
    return base64.b64decode(document.get("RequestBody", ""))


async def test_an_allowed_request_goes_through_and_was_seen_whole(plugin: Plugin, client: Client) -> None:
    made = await ask(client, "POST", "/containers/create", {"name": "one"}, CREATE)
    assert made["Id"]
    (asked, request), (answered, response) = plugin.seen
    assert (asked, answered) == ("AuthZPlugin.AuthZReq", "AuthZPlugin.AuthZRes")
    assert (request["RequestMethod"], request["RequestUri"]) == ("POST", "/v1.51/containers/create?name=one")
    assert json.loads(body_of(request)) == CREATE
    assert request["RequestHeaders"]["content-type"] == "application/json"
    assert response["ResponseStatusCode"] == 201
    assert json.loads(base64.b64decode(response["ResponseBody"]))["Id"] == made["Id"]


async def test_a_refusal_is_told_and_nothing_is_done(plugin: Plugin, client: Client) -> None:
    plugin.decide = lambda method, request: {"Allow": request["RequestMethod"] == "GET", "Msg": "read only"}
    with pytest.raises(Forbidden, match="authorization denied by plugin guard: read only"):
        await ask(client, "POST", "/containers/create", {"name": "one"}, CREATE)
    assert await ask(client, "GET", "/containers/json", {"all": True}) == []


@pytest.mark.parametrize(
    ("headers", "size"),
    [({}, 0), ({"Content-Type": "application/json"}, 2 << 20), ({"Content-Type": "application/json; charset=utf-8"}, 0)],
    ids=["undeclared", "two megabytes", "with a parameter"],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_no_body_is_acted_on_unseen(plugin: Plugin, client: Client, headers: dict[str, str], size: int, chunked: bool) -> None:
    """CVE-2024-41110 (length 0) and CVE-2026-34040 (over a megabyte): the plugin got nothing and said yes."""
    wish = {**CREATE, "HostConfig": {"Privileged": True}, "Labels": {"padding": "x" * size}}

    def decide(method: str, request: Json) -> Json:
        return {"Allow": method.endswith("Res") or b'"Privileged": true' not in body_of(request), "Msg": "privileged"}

    plugin.decide = decide
    data = json.dumps(wish).encode()
    body: Any = iter([data[:10], data[10:]]) if chunked else data
    with pytest.raises(Forbidden, match="privileged"):
        await ask(client, "POST", "/containers/create", {"name": "one"}, body, headers=headers)
    assert await ask(client, "GET", "/containers/json", {"all": True}) == []


async def test_the_path_is_shown_decoded(plugin: Plugin, client: Client) -> None:
    await ask(client, "GET", "/containers/%6Ason")
    assert plugin.seen[0][1]["RequestUri"] == "/v1.51/containers/json"


async def test_the_body_of_a_start_is_seen_and_still_refused(plugin: Plugin, client: Client) -> None:
    await ask(client, "POST", "/containers/create", {"name": "one"}, CREATE)
    with pytest.raises(DockyardError, match="non-empty request body"):
        await ask(client, "POST", "/containers/one/start", None, {"Binds": ["/:/host"]})
    assert b"/:/host" in body_of(plugin.seen[-1][1])
    await ask(client, "POST", "/containers/one/start")


async def test_an_answer_can_be_withheld(plugin: Plugin, client: Client) -> None:
    plugin.decide = lambda method, request: {"Allow": method.endswith("Req"), "Msg": "secret"}
    with pytest.raises(Forbidden, match="secret"):
        await ask(client, "GET", "/info")


async def test_a_ping_is_asked_for_as_well(plugin: Plugin, client: Client) -> None:
    plugin.decide = lambda method, request: {"Allow": False, "Msg": "nobody"}
    with pytest.raises(Forbidden):
        await ask(client, "GET", "/_ping")


@pytest.mark.parametrize("answer", [b"", b"{", b"[]", b'{"Allow": "true"}', {"Err": "broken inside"}, {"Allow": 1}, {}])
async def test_an_answer_that_is_not_a_yes_is_a_no(plugin: Plugin, client: Client, answer: Any) -> None:
    plugin.decide = lambda method, request: answer
    with pytest.raises((Forbidden, System)):
        await ask(client, "POST", "/containers/create", None, CREATE)
    plugin.decide = lambda method, request: {"Allow": True}
    assert await ask(client, "GET", "/containers/json", {"all": True}) == []


async def test_without_its_plugin_the_engine_does_nothing(tmp_path: Path, client: Client) -> None:
    with pytest.raises(System, match="plugin guard failed with error: could not find plugin guard"):
        await ask(client, "GET", "/info")


async def test_another_kind_of_plugin_cannot_authorize(plugin: Plugin, client: Client) -> None:
    plugin.kinds = ["VolumeDriver"]
    with pytest.raises(System, match="does not implement authz but VolumeDriver"):
        await ask(client, "GET", "/info")


async def test_a_plugin_that_comes_back_is_found_again(plugin: Plugin, client: Client, tmp_path: Path) -> None:
    await ask(client, "GET", "/info")
    hidden = tmp_path / "hidden.sock"
    sock = tmp_path / "plugins/guard.sock"
    sock.rename(hidden)
    with pytest.raises(System):
        await ask(client, "GET", "/info")
    hidden.rename(sock)
    assert (await ask(client, "GET", "/info"))["ServerVersion"]
