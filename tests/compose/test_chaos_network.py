"""Bad networks and killed experiments on a private engine with real containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from dockyard.testing.engines import PrivateEngine, private_engine
from dockyard.testing.kit import archive

pytestmark = pytest.mark.root
LIMIT = 60.0
PAGE = 200_000
"""Bytes of the page that is fetched."""
SERVE = f"mkdir /www; head -c {PAGE} /dev/zero > /www/big; echo small > /www/index.html; exec httpd -f -p 80 -h /www"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    kit = archive(tmp_path_factory.mktemp("kit") / "kit.tar")
    with private_engine("dockyard", tmp_path_factory.mktemp("engine") / "e") as one:
        loaded = one.docker("load", "-i", str(kit))
        assert loaded.returncode == 0, loaded.stderr
        yield one


@pytest.fixture
def web(engine: PrivateEngine) -> Iterator[str]:
    """A server's address; its container is called web."""
    started = engine.docker("run", "-d", "--name", "web", "--stop-signal", "KILL", "alpine:latest", "sh", "-c", SERVE)
    assert started.returncode == 0, started.stderr
    address = engine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").stdout.strip()
    _until(lambda: _fetch(engine, address, "index.html") is not None)
    yield address
    engine.docker("rm", "-f", "web")


def _fetch(engine: PrivateEngine, address: str, page: str) -> float | None:
    """Seconds that it took, None when there was no answer."""
    command = engine.inside("curl", "-s", "-f", "-m", "30", "-o", "/dev/null", "-w", "%{time_total}", f"http://{address}/{page}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    return float(done.stdout) if done.returncode == 0 else None


def _until(condition: object) -> None:
    end = time.monotonic() + LIMIT
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)  # a process is starting or ending; bounded by LIMIT


def _chaos(engine: PrivateEngine, *words: str) -> subprocess.Popen[str]:
    """Runs until it is told otherwise; returned when the failure is there."""
    program = subprocess.Popen(
        [sys.executable, "-m", "dockyard.cli", "chaos", *words, "--duration", "300s", "web"], text=True,
        env=os.environ | {"DOCKER_HOST": engine.host}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert program.stderr is not None
    assert program.stderr.readline().startswith("steady state")
    told = program.stderr.readline()
    assert told == "injected\n", told + program.stderr.read()
    return program


def _end(program: subprocess.Popen[str], number: signal.Signals) -> None:
    program.send_signal(number)
    program.communicate(timeout=LIMIT)


def _traces(engine: PrivateEngine) -> str:
    """What a bad network is made of, in the container's namespace."""
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "web").stdout.strip()
    script = "nft list tables; tc qdisc show; ip rule; ip -o link"
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", "sh", "-c", script]
    told = subprocess.run(enter, capture_output=True, text=True, check=True).stdout
    return " ".join(word for word in ("dockyard_chaos", "tbf", "netem", "7077", "chaos0") if word in told)


ENDS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]


@pytest.mark.parametrize("end", ENDS)
def test_packets_are_late(engine: PrivateEngine, web: str, end: signal.Signals) -> None:
    program = _chaos(engine, "delay", "--delay", "300ms")
    took = _fetch(engine, web, "index.html")
    assert took is not None
    assert took > 0.6, "the handshake and the page"
    _end(program, end)
    _until(lambda: not _traces(engine))
    assert (_fetch(engine, web, "index.html") or LIMIT) < 0.6


@pytest.mark.parametrize("end", ENDS)
def test_packets_get_lost(engine: PrivateEngine, web: str, end: signal.Signals) -> None:
    program = _chaos(engine, "loss", "--percent", "100")
    command = engine.inside("curl", "-s", "-f", "-m", "1", f"http://{web}/")
    assert subprocess.run(command, capture_output=True).returncode == 28, "curl waits in vain"
    _end(program, end)
    _until(lambda: not _traces(engine))
    assert _fetch(engine, web, "index.html") is not None


@pytest.mark.parametrize("end", ENDS)
def test_a_network_is_slow(engine: PrivateEngine, web: str, end: signal.Signals) -> None:
    program = _chaos(engine, "bandwidth", "--rate", "800kbit")
    took = _fetch(engine, web, "big")
    assert took is not None
    assert 1.0 < took < 10, "200 kB at 100 kB a second"
    _end(program, end)
    _until(lambda: not _traces(engine))
    assert (_fetch(engine, web, "big") or LIMIT) < 1.0


SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    for _ in range(1000): sock.sendto(b"x", (sys.argv[1], 9999))
"""


def _arrived(engine: PrivateEngine) -> int:
    """Datagrams for a port on which nobody listens."""
    rows = engine.docker("exec", "web", "cat", "/proc/net/snmp").stdout.splitlines()
    names, values = (line.split() for line in rows if line.startswith("Udp: "))
    return int(values[names.index("NoPorts")])


def test_a_part_of_the_packets(engine: PrivateEngine, web: str) -> None:
    program = _chaos(engine, "loss", "--percent", "30")
    before = _arrived(engine)
    subprocess.run(engine.inside(sys.executable, "-c", SEND, web), check=True, timeout=LIMIT)
    assert 600 < _arrived(engine) - before < 800
    _end(program, signal.SIGINT)


def test_a_killed_experiment_is_taken_back(engine: PrivateEngine, web: str) -> None:
    _end(_chaos(engine, "pause"), signal.SIGKILL)
    _until(lambda: engine.docker("inspect", "-f", "{{.State.Status}}", "web").stdout.strip() == "running")
    _end(_chaos(engine, "cut"), signal.SIGKILL)
    _until(lambda: engine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").stdout.strip() != "")


def test_the_hosts_network_is_left_alone(engine: PrivateEngine) -> None:
    engine.docker("run", "-d", "--name", "near", "--network", "host", "alpine:latest", "sleep", "1000")
    done = subprocess.run(
        [sys.executable, "-m", "dockyard.cli", "chaos", "loss", "near"], env=os.environ | {"DOCKER_HOST": engine.host},
        capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    engine.docker("rm", "-f", "near")
    assert done.returncode == 1
    assert "it shares the host's network" in done.stderr
