"""Failure on purpose: the report's times, and that everything is taken back (on the dry-run engine)."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from dockyard.cli.main import run as dockyard
from dockyard.client import Client
from dockyard.compose.chaos import STEADY, Report, Sample, fetch, judge, run
from dockyard.compose.faults import Fault
from dockyard.compose.guard import do
from dockyard.compose.hop import routes
from dockyard.errors import Conflict, NotImplementedYet

Compose = Callable[..., str]


class Handler(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(type(self).status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    Handler.status = 200
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def samples(*wrong: str) -> list[Sample]:
    return [Sample(float(at), text) for at, text in enumerate(wrong)]


def test_times_are_counted_from_the_injection() -> None:
    good = [""] * STEADY
    assert judge(samples("", "", "down", "", "down", *good), 1.5) == Report(8, 2, 0.5, 3.5)
    assert judge(samples("", *good), 0.0) == Report(STEADY + 1, 0, None, None)
    never = judge(samples("", "down", "down"), 0.5)
    assert never == Report(2, 2, 0.5, None)
    assert not never.passed
    assert not judge(samples("", *good), 0.0, aborted=True).passed


def test_checks_take_any_answer_below_500(site: str) -> None:
    assert fetch(site) == ""
    Handler.status = 503
    assert fetch(site) == "HTTP 503"
    assert fetch("http://127.0.0.1:9/") != ""


def test_nothing_is_injected_where_nothing_is_steady(site: str, client: Client) -> None:
    Handler.status = 500
    with pytest.raises(Conflict, match="not in a steady state, so nothing was injected: HTTP 500"):
        run(Fault(client, "kill", ["absent"]), [site], 0.1, 0, lambda line: None)


@pytest.mark.parametrize("verb", ["kill", "stop", "pause", "restart", "cut"])
def test_every_verb_is_taken_back(verb: str, compose: Compose, client: Client, site: str) -> None:
    compose("up", "-d", file="services: {a: {image: 'alpine:latest', command: sleep 1000}}")
    told: list[str] = []
    report = run(Fault(client, verb, ["shop-a-1"]), [site], 0.2, 0, told.append)
    assert report.passed
    assert told == ["steady state: 1 check(s) pass", "injected", "taken back"]
    assert client.request("GET", "/containers/shop-a-1/json")["State"]["Status"] == "running"


def test_a_stop_condition_ends_the_experiment(compose: Compose, client: Client, site: str) -> None:
    compose("up", "-d", file="services: {a: {image: 'alpine:latest', command: sleep 1000}}")
    told: list[str] = []

    def hear(line: str) -> None:
        told.append(line)
        Handler.status = 503 if line == "injected" else 200

    assert not run(Fault(client, "pause", ["shop-a-1"]), [site], 30, 2, hear).passed
    assert "stop condition: 2 checks in a row failed" in told
    assert client.request("GET", "/containers/shop-a-1/json")["State"]["Status"] == "running"


def test_a_bad_network_needs_the_engine_on_this_machine(compose: Compose, client: Client) -> None:
    compose("up", "-d", file="services: {a: {image: 'alpine:latest', command: sleep 1000}}")
    with pytest.raises(NotImplementedYet, match="cannot do delay to shop-a-1 here: "):
        Fault(client, "delay", ["shop-a-1"]).inject()


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("loss", "--percent", "0"), "above 0 and at most 100"), (("loss", "--percent", "x"), "above 0"),
        (("bandwidth", "--rate", "12"), "such as 512kbit"), (("delay", "--delay", "soon"), "--delay"),
        (("delay", "--duration", "9999h"), "at most"), (("dely",), "unknown verb"),
    ],
)  # fmt: skip
def test_strengths_that_mean_nothing_are_refused(
    words: tuple[str, ...], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dockyard(["chaos", *words, "shop-a-1"]) == 125
    assert wrong in capsys.readouterr().err


def test_a_detour_has_the_routes_of_the_main_table() -> None:
    table = [
        {"dst": "default", "gateway": "10.0.0.1", "dev": "eth0"},
        {"dst": "10.0.0.0/24", "dev": "eth0", "prefsrc": "10.0.0.7"},
        {"dst": "10.9.0.0/24", "dev": "gone0"},
        {"type": "blackhole", "dst": "10.8.0.0/24", "dev": "eth0"},
    ]
    assert routes(table, {"eth0": "10.0.0.7"}) == [("default", "10.0.0.7"), ("10.0.0.0/24", "10.0.0.7")]


def test_an_undo_in_a_namespace_that_is_another_now_does_nothing(client: Client) -> None:
    assert do(client, ["netns", os.getpid(), 1, ["false"]]) == []
    assert do(client, ["netns", 2**22 + 1, 1, ["false"]]) == []
