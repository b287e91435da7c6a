"""The dash as a page: who may see it, what it says, forms; and in a headless Chromium: live, by keyboard, on a phone.

With DOCKYARD_AXE=axe.min.js (of npm's axe-core) the pages are examined by it too.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from dockyard.cli.compose.session import balancer_of
from dockyard.client import Client
from dockyard.testing.balanced import Rig, Server, free_port
from dockyard.testing.browser import CHROMIUM, Browser, Tab, browser

LIMIT = 30.0
TOKEN = "s3cret"


class Site:
    """A running ``dockyard dash --web`` and a browser without scripts."""

    def __init__(self, port: int, rig: Rig) -> None:
        self.port, self.rig, self.cookie = port, rig, ""

    def __call__(self, method: str, path: str, fields: dict[str, str] | None = None, **headers: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            more["Cookie"] = self.cookie
        body = urlencode(fields) if fields is not None else None
        connection.request(method, path, body, more)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, answer.headers

    def enter(self) -> None:
        status, _, headers = self("GET", f"/?token={TOKEN}")
        assert (status, headers["Location"]) == (303, "/")
        self.cookie = headers["Set-Cookie"].partition(";")[0]

    def csrf(self) -> str:
        match = re.search(r'name="_csrf" value="(\w+)"', self("GET", "/")[1])
        assert match
        return match[1]

    def until(self, path: str, condition: Callable[[str], bool]) -> str:
        end = time.monotonic() + LIMIT
        while True:
            text = self("GET", path)[1]
            if condition(text):
                return str(text)
            assert time.monotonic() < end, text
            time.sleep(0.1)  # the page of a process of its own; bounded by LIMIT


@pytest.fixture
def site(compose: Callable[..., str], dry_host: str, tmp_path: Path) -> Iterator[Site]:
    port, shown = free_port(), free_port()
    web = f"{{image: busybox, command: sleep 1000, scale: 2, x-dockyard: {{balance: {{listen: '127.0.0.1:{port}', pause: 1s}}}}}}"
    worker = "{image: busybox, command: sleep 1000}"
    compose("up", "-d", file=f"services: {{web: {web}, worker: {worker}}}")
    environ = {**os.environ, "DOCKER_HOST": dry_host, "DASH_TOKEN": TOKEN}
    command = [sys.executable, "-m", "dockyard.cli", "dash", "--web", f"127.0.0.1:{shown}"]
    with Rig(balancer_of("shop", dry_host), [Server(), Server()], port, pause=1.0, errors=10000, retries=0) as rig:
        rig.ask(20)
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == f"http://127.0.0.1:{shown}/\n"
                yield Site(shown, rig)
            finally:
                process.terminate()
            assert process.wait(LIMIT) == 0


def test_who_may_see_it(site: Site) -> None:
    status, text, headers = site("GET", "/")
    assert (status, "worker" in text) == (403, False)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert site("GET", "/s/web")[0] == site("GET", "/events")[0] == 403
    assert "That is not the token" in site("GET", "/?token=wrong")[1]
    assert site("POST", "/act", {"verb": "restart", "service": "web"})[0] == 403
    assert site("GET", "/metrics")[0] == 200, "a scraper needs none"
    site.enter()
    assert TOKEN not in site.cookie
    assert site("GET", "/")[0] == 200
    assert site("POST", "/act", {"verb": "restart", "service": "web"})[0] == 403, "no token of a form"
    fields = {"verb": "restart", "service": "web", "_csrf": site.csrf()}
    assert site("POST", "/act", fields, Origin="http://evil.example")[0] == 403
    assert site("POST", "/act", fields, Sec_Fetch_Site="cross-site")[0] == 403


def test_what_it_says_and_does(site: Site, client: Client) -> None:
    site.enter()
    text = site.until("/", lambda text: "2 of 2 running" in text and "closed" in text)
    assert "/static/" in text
    assert site("GET", "/s/none")[0] == site("GET", "/none")[0] == site("GET", "/static/x")[0] == 404
    assert "No line has" in site("GET", "/s/web?q=%3Cscript%3E")[1]
    assert "&lt;script&gt;" in site("GET", "/s/web?q=%3Cscript%3E")[1]
    assert 'dockyard_requests_total{project="shop",service="web"}' in site("GET", "/metrics")[1]

    def started() -> str:
        return str(client.request("GET", "/containers/shop-worker-1/json")["State"]["StartedAt"])

    before, csrf = started(), site.csrf()
    assert site("POST", "/act", {"verb": "restart", "service": "worker", "_csrf": csrf})[0] == 303
    site.until("/", lambda text: "restarted worker" in text)
    assert started() != before
    assert site("POST", "/act", {"verb": "restart", "_csrf": csrf})[0] == 404
    assert site("POST", "/act", {"verb": "explode", "_csrf": csrf})[0] == 404
    assert site("PUT", "/")[0] >= 400
    assert site("GET", "/theme?to=dark&back=//evil.example")[2]["Location"] == "/"


def test_update_all_that_is_out_of_date(site: Site, client: Client) -> None:
    site.enter()
    file = Path("compose.yaml")
    file.write_text(file.read_text().replace("worker: {image", "worker: {environment: {A: b}, image"))
    csrf = site.csrf()
    assert site("POST", "/act", {"verb": "update", "_csrf": csrf})[0] == 303
    site.until("/", lambda text: "1 container replaced" in text)
    assert "A=b" in client.request("GET", "/containers/shop-worker-1/json")["Config"]["Env"]
    assert site("POST", "/act", {"verb": "update", "service": "worker", "_csrf": csrf})[0] == 303
    site.until("/", lambda text: "everything is up to date" in text)


def test_listeners_are_told_and_released(site: Site) -> None:
    site.enter()
    with socket.create_connection(("127.0.0.1", site.port), timeout=LIMIT) as sock:
        sock.sendall(f"GET /events HTTP/1.1\r\nHost: x\r\nCookie: {site.cookie}\r\n\r\n".encode())
        seen = b""
        while seen.count(b"event: look") < 2:
            site.rig.ask(5)
            seen += sock.recv(65536)


# ---- in a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("no Chromium here (apt-get install chromium)")
    with browser() as it:
        yield it


@pytest.fixture
def tab(site: Site, chromium: Browser) -> Iterator[Tab]:
    chromium.events.clear()
    one = chromium.tab()
    one.size(1200, 800)
    one.send("Page.navigate", url=f"http://127.0.0.1:{site.port}/?token={TOKEN}")
    one.wait("document.body && document.body.innerText.includes('2 of 2 running') && document.readyState === 'complete'")
    yield one
    one.send("Page.navigate", url="about:blank")  # or it mourns its stream in the next test
    told = [event for event in chromium.events if event["params"].get("entry", {}).get("level", "error") == "error"]
    assert not told, "no script error, no refused load"


def test_an_open_circuit_is_seen_without_a_reload(tab: Tab, site: Site) -> None:
    tab.run("window.kept = true")
    for server in site.rig.servers:
        server.code = 500
    site.rig.until(lambda: site.rig.flow().circuit == "open")
    tab.wait("document.querySelector('#services').innerText.includes('open')")
    tab.wait("document.querySelector('#services').innerText.includes('degraded')")
    for server in site.rig.servers:
        server.code = 200
    site.rig.until(lambda: site.rig.flow().circuit == "closed", load=1)
    tab.wait("document.querySelector('#services').innerText.includes('closed')")
    assert tab.run("window.kept")


def test_buttons_and_focus(tab: Tab, site: Site) -> None:
    tab.run("document.querySelector('#restart-worker').focus()")
    site.rig.ask(5)
    tab.wait("window.seen === undefined ? (window.seen = document.querySelector('#services > div'), false)"
             " : window.seen !== document.querySelector('#services > div')")  # fmt: skip
    assert tab.run("document.activeElement.id") == "restart-worker", "what comes anew does not take the keyboard away"
    tab.key("Enter", text="\r")
    tab.wait("document.body.innerText.includes('restarted worker')")


def test_the_log_is_searched_as_one_types(tab: Tab, site: Site) -> None:
    tab.follow("#services a", "worker")
    tab.key("/", "Slash", "/")
    assert tab.run("document.activeElement.id") == "q"
    tab.fill("#q", "no such words")
    tab.wait("document.querySelector('#log').innerText.includes('No line has')")


@pytest.mark.parametrize("dark", [False, True])
def test_for_everybody(tab: Tab, site: Site, chromium: Browser, dark: bool) -> None:
    for path in ("/", "/s/web", "/s/none"):
        tab.size(1200, 800, dark=dark)
        tab.open(f"http://127.0.0.1:{site.port}{path}")
        assert tab.run("document.documentElement.lang") == "en"
        assert tab.run("document.querySelectorAll('h1').length") == 1
        assert tab.run("[...document.querySelectorAll('[id]')].every((e, i, all) => all.findIndex(o => o.id === e.id) === i)")
        for node in tab.nodes():
            if node.get("role", {}).get("value") in {"button", "link", "textbox", "searchbox"}:
                assert node.get("name", {}).get("value"), node
        assert tab.run("[...document.querySelectorAll('th')].every(e => e.scope)")
        tab.size(360, 740, phone=True, dark=dark)
        tab.open(f"http://127.0.0.1:{site.port}{path}")
        assert tab.run("document.documentElement.scrollWidth") <= 360, "nothing hangs over the edge"
        small = tab.run("[...document.querySelectorAll('main button, main input:not([type=hidden])')]"
                        ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 32).length")  # fmt: skip
        assert small == 0, "a thumb can hit it"
        if axe := os.environ.get("DOCKYARD_AXE"):  # axe.min.js of npm's axe-core
            tab.run(Path(axe).read_text())
            found = tab.run("axe.run().then(r => r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html).join(' ')))")
            assert found == []
    chromium.events.clear()  # the page that is missing has told so
