"""A whole application on a private real engine: conditions, names, secrets, one-offs, exit codes, output."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dockyard.client import Client
from dockyard.testing.balanced import LOAD
from dockyard.testing.engines import PrivateEngine, private_engine
from dockyard.testing.kit import archive

pytestmark = pytest.mark.root
LIMIT = 90
SHOP = """
services:
  web:
    image: alpine:latest
    command: sh -c 'mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www'
    stop_signal: SIGKILL
    scale: 2
    depends_on: {db: {condition: service_healthy}, init: {condition: service_completed_successfully}}
    secrets: [token]
    configs: [{source: conf, target: /etc/app.conf}]
    post_start: [{command: sh -c 'echo hooked > /hooked'}]
  db:
    image: alpine:latest
    command: sh -c 'sleep 0.3; touch /ready; exec sleep 1000'
    stop_signal: SIGKILL
    healthcheck: {test: test -f /ready, interval: 200ms, retries: 50}
    networks: {default: {aliases: [database]}}
    volumes: [data:/data]
  init: {image: "alpine:latest", command: sh -c 'echo init done', volumes: ["data:/data"]}
volumes: {data: }
secrets: {token: {environment: TOKEN}}
configs: {conf: {content: "port=80"}}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    kit = archive(tmp_path_factory.mktemp("kit") / "kit.tar")
    with private_engine("dockyard", tmp_path_factory.mktemp("engine") / "e") as one:
        loaded = one.docker("load", "-i", str(kit))
        assert loaded.returncode == 0, loaded.stderr
        yield one


@pytest.fixture
def compose(engine: PrivateEngine, tmp_path: Path) -> Iterator[Callable[..., str]]:
    directory = tmp_path / "shop"
    directory.mkdir()
    environment = {**os.environ, "DOCKER_HOST": engine.host, "TOKEN": "t0ken"}

    def call(*words: str, status: int = 0, stdin: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dockyard.cli", "compose", *words], cwd=directory, env=environment, text=True,
            input=stdin, capture_output=True, timeout=LIMIT,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    (directory / "compose.yaml").write_text(SHOP)
    yield call
    call("down", "-v", "-t", "0", "--remove-orphans")


def test_a_whole_application(compose: Callable[..., str], engine: PrivateEngine) -> None:
    compose("up", "-d")
    rows = {row["Name"]: row for row in map(json.loads, compose("ps", "-a", "--format", "json").splitlines())}
    assert {name: row["State"] for name, row in rows.items()} == {
        "shop-db-1": "running", "shop-init-1": "exited", "shop-web-1": "running", "shop-web-2": "running",
    }  # fmt: skip
    assert rows["shop-db-1"]["Health"] == "healthy"
    inside = (
        "cat /run/secrets/token /etc/app.conf /hooked; wget -qO- http://web/ >/dev/null && wget -qO- http://shop-web-1/"
    )
    told = compose("exec", "-T", "web", "sh", "-c", inside)
    assert told == "t0kenport=80hooked\n" + rows["shop-web-1"]["ID"][:12] + "\n"
    assert compose("exec", "-T", "--index", "2", "web", "hostname").strip() == rows["shop-web-2"]["ID"][:12]
    compose("exec", "-T", "db", "sh", "-c", "exit 5", status=5)
    assert compose("logs", "--no-log-prefix", "init").strip() == "init done"
    assert compose("run", "--rm", "-T", "--no-deps", "db", "cat", stdin="through\n") == "through\n"
    compose("run", "--rm", "-T", "web", "sh", "-c", "exit 6", status=6)
    before = compose("ps", "-q")
    compose("up", "-d", "--wait", "web")
    assert compose("ps", "-q") == before
    compose("stop", "-t", "0", "web")
    compose("run", "--rm", "-T", "web", "true")
    compose("down", "-v")
    assert engine.docker("ps", "-aq").stdout == ""
    assert "shop" not in engine.docker("network", "ls").stdout + engine.docker("volume", "ls").stdout


def test_attached_output_and_the_exit_code_of_one(compose: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "shop" / "compose.yaml").write_text("""
services:
  one: {image: "alpine:latest", command: sh -c 'echo from one; exit 7'}
  two: {image: "alpine:latest", command: sh -c 'echo from two; exec sleep 1000', stop_signal: SIGKILL}
""")
    told = compose("up", "--exit-code-from", "one", "--no-color", status=7)
    assert "one-1  | from one" in told
    assert "one-1 exited with code 7" in told
    assert compose("ps", "-q") == ""


def test_a_dependency_that_fails_says_why(compose: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "shop" / "compose.yaml").write_text("""
services:
  web: {image: "alpine:latest", depends_on: {db: {condition: service_healthy}}}
  db:
    image: alpine:latest
    command: sleep 1000
    stop_signal: SIGKILL
    healthcheck: {test: "echo no luck; exit 1", interval: 100ms, retries: 1}
""")
    compose("up", "-d", status=1)
    assert compose("ps", "-a", "--services", "--status", "created").split() == ["web"]


def test_networks_made_at_once_have_pools_of_their_own(engine: PrivateEngine) -> None:
    """As `up` makes them; two of one subnet would reach one another's containers by turns."""

    def make(number: int) -> str:
        with Client(engine.host) as client:
            made: str = client.request("POST", "/networks/create", body={"Name": f"n{number}"})["Id"]
            return made

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    told = engine.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", *made).stdout.split()
    engine.docker("network", "rm", *made)
    assert len(set(told)) == 8, told


def test_pre_start_hooks_gate_the_start(compose: Callable[..., str], engine: PrivateEngine, tmp_path: Path) -> None:
    text = """
services:
  web:
    image: alpine:latest
    command: sh -c 'cat /data/made; exec sleep 1000'
    stop_signal: SIGKILL
    environment: {WORD: service}
    volumes: [data:/data]
    pre_start:
      - {command: [sh, -c, "echo first > /data/made"]}
      - {command: [sh, -c, "echo $$WORD $$MORE >> /data/made; exit %d"], environment: {MORE: hook}, image: "busybox:latest"}
volumes: {data: }
"""
    file = tmp_path / "shop" / "compose.yaml"
    file.write_text(text % 3)
    compose("up", "-d", status=1)
    assert compose("ps", "-a", "--services", "--status", "created").split() == ["web"]
    kept = engine.docker("ps", "-aq", "--filter", "label=com.docker.compose.hook=pre_start").stdout.split()
    assert len(kept) == 1, "the hook that failed is kept to be looked into"
    file.write_text(text % 0)
    compose("up", "-d")
    assert compose("logs", "--no-log-prefix", "web").split() == ["first", "service", "hook"]
    assert len(engine.docker("ps", "-aq").stdout.split()) == 1, "hooks that ended well leave nothing"


def test_old_files_with_links(compose: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "shop" / "compose.yaml").write_text("""
web:
  image: alpine:latest
  command: sleep 1000
  stop_signal: SIGKILL
  links: ["db:data"]
db:
  image: alpine:latest
  command: sleep 1000
  stop_signal: SIGKILL
  expose: ["5432"]
""")
    compose("up", "-d")
    variables = compose("exec", "-T", "web", "cat", "/proc/1/environ").split("\0")
    assert "DATA_PORT_5432_TCP_PORT=5432" in variables
    assert "shop_db_1" in compose("exec", "-T", "web", "cat", "/etc/hosts")


def test_a_dockunit_matrix(engine: PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("hidden")
    (tmp_path / "Dockunit.json").write_text(json.dumps({"containers": [
        {"prettyName": "one", "image": "alpine:latest", "beforeScripts": ["echo made > made"], "testCommand": "cat made .hidden"},
        {"prettyName": "two", "image": "busybox:latest", "testCommand": "rm -rf /app/test/* .hidden; exit 3; :"},
    ]}))  # fmt: skip

    def unit(*words: str, status: int) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "dockyard.cli", "unit", *words], cwd=tmp_path, text=True, capture_output=True,
            env={**os.environ, "DOCKER_HOST": engine.host}, timeout=LIMIT,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout, done.stderr

    out, err = unit(status=1)
    assert out == "Testing on container one\nTesting on container two\n1 out of 2 container(s) passed\n"
    assert err == "Failed to run test command\n"
    assert (tmp_path / ".hidden").read_text() == "hidden"
    out, err = unit("--du-container", "1", "--du-verbose", "--du-junit", "report.xml", status=0)
    assert out.endswith("1 container(s) passed\n")
    assert err == "made\nhidden"[:5] + "hidden\n" or "hidden" in err
    assert 'tests="1" failures="0"' in (tmp_path / "report.xml").read_text()
    assert len(engine.docker("images", "-q", "dockunit-prepared").stdout.split()) == 1
    assert engine.docker("ps", "-aq").stdout == ""


def test_a_rolling_update_and_its_rollback(compose: Callable[..., str], tmp_path: Path) -> None:
    text = """
services:
  web:
    image: alpine:latest
    command: sh -c '[ %s = bad ] || touch /ready; exec sleep 1000'
    stop_signal: SIGKILL
    healthcheck: {test: test -f /ready, interval: 100ms, retries: 2}
    deploy: {replicas: 2}
"""
    file = tmp_path / "shop" / "compose.yaml"
    file.write_text(text % "one")
    compose("up", "-d", "--wait")
    first = compose("ps", "-q").split()
    file.write_text(text % "two")
    assert compose("outdated", "-q").split() == ["shop-web-1", "shop-web-2"]
    compose("update")
    second = compose("ps", "-q").split()
    assert len(second) == 2
    assert not set(first) & set(second)
    assert compose("outdated", "-q") == ""
    file.write_text(text % "bad")
    compose("update", status=1)
    assert compose("ps", "-a", "-q").split() == second, "all is as it was"
    assert compose("ps", "--services", "--status", "running").split() == ["web"]



def test_a_balancer_in_the_background(compose: Callable[..., str], engine: PrivateEngine, tmp_path: Path) -> None:
    directory = tmp_path / "shop"
    (directory / "compose.yaml").write_text("""
services:
  web:
    image: alpine:latest
    command: sh -c 'mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www'
    stop_signal: SIGKILL
    scale: 2
    x-dockyard: {balance: {listen: 8081, port: 80}}
""")
    fetch = engine.inside("curl", "-fsS", "--max-time", "5", "http://127.0.0.1:8081/")

    def fetched() -> str:
        return subprocess.run(fetch, capture_output=True, text=True).stdout.strip()

    def compose_inside(*words: str) -> str:
        command = engine.inside(sys.executable, "-m", "dockyard.cli", "compose", *words, cwd=directory)
        environment = {**os.environ, "DOCKER_HOST": engine.host}
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT).stdout

    compose("up", "-d")
    assert compose_inside("balance", "-d") == "*:8081 -> web\n"
    compose("balance", "-d", status=1)
    assert len({fetched() for _ in range(4)} - {""}) == 2, "both have requests as soon as the command is back"
    for scale in (1, 3):
        compose("up", "-d", "--scale", f"web={scale}")
        deadline = time.monotonic() + LIMIT
        while len({fetched() for _ in range(6)} - {""}) != scale:
            assert time.monotonic() < deadline
    compose("balance", "--stop")
    assert fetched() == ""
    compose("balance", "--stop", status=1)
    compose_inside("balance", "-d")
    assert fetched()
    compose("down")
    assert fetched() == "", "it goes with its project"


def test_a_balancer_over_instances_that_come_go_and_die(
    compose: Callable[..., str], engine: PrivateEngine, tmp_path: Path
) -> None:
    directory = tmp_path / "shop"
    (directory / "compose.yaml").write_text("""
services:
  web:
    image: alpine:latest
    command: sh -c 'mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www'
    stop_signal: SIGKILL
    scale: 3
    x-dockyard: {balance: {listen: 8080, port: 80}}
""")
    compose("up", "-d")
    environment = {**os.environ, "DOCKER_HOST": engine.host}
    command = engine.inside(sys.executable, "-m", "dockyard.cli", "compose", "balance", cwd=directory)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as balancer:
        assert balancer.stderr is not None
        seen = [balancer.stderr.readline() for _ in range(4)]
        assert sorted(seen[1:]) == ["web-1 in\n", "web-2 in\n", "web-3 in\n"]
        with subprocess.Popen(
            engine.inside(sys.executable, "-c", LOAD, "0"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as load:
            try:
                engine.docker("kill", "shop-web-2")
                assert balancer.stderr.readline() == "web-2 gone\n"
                compose("up", "-d", "--scale", "web=4")
                assert sorted(balancer.stderr.readline() for _ in range(2)) == ["web-2 in\n", "web-4 in\n"]
                compose("up", "-d", "--scale", "web=1")
                assert sorted(balancer.stderr.readline() for _ in range(3)) == [
                    "web-2 gone\n",
                    "web-3 gone\n",
                    "web-4 gone\n",
                ]
            finally:
                told, _ = load.communicate("stop\n", timeout=LIMIT)
                balancer.terminate()
        assert list(ast.literal_eval(told)) == [200], told
    assert balancer.returncode in (0, 130)
