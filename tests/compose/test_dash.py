"""The dash: pictures from rows, lines on a terminal, keys, and what scripts get; on simulated containers and a real balancer."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dockyard.cli.compose.session import balancer_of
from dockyard.cli.dash import main, view
from dockyard.cli.dash.screen import Painter, keys
from dockyard.compose import desk, exposition, picture
from dockyard.compose.circuit import Count
from dockyard.compose.haproxy import RuntimeSocket
from dockyard.compose.loader import Request, load
from dockyard.compose.observe import read_container
from dockyard.compose.picture import Picture
from dockyard.compose.project import Project
from dockyard.compose.traffic import Flow, Rates
from dockyard.compose.traffic import Instance as Balanced
from dockyard.doctor import Facts
from dockyard.doctor.finding import Confidence, Finding, Fix, Object, Report, Severity
from dockyard.errors import InvalidParameter
from dockyard.testing.balanced import Rig, Server, free_port

spec = importlib.util.spec_from_file_location("pty_runner", Path(__file__).parents[1] / "cli" / "pty_runner.py")
assert spec is not None
assert spec.loader is not None
pty_runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pty_runner)
SHOP = "services: {web: {image: x, scale: 3}, db: {image: y}, init: {image: z}, off: {image: x, scale: 0}}"


class One:
    def read(self, path: str) -> str:
        return SHOP

    def exists(self, path: str) -> bool:
        return False


def row(service: str, number: int, status: str, state: str = "running") -> Any:
    labels = {"com.docker.compose.service": service, "com.docker.compose.container-number": str(number)}
    networks = {"Networks": {"n": {"NetworkID": "net-" + service}}}
    return read_container({
        "Id": f"{service}-{number}-id", "Names": [f"/shop-{service}-{number}"], "State": state, "Labels": labels,
        "Status": status, "Image": "x", "NetworkSettings": networks,
    })  # fmt: skip


def looks(*rows: Any, **more: Any) -> dict[str, picture.ServiceLook]:
    terms: dict[str, Any] = {"restarts": {}, "stale": {}, "flows": {}, "rates": {}} | more
    project = load(Request(["/app/c.yaml"], "/app", {}), One())
    return {one.name: one for one in picture.services(project, rows, **terms)}


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([row("web", n, "Up 1 s") for n in (1, 2, 3)], "up"),
        ([row("web", 1, "Up 1 s"), row("web", 2, "Up 1 s")], "degraded"),
        ([row("web", n, f"Up 1 s ({'un' if n == 2 else ''}healthy)") for n in (1, 2, 3)], "degraded"),
        ([row("web", n, "Up 1 s (health: starting)") for n in (1, 2, 3)], "starting"),
        ([row("web", n, "Up 1 s (unhealthy)") for n in (1, 2, 3)], "down"),
        ([row("web", n, "Exited (1) 2 s ago", "exited") for n in (1, 2, 3)], "down"),
        ([row("web", n, "Exited (0) 2 s ago", "exited") for n in (1, 2, 3)], "done"),
        ([], "down"),
    ],
)
def test_how_a_service_is(rows: list[Any], state: str) -> None:
    assert looks(*rows)["web"].state == state


def test_what_its_policy_has_just_started_again_is_not_up() -> None:
    assert looks(row("db", 1, "Up 3 seconds"))["db"].state == "up"
    assert looks(row("db", 1, "Up 3 seconds"), restarts={"db-1-id": 2})["db"].state == "starting"
    assert looks(row("db", 1, "Up 12 seconds"), restarts={"db-1-id": 2})["db"].state == "up"


def test_what_else_a_picture_has() -> None:
    flow = Flow("open", instances=(Balanced(2, "a", "OUT", 0, Count(9, 8), 0.0, 0),))
    made = looks(*[row("web", n, "Up 1 s") for n in (1, 2, 3)], row("old", 1, "Up 1 s"), restarts={"web-1-id": 4},
                 stale={"shop-web-3": "image changed"}, flows={"web": flow})  # fmt: skip
    web = made["web"]
    assert (web.restarts, web.stale, web.running, web.wanted) == (4, "image changed", 3, 3)
    assert (web.seats[1].balance, web.seats[1].errors) == ("OUT", 8)
    assert web.state == "degraded", "a circuit that is open is not up"
    assert made["off"].state == "off"
    assert list(made)[-1] == "old", "what the file does not know comes last"


def finding(name: str, kind: str, severity: Severity = Severity.FAULT, affects: list[str] | None = None) -> Finding:
    fix = Fix("raise the limit", ["docker update -m 128m x"], ["docker update -m 64m x"], machine=True)
    return Finding("RES-01", "out of memory", severity, Confidence.PROVED, Object(kind, name), "it died", [], ["the limit"],
                   affects=affects or [], fix=fix)  # fmt: skip


def test_findings_stand_beside_the_service_that_is_ill() -> None:
    rows = [row("web", 1, "Up 1 s"), row("db", 1, "Up 1 s")]
    found = [finding("shop-db-1", "container"), finding("net", "network", Severity.RISK, ["net-web"]),
             finding("of-others", "container"), finding("", "host"), finding("", "host", Severity.ADVICE)]  # fmt: skip
    made, host = picture.with_findings(list(looks(*rows).values()), rows, Report(found, []))
    ills = {one.name: [ill.severity for ill in one.ills] for one in made}
    assert ills == {"web": ["risk"], "db": ["fault"], "init": [], "off": []}
    assert len(host) == 1
    shown = "\n".join(view.plain(line) for line in view.overview(Picture("shop", "e", made, host), "db")[0])
    assert "✗ RES-01 out of memory" in shown
    assert "cure raise the limit" in shown
    full = "\n".join(view.plain(line) for line in view.doctor(Picture("shop", "e", made, host), made[1]))
    assert "docker update -m 128m x" in full
    assert "dockyard doctor --apply RES-01" in full


def test_lines_fit_and_hold_no_control_characters() -> None:
    rates = Rates(1234.5, 100.0, 0.0012, 12.5, 10.0)
    made = looks(row("web", 1, "Up 1 s"), flows={"web": Flow("half-open")}, rates={"web": rates},
                 stale={"shop-web-1": "evil \x1b[2J"}, restarts={"web-1-id": 3})  # fmt: skip
    lines, at = view.overview(Picture("shop", "unix:///e", tuple(made.values())), "db")
    assert all(len(view.plain(line)) <= 80 for line in lines)
    assert "\x1b" not in "".join(view.plain(line) for line in lines)
    assert view.plain(lines[at]).split()[1] == "db"
    assert view.plain(view.cut([("", "x" * 100)], 10)) == "x" * 9 + "…"


def test_the_painter_writes_only_what_changed() -> None:
    written: list[str] = []
    painter = Painter(written.append, colour=False)
    painter.paint([[("", "one")], [("1", "two")]])
    written.clear()
    painter.paint([[("", "one")], [("1", "three")]])
    assert written == ["\x1b[2;1Hthree\x1b[K"]
    written.clear()
    painter.paint([[("", "one")], [("1", "three")]])
    assert written == []


def test_keys() -> None:
    assert list(keys(b"\x1b[Aq\r\x1b[15~\x7f\x03\xc3\xa9\x1b")) == ["up", "q", "enter", "back", "quit", "é", "esc"]


def test_metrics_are_read_by_prometheus_own_parser() -> None:
    flow = Flow("open", 2, "spent", 7, Count(10, 4, 3), tuple(range(17)))
    made = looks(row("web", 1, "Up 1 s (healthy)"), flows={"web": flow})
    text = exposition.render(Picture('sh"op', "e", tuple(made.values()), balanced=True, examined=True)).decode()
    samples = {(one.name, one.labels.get("service"), one.labels.get("state") or one.labels.get("le")): one.value
               for family in text_string_to_metric_families(text) for one in family.samples}  # fmt: skip
    assert samples["dockyard_requests_total", "web", None] == 10
    assert samples["dockyard_circuit_state", "web", "open"] == 1
    assert samples["dockyard_request_seconds_bucket", "web", "0.001"] == 0
    assert samples["dockyard_request_seconds_bucket", "web", "+Inf"] == 16
    assert samples["dockyard_service_up", "web", None] == 0
    assert 'project="sh\\"op"' in text


@pytest.mark.parametrize("heals", [True, False])
def test_a_cure_is_applied_and_taken_back_if_it_does_not_help(
    heals: bool, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    fix = Fix("touch it", [f"touch {mark}"], [f"rm {mark}"], machine=True)
    ill = Finding("X-1", "ill", Severity.FAULT, Confidence.PROVED, Object("host"), "seen", [], fix=fix)
    monkeypatch.setattr(desk, "collect", lambda *_: Facts(0.0))
    monkeypatch.setattr(desk, "examine", lambda *_: Report([] if heals and mark.exists() else [ill], []))
    monkeypatch.setattr("dockyard.doctor.cure.SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("dockyard.doctor.cure._keep_undo", lambda *_: "")
    one = desk.Desk(client, Project("shop", {}), RuntimeSocket(str(tmp_path / "none")), object())  # type: ignore[arg-type]
    one._examine_now()
    with pytest.raises(InvalidParameter, match="not among the findings"):
        one.cure("Y-2")
    assert one.cure(ill.key)
    with one._acting:
        one.look()
    assert mark.exists() is heals
    assert one.picture.failed is not heals
    assert ("X-1 is healed" if heals else "X-1 rolled back: the finding stayed") in one.picture.said


# ---- on simulated containers


@pytest.fixture
def dash(dry_host: str, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*words: str, status: int = 0) -> str:
        capfd.readouterr()
        code = main(list(words))
        told = capfd.readouterr()
        assert code == status, told.out + told.err
        return told.out + told.err

    return call


FILE = "services: {web: {image: busybox, command: sleep 1000, scale: 2}, db: {image: busybox, command: sleep 1000}}"


def test_once_for_scripts(compose: Callable[..., str], dash: Callable[..., str]) -> None:
    compose("create", file=FILE)
    told = dash("--once", "--no-doctor", status=1)
    assert "✗ web" in told
    compose("up", "-d")
    told = dash("--once", "--no-doctor")
    assert "● web" in told
    assert "2/2" in told
    read = json.loads(dash("--json", "--no-doctor"))
    assert [(one["name"], one["state"], one["running"]) for one in read["services"]] == [("web", "up", 2), ("db", "up", 1)]
    compose("up", "-d", "db", file=FILE)
    with contextlib.suppress(FileNotFoundError):
        Path("compose.yaml").write_text(FILE.replace("scale: 2", "scale: 2, environment: {A: b}"))
    assert "out of date: configuration changed" in dash("--once", "--no-doctor")
    Path("compose.yaml").rename("other.yaml")
    assert "● web" in dash("-p", "shop", "--once", "--no-doctor"), "a name is enough"
    Path("other.yaml").rename("compose.yaml")
    assert "unknown flag" in dash("--onze", status=125)
    assert "ADDR" in dash("--help")


@pytest.fixture
def balanced(compose: Callable[..., str], dry_host: str) -> Iterator[Rig]:
    """The project of two services; ``web`` has a real balancer over servers of ours where `compose balance` puts its own."""
    port = free_port()
    web = f"{{image: busybox, command: sleep 1000, scale: 2, x-dockyard: {{balance: {{listen: '127.0.0.1:{port}', pause: 1s}}}}}}"
    compose("up", "-d", file=f"services: {{web: {web}, db: {{image: busybox, command: sleep 1000}}}}")
    place = balancer_of("shop", dry_host)
    with Rig(place, [Server(), Server()], port, pause=1.0, errors=10000, retries=0) as rig:
        yield rig


def test_traffic_and_an_open_circuit(balanced: Rig, dash: Callable[..., str]) -> None:
    balanced.ask(30)
    told = dash("--once", "--no-doctor")
    assert "closed" in told
    for server in balanced.servers:
        server.code = 500
    balanced.until(lambda: balanced.flow().circuit == "open")
    read = json.loads(dash("--json", "--no-doctor", status=1))
    web = read["services"][0]
    assert (web["state"], web["flow"]["opened"] >= 1) == ("degraded", True)
    assert web["seats"][0]["errors"] > 0


@pytest.fixture
def on_terminal(dry_host: str, compose: Callable[..., str]) -> Callable[..., Any]:
    environ = {**os.environ, "DOCKER_HOST": dry_host, "TERM": "xterm", "COLUMNS": "", "LINES": ""}

    def start(*words: str, **size: int) -> Any:
        return pty_runner.OnTerminal([sys.executable, "-m", "dockyard.cli", "dash", *words], environ, **size)

    return start


def test_keys_on_a_terminal(compose: Callable[..., str], on_terminal: Callable[..., Any], client: Any) -> None:
    compose("up", "-d", file=FILE)

    def started() -> str:
        return str(client.request("GET", "/containers/shop-db-1/json")["State"]["StartedAt"])

    before = started()
    with on_terminal() as it:
        it.until_raw()
        it.expect("2/2")
        it.type("?")
        it.expect("choose a service")
        it.type("\x1b")
        it.type("\x1b[B")
        it.type("r")
        it.expect("restart db? (y/n)")
        it.type("nry")
        it.expect("restarted db")
        assert started() != before
        it.type("l")
        it.expect("logs of db")
        it.type("/nowhere\r")
        it.expect("with 'nowhere': 0 lines")
        it.type("\x1b")
        it.type("q")
        assert it.ended() == 0
        assert not it.raw()
        assert it.output.endswith(b"\x1b[?25h\x1b[?1049l"), "the screen is as it was"


def test_ctrl_c_and_small_windows(compose: Callable[..., str], on_terminal: Callable[..., Any]) -> None:
    compose("up", "-d", file=FILE)
    with on_terminal(rows=6, columns=40) as it:
        it.until_raw()
        it.expect("web")
        it.resize(24, 80)
        it.signal(signal.SIGWINCH)
        it.expect("P99")
        it.type("\x03")
        assert it.ended() == 0
        assert not it.raw()


def test_a_still_picture_costs_no_bytes(compose: Callable[..., str], on_terminal: Callable[..., Any]) -> None:
    compose("up", "-d", file=FILE)
    with on_terminal() as it:
        it.until_raw()
        it.expect("q quit")
        quiet, end = 0, time.monotonic() + 30
        size = len(it.output)
        while quiet < 3 and time.monotonic() < end:
            it._read(1.0)
            quiet, size = (quiet + 1, size) if len(it.output) == size else (0, len(it.output))
        assert quiet == 3
        it.type("q")
        assert it.ended() == 0
