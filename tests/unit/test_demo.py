"""The demo's voice: a story within 80 columns, with a sign of life where it takes long; and its load's counts."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from dockyard.cli.demo.load import Load
from dockyard.cli.demo.story import NEXT
from dockyard.cli.demo.voice import Narrator, condensed, cut


def test_nothing_is_wider_than_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    say = Narrator(9)
    with say.step("A title", "because " * 40):
        say.command(["docker", "run", "a\tb c", "x" * 200])
        say.output("\n".join(["y" * 200] * 10), lines=3)
        say.good("z" * 200)
    told = capsys.readouterr().out.splitlines()
    assert max(map(len, told + NEXT.splitlines())) <= 80
    assert "   $ docker run 'a\\tb c' xxx" in "\n".join(told)
    assert "     ... 7 more lines" in told
    assert told[1] == "1/9 A title"
    assert "\033" not in "".join(told), "colour is for terminals"


def test_a_line_that_fits_is_left_alone() -> None:
    assert cut("z" * 80) == "z" * 80
    assert cut("z" * 81) == "z" * 77 + "..."


def test_working_ends_with_its_work_and_says_nothing_when_it_was_quick(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), Narrator().working():
        raise ZeroDivisionError
    assert capsys.readouterr().out == ""


def test_composes_progress_in_few_lines() -> None:
    told = condensed("""\
 Network shop_default  Creating
 Container shop-web-1  Creating
 Network shop_default  Created
 Container shop-web-1  Started
 Container shop-app-1  Started
warning: something
 Container shop-web-1  Healthy
""")
    assert told.splitlines() == ["Created: shop_default", "Started: shop-app-1", "Healthy: shop-web-1", "warning: something"]
    many = condensed("\n".join(f" Container shop-app-{number}  Started" for number in range(30)))
    assert max(map(len, many.splitlines())) <= 75


class Shop(http.server.BaseHTTPRequestHandler):
    answers = (200, b'{"server": "one"}')

    def do_GET(self) -> None:
        status, body = type(self).answers
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def _until(load: Load, more: int) -> None:
    wanted = load.total.requests + more
    while load.total.requests < wanted:  # bounded by the test's own limit of time
        threading.Event().wait(0.01)


def test_the_load_counts_what_fails_in_a_window_and_in_all(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(shop)
    with load.window():  # as empty as the total, and not it
        pass
    with load:
        with load.window() as good:
            _until(load, 10)
        assert (good.failed, good.servers) == ([], {"one"})
        monkeypatch.setattr(Shop, "answers", (502, b""))
        with load.window() as bad:
            _until(load, 10)
        assert "HTTP 502" in bad.failed
        monkeypatch.setattr(Shop, "answers", (200, b"<h1>Sorry</h1>"))
        with load.window() as odd:
            _until(load, 10)
        assert any(wrong.startswith("unexpected page") for wrong in odd.failed)
    assert len(load.total.failed) >= len(bad.failed) + len(odd.failed)
    assert load.total.requests > good.requests + bad.requests
