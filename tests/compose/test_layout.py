"""The balancer's table: routes in order, slots filled and emptied, and nothing of a file that could break out of its word."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dockyard.compose.circuit import Judge
from dockyard.compose.layout import SLOTS, commands, layout_of, render, wanted
from dockyard.compose.loader import Request, load
from dockyard.compose.observe import project_of, read_container
from dockyard.compose.project import Project
from dockyard.errors import InvalidParameter

CUBE = """
services:
  web: {image: x, expose: ["3000"], x-dockyard: {balance: {listen: 8080, check: /}}}
  api: {image: x, x-dockyard: {balance: {listen: 8080, path: /api, port: 81, algorithm: leastconn, slowstart: 2s}}}
  deep: {image: x, x-dockyard: {balance: {listen: 8080, path: /api/v2, host: "*.example"}}}
  shard: {image: x, x-dockyard: {balance: {listen: "127.0.0.1:8081", shard: "cookie:tenant", pin: {acme: 2}}}}
"""


class One:
    def __init__(self, text: str) -> None:
        self._text = text

    def read(self, path: str) -> str:
        return self._text

    def exists(self, path: str) -> bool:
        return False


def project(text: str) -> Project:
    return load(Request(["/app/c.yaml"], "/app", {}), One(text))


def test_routes_stand_from_the_most_particular_to_the_rest() -> None:
    made = layout_of(project(CUBE))
    assert {listen: [one.service for one in rows] for listen, rows in made.fronts.items()} == {
        "*:8080": ["deep", "api", "web"], "127.0.0.1:8081": ["shard"],
    }  # fmt: skip
    text = render(made, "/run/x.sock", "127.0.0.1:9101")
    assert made.services["web"].port == 3000
    assert "default_backend b_web" in text
    assert "use_backend b_deep if { req.hdr(host),field(1,:) -i -m end .example } { path_beg /api/v2/ }" in text
    assert "balance hash req.cook(tenant)" in text
    assert "use-server s2 if { req.cook(tenant) -m str acme }" in text


def test_haproxy_takes_the_file(tmp_path: Path) -> None:
    file = tmp_path / "h.cfg"
    states = tmp_path / "states.map"
    states.write_text("".join(f"{key} {value}\n" for key, value in Judge(layout_of(project(CUBE))).states().items()))
    text = render(layout_of(project(CUBE)), str(tmp_path / "s"), "127.0.0.1:9101", str(states))
    assert f"use_backend o_web if {{ str(b_web),map_str({states}) -m str open }}" in text
    file.write_text(text)
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    done = subprocess.run([str(program), "-c", "-f", str(file)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("balance", "told"),
    [
        ("listen: eighty", "must be PORT or ADDRESS:PORT"),
        ("listen: 80, host: 'a b'", "host: cannot be 'a b'"),
        ('listen: 80, path: "/x }\\n bind *:1"', "path: cannot be"),
        ("listen: 80, shard: 'header:X y'", "expected header:NAME"),
        ("listen: 80, shard: 'header:X', pin: {'a b': 1}", "pin: 'a b'"),
        ("listen: 80, pin: {a: 1}", "needs a shard"),
        ("listen: 80, algorithm: fast", "must be roundrobin"),
        ("listen: 80, lisen: 1", "unknown key"),
        ("listen: 80, retries: many", "must be a number"),
        ("listen: 80, timeout: soon", "invalid duration"),
        ("listen: 80, breaker: 101", "must be a number up to 100"),
        ("listen: 80, eject: never", "invalid duration"),
    ],
)
def test_words_that_are_none_are_refused_with_their_place(balance: str, told: str) -> None:
    with pytest.raises(InvalidParameter, match=told) as caught:
        layout_of(project(f"services: {{a: {{image: x, x-dockyard: {{balance: {{{balance}}}}}}}}}"))
    assert "services.a.x-dockyard.balance" in str(caught.value)


def test_labels_say_the_same_and_are_enough_without_files() -> None:
    text = """
services:
  web:
    image: x
    labels: {dockyard.balance.listen: "8080", dockyard.balance.shard: "header:Tenant", dockyard.balance.pin.acme: "2", other: y}
    x-dockyard: {balance: {port: 81}}
"""
    one = layout_of(project(text)).services["web"]
    assert (one.listen, one.port, one.pins) == ("*:8080", 81, (("acme", 2),))
    labels = {"com.docker.compose.service": "web", "com.docker.compose.container-number": "1", "dockyard.balance.listen": "8080"}
    found = read_container({"Id": "1", "Names": ["/app-web-1"], "State": "running", "Labels": labels})
    assert list(layout_of(project_of("app", [found])).services) == ["web"]
    with pytest.raises(InvalidParameter, match="unknown key"):
        layout_of(project("services: {a: {image: x, labels: {dockyard.balance.lisen: '1'}}}"))


def test_two_services_cannot_be_the_rest_of_one_address() -> None:
    text = "services: {a: {image: x, x-dockyard: {balance: {listen: 80}}}, b: {image: x, x-dockyard: {balance: {listen: 80}}}}"
    with pytest.raises(InvalidParameter, match="a has this address already"):
        layout_of(project(text))


def container(service: str, number: int, address: str, **more: Any) -> Any:
    labels = {"com.docker.compose.service": service, "com.docker.compose.container-number": str(number)}
    row = {"Id": f"{service}{number}{address}", "Names": [f"/app-{service}-{number}"], "State": "running", "Labels": labels,
           "Status": "Up 1 second", "Created": 1, "NetworkSettings": {"Networks": {"n": {"IPAddress": address}}}}  # fmt: skip
    return read_container(row | more)


def test_slots_follow_what_runs_and_is_healthy() -> None:
    made = layout_of(project(CUBE))
    rows = [
        container("web", 1, "10.0.0.1"), container("web", 2, "10.0.0.2", State="exited"),
        container("web", 3, "10.0.0.3", Status="Up 1 second (health: starting)"),
        container("web", 4, "10.0.0.4", Status="Up 1 second (healthy)"), container("web", SLOTS + 1, "10.0.0.5"),
        container("shard", 1, ""), container("other", 1, "10.0.0.6"),
    ]  # fmt: skip
    first = wanted(made, rows)
    assert first == {("b_web", 1): ("10.0.0.1", 3000), ("b_web", 4): ("10.0.0.4", 3000)}
    newer = wanted(made, [container("web", 1, "10.0.0.9", Created=2), *rows])
    assert newer[("b_web", 1)] == ("10.0.0.9", 3000)
    assert commands(first, {("b_web", 1): ("10.0.0.9", 3000)}) == [
        "set server b_web/s4 state maint", "set server b_web/s1 addr 10.0.0.9 port 3000", "set server b_web/s1 state ready",
        "set server b_web/s1 health up",
    ]  # fmt: skip
    assert commands(first, first) == []
