"""A hostile host: an engine that hangs, half answers or lies, configuration that is none, thousands of objects, a /proc that
may not be read. The doctor ends in bounded time, raises nothing, and says what it could not check.
"""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from dockyard.client import Client
from dockyard.doctor.collect import collect
from dockyard.doctor.examine import examine
from dockyard.doctor.facts import Address, Engine, Facts, Host, Link, NetNs, Process, Route
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import State

SECONDS = 2.0
MARGIN = 15.0  # of a loaded machine: threads get their turn late; the bound is what counts, a hung engine waits for ever
Answer = Callable[[str], tuple[int, bytes] | None]  # None: never answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        answer = server.answer(self.path.split("?")[0].removeprefix("/v1.41"))
        if answer is None:
            server.over.wait(60)
            return
        status, body = answer
        self.send_response(status)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class FakeEngine(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path, answer: Answer) -> None:
        self.answer, self.over = answer, threading.Event()
        super().__init__(str(path), Handler)
        path.chmod(0o777)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is what is tested."""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[[Answer], str]]:
    running: list[FakeEngine] = []

    def start(answer: Answer) -> str:
        server = FakeEngine(tmp_path / "engine.sock", answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"unix://{tmp_path}/engine.sock"

    yield start
    for server in running:
        server.over.set()
        server.shutdown()
        server.server_close()


def document(key: str, pid: int = 0) -> dict[str, Any]:
    """A container as an engine tells of it."""
    state = {"Running": True, "Status": "running", "Pid": pid, "ExitCode": 0, "StartedAt": "2026-01-01T00:00:00Z",
             "FinishedAt": "0001-01-01T00:00:00Z"}  # fmt: skip
    return {"Id": key, "Name": f"/{key[:8]}", "Path": "true", "Args": [], "State": state, "Config": {}, "HostConfig": {},
            "Mounts": [], "NetworkSettings": {"Networks": {}}}  # fmt: skip


def half_dead(path: str) -> tuple[int, bytes] | None:
    """Answers to a ping; then errors, silence, garbage and the wrong kind of document."""
    answers: dict[str, tuple[int, bytes] | None] = {
        "/_ping": (200, b"OK"),
        "/version": (200, b'{"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}'),
        "/info": (200, b'{"DockerRootDir": "/nowhere"}'),
        "/containers/json": (200, json.dumps([{"Id": "a" * 64}, {"Id": "b" * 64}, {"Id": "c" * 64}]).encode()),
        f"/containers/{'a' * 64}/json": None,
        f"/containers/{'b' * 64}/json": (200, b'{"Id": "' + b"b" * 64 + b'", "State": null, "Mounts": "none", "HostConfig": []}'),
        f"/containers/{'c' * 64}/json": (500, b'{"message": "database is locked"}'),
        "/networks": (500, b'{"message": "no"}'),
        "/volumes": (200, b"<html>not json</html>"),
        "/images/json": (200, b'{"an": "object"}'),
        "/events": None,
    }
    return answers.get(path, (404, b"{}"))


def timed(host: str) -> tuple[Facts, float]:
    start = time.monotonic()
    facts = collect(Client(host), {}, seconds=SECONDS)
    return facts, time.monotonic() - start


def test_a_silent_engine_is_named_in_bounded_time(engine: Callable[[Answer], str]) -> None:
    facts, spent = timed(engine(lambda path: None))
    report = examine(facts, all_rules())
    assert facts.engine.reach == "silent"
    assert spent < SECONDS + MARGIN
    assert [item.id for item in report.findings][:1] == ["INS-01"]
    unknown = {check.id for check in report.checks if check.state is State.UNKNOWN}
    assert {"CTR-16", "NET-01", "STO-05"} <= unknown  # what needs the API is not called healthy


def test_a_half_dead_engine_is_examined_as_far_as_it_goes(engine: Callable[[Answer], str]) -> None:
    facts, spent = timed(engine(half_dead))
    assert facts.engine.reach == "ok", facts.engine.reach_detail
    report = examine(facts, all_rules())
    assert spent < SECONDS + MARGIN
    assert {"networks", "volumes", *(f"containers.{letter * 12}" for letter in "abc")} <= facts.missing.keys()
    states = {check.id: check for check in report.checks}
    assert states["NET-09"].state is State.UNKNOWN
    assert "networks" in states["NET-09"].reason
    assert report.exit_code in (2, 3)  # never "healthy"


@pytest.mark.parametrize("text", ["[]", '"word"', '{"hosts": 5}', '{"hosts": null, "icc": {}}', "[" * 100_000, "\0\0", '{"a": 1e999}'])
def test_garbage_in_the_configuration_ends_in_a_finding_or_nothing(text: str) -> None:
    facts = Facts(0.0, engine=Engine(reach="ok", config_path="/etc/docker/daemon.json", config_text=text))
    report = examine(facts, [rule for rule in all_rules() if rule.id in ("INS-04", "INS-05", "NET-06", "INS-14")])
    assert not [check for check in report.checks if "itself failed" in check.reason]


def crowded(count: int) -> Facts:
    """``count`` containers on a tenth as many networks, each with a process and a namespace."""
    containers, networks, nets, processes, links = [], [], {}, {}, [Link(1, "lo", up=True), Link(2, "eth0", up=True)]
    for number in range(count // 10):
        key = f"{number:064x}"
        subnet = f"10.{number // 256}.{number % 256}.0/24"
        config = {"Config": [{"Subnet": subnet, "Gateway": subnet.replace("0/24", "1")}]}
        networks.append({"Id": key, "Name": f"net{number}", "Driver": "bridge", "IPAM": config, "Containers": {}})
        links.append(Link(10 + number, f"br-{key[:12]}", "bridge", up=True, mtu=1500))
    for number in range(count):
        key, place = f"{number + (1 << 60):064x}", number % (count // 10)
        address = f"10.{place // 256}.{place % 256}.{2 + number // (count // 10)}"
        item = document(key, 1)
        mac = f"02:00:{number >> 24 & 255:02x}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
        endpoint = {"NetworkID": f"{place:064x}", "IPAddress": address, "MacAddress": mac}
        item["NetworkSettings"]["Networks"] = {f"net{place}": endpoint}
        containers.append(item)
        links.append(Link(100_000 + number, f"veth{number}", "veth", master=10 + place, up=True, mtu=1500))
        inner = Link(2, "eth0", "veth", mac, 1500, up=True, peer=100_000 + number)
        nets[key] = NetNs(number, [inner], [Address(2, address, 24)], resolv_conf="nameserver 127.0.0.11\n")
        processes[key] = Process(1)
    host = NetNs(0, links, [Address(2, "203.0.113.2", 24)], [Route("0.0.0.0/0", 2, "203.0.113.1")], sysctls={"net.ipv4.ip_forward": "1"})
    version = {"Version": "28.0.0", "Components": [{"Name": "Dockyard"}]}
    return Facts(time.time(), engine=Engine(reach="ok", version=version), host=Host(resolv_conf="nameserver 203.0.113.1\n"),
                 containers=containers, networks=networks, host_net=host, nets=nets, processes=processes)  # fmt: skip


def test_thousands_of_objects_are_examined_in_bounded_time() -> None:
    facts = crowded(3000)
    start = time.monotonic()
    report = examine(facts, all_rules())
    assert time.monotonic() - start < 10
    assert not [check for check in report.checks if "itself failed" in check.reason]


def test_thousands_of_containers_are_collected_in_bounded_time(engine: Callable[[Answer], str]) -> None:
    rows = json.dumps([{"Id": f"{number:064x}"} for number in range(5000)]).encode()

    def answer(path: str) -> tuple[int, bytes] | None:
        if path.startswith("/containers/") and path.endswith("/json") and len(path) > 60:
            return 200, json.dumps(document(path.split("/")[2])).encode()
        return (200, rows) if path == "/containers/json" else half_dead(path)

    facts, spent = timed(engine(answer))
    assert spent < SECONDS + MARGIN
    assert len(facts.containers) + sum(key.startswith("containers.") for key in facts.missing) + ("containers" in facts.missing) >= 1
    report = examine(facts, all_rules())
    assert not [check for check in report.checks if "itself failed" in check.reason]


@pytest.mark.root
def test_an_unreadable_proc_is_said(engine: Callable[[Answer], str], tmp_path: Path) -> None:
    """Asked by nobody (uid 65534), who may read nothing of pid 1."""
    if os.geteuid():
        pytest.skip("needs root to become nobody")
    key = "d" * 64

    def answer(path: str) -> tuple[int, bytes] | None:
        if path == "/containers/json":
            return 200, json.dumps([{"Id": key}]).encode()
        return (200, json.dumps(document(key, 1)).encode()) if path == f"/containers/{key}/json" else half_dead(path)

    host = engine(answer)
    code = ("import sys, json; from dockyard.client import Client; from dockyard.doctor.collect import collect\n"
            "facts = collect(Client(sys.argv[1]), {}, seconds=3); print(json.dumps(facts.missing))")  # fmt: skip
    for place in (tmp_path, *tmp_path.parents[:3]):
        place.chmod(place.stat().st_mode | 0o11)
    done = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-c", code, host],
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    if "Permission denied" in done.stderr and "python" in done.stderr:
        pytest.skip("this interpreter is not readable by others")
    assert done.returncode == 0, done.stderr
    missing = json.loads(done.stdout)
    assert any(name.startswith(("nets", "host_net", "firewall", "host", "processes")) for name in missing), missing
