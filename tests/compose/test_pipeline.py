"""Stubs and a whole pipeline on a private real engine: from compile to deploy, and what a stage that fails leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockyard.dockunit.pipeline import EXAMPLE
from dockyard.testing.engines import PrivateEngine, private_engine
from dockyard.testing.kit import archive

pytestmark = pytest.mark.root
LIMIT = 100
COMPOSE = """
services:
  db:
    image: alpine:latest
    command: sh -c 'mkdir /www; echo real > /www/kind; exec httpd -f -p 80 -h /www'
    stop_signal: SIGKILL
    healthcheck: {test: wget -qO- http://127.0.0.1/kind, interval: 200ms, retries: 50}
  other: {image: "alpine:latest", command: sleep 1000, stop_signal: SIGKILL}
"""
PIPELINE = """
image: busybox:latest
stages:
  compile:
    run: [mkdir -p out/deep, 'echo built > out/deep/thing', 'echo lost > src']
    keep: [out]
  unit:
    dockunit: Dockunit.json
    stubs:
      rates: {answers: [{path: /eur, json: {usd: 1.1}, calls: 2}, {path: /slow*, delay: 0.2, body: late, status: 202}]}
      mail: {port: 25, reply: "220 ready\\r\\n"}
  integration:
    compose: compose.yaml
    services: [db]
    env: {WHAT: kind}
    run: ['[ "$(wget -qO- http://db/$WHAT)" = real ]', 'cat out/deep/thing']
  deploy: {deploy: compose.yaml, project: live}
"""
UNIT = {
    "containers": [
        {"prettyName": "one", "image": "busybox:latest",
         "testCommand": "[ \"$(wget -qO- http://rates/eur)\" = '{\"usd\": 1.1}' ] && cat out/deep/thing && wget -qO- http://rates/slow/1"},
        {"prettyName": "two", "image": "alpine:latest", "beforeScripts": ["echo ready > /prepared"],
         "testCommand": "wget -qO- http://rates/eur && nc mail 25 < /dev/null | grep ready && ! wget -qO- http://rates/none"},
    ]
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    kit = archive(tmp_path_factory.mktemp("kit") / "kit.tar")
    with private_engine("dockyard", tmp_path_factory.mktemp("engine") / "e") as one:
        loaded = one.docker("load", "-i", str(kit))
        assert loaded.returncode == 0, loaded.stderr
        yield one


@pytest.fixture
def run(engine: PrivateEngine, tmp_path: Path) -> Iterator[Callable[..., tuple[str, str]]]:
    (tmp_path / "src").write_text("mine")
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    (tmp_path / "Dockunit.json").write_text(json.dumps(UNIT))
    environ = {**os.environ, "DOCKER_HOST": engine.host}

    def call(*words: str, status: int = 0) -> tuple[str, str]:
        done = subprocess.run([sys.executable, "-m", "dockyard.cli", *words], cwd=tmp_path, env=environ, text=True,
                              capture_output=True, timeout=LIMIT)  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout, done.stderr

    yield call
    call("compose", "-p", "live", "down", "-v", "-t", "0")
    assert engine.docker("ps", "-aq").stdout == "", "no container is left"
    assert engine.docker("network", "ls", "-q", "--filter", "type=custom").stdout == "", "no network is left"
    assert (tmp_path / "src").read_text() == "mine", "the user's files are as they were"
    assert not (tmp_path / "out").exists()


def test_from_compile_to_deploy(run: Callable[..., tuple[str, str]], engine: PrivateEngine, tmp_path: Path) -> None:
    out, _ = run("pipeline", "--junit", "report.xml")
    assert out.endswith("4 of 4 stages passed\n")
    names = engine.docker("ps", "--format", "{{.Names}}").stdout.split()
    assert sorted(names) == ["live-db-1", "live-other-1"]
    suites = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures")) for suite in suites] == [
        ("compile", "1", "0"), ("unit", "2", "0"), ("integration", "1", "0"), ("deploy", "1", "0"),
    ]  # fmt: skip
    (tmp_path / "compose.yaml").write_text(COMPOSE.replace("sleep 1000", "sleep 2000"))
    out, _ = run("pipeline", "--only", "deploy")
    assert "1 containers replaced" in out


def test_a_stage_that_fails_ends_it(run: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    text = (tmp_path / "pipeline.yaml").read_text()
    (tmp_path / "pipeline.yaml").write_text(text.replace("= real ]", "= false ]"))
    out, err = run("pipeline", "--skip", "unit", status=1)
    assert "✗ integration" in out
    assert "deploy  skipped" in out
    assert '$ [ "$(wget' in err, "the command that failed is told"
    told = json.loads(run("pipeline", "--json", "--skip", "unit", status=1)[0])
    assert [(stage["name"], stage["passed"], stage["skipped"]) for stage in told["stages"]] == [
        ("compile", True, ""), ("integration", False, ""), ("deploy", False, "integration failed"),
    ]  # fmt: skip


def test_stubs_beside_the_containers_of_a_dockunit_file(run: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    stubs = {"rates": {"answers": [{"path": "/eur", "body": "x", "calls": 3}]}}
    one = {"prettyName": "one", "image": "busybox:latest", "testCommand": "wget -qO- http://rates/eur"}
    (tmp_path / "Dockunit.json").write_text(json.dumps({"containers": [one], "stubs": stubs}))
    out, err = run("unit", status=1)
    assert out.endswith("1 container(s) passed\n")
    assert "stub rates: GET /eur was called 1 times, not 3" in err
    told = json.loads(run("unit", "--du-json", status=1)[0])
    assert (told["containers"][0]["passed"], len(told["unmet"])) == (True, 1)


def test_bash_where_it_is_and_an_image_without_any_shell(run: Callable[..., tuple[str, str]], engine: PrivateEngine, tmp_path: Path) -> None:
    made = "printf '#!/bin/sh\\necho bash was asked; exec sh \"$@\"' > /bin/bash; chmod +x /bin/bash"
    one = {"prettyName": "one", "image": "busybox:latest", "beforeScripts": [made], "testCommand": "echo tested"}
    (tmp_path / "Dockunit.json").write_text(json.dumps({"containers": [one]}))
    _, err = run("unit", "--du-verbose")
    assert err == "bash was asked\ntested\n"
    (tmp_path / "Dockunit.json").write_text(json.dumps({"containers": [one | {"image": "hello-world:latest"}]}))
    _, err = run("unit", status=1)
    assert "image hello-world:latest has no /bin/sh" in err
    engine.docker("image", "prune", "-f")


def test_what_cannot_be_had_fails_its_stage(run: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("""
image: busybox:latest
stages:
  one: {run: sleep 100, limit: 1}
""")
    _, err = run("pipeline", status=1)
    assert "the limit of 1 s ended with 124" in err or "ended with 137" in err
    (tmp_path / "pipeline.yaml").write_text("""
image: busybox:latest
stages:
  one: {run: "true", keep: [nothing]}
""")
    _, err = run("pipeline", status=1)
    assert "left no nothing to keep" in err
    (tmp_path / "pipeline.yaml").write_text("""
image: busybox:latest
stages:
  one: {compose: compose.yaml, run: "true", stubs: {x: {image: "alpine:latest", command: ["false"]}}}
""")
    _, err = run("pipeline", status=1)
    assert "stub x: its container ended with 1" in err


def test_the_example(engine: PrivateEngine, tmp_path: Path) -> None:
    place = tmp_path / "example"
    shutil.copytree(Path(__file__).parents[2] / "examples" / "pipeline", place)
    assert (place / "pipeline.yaml").read_text() == EXAMPLE
    inside = engine.inside(sys.executable, "-m", "dockyard.cli", "pipeline", cwd=place)
    environ = {**os.environ, "DOCKER_HOST": engine.host}
    done = subprocess.run(inside, env=environ, text=True, capture_output=True, timeout=LIMIT)
    down = [sys.executable, "-m", "dockyard.cli", "compose", "-p", "shop", "down", "-v"]
    subprocess.run(down, cwd=place, env=environ, capture_output=True, timeout=LIMIT, check=True)
    assert done.stdout.endswith("5 of 5 stages passed\n"), done.stdout + done.stderr


def test_a_load_with_bounds(run: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    import http.server
    import threading

    class Quiet(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for bound, status in (("p95: 5", 0), ("p95: 0", 1), ("rate: 1000000", 1)):
            load = f"{{url: 'http://127.0.0.1:{server.server_port}/', seconds: 0.5, clients: 2, {bound}}}"
            (tmp_path / "pipeline.yaml").write_text(f"stages: {{performance: {{load: {load}}}}}")
            out, _ = run("pipeline", status=status)
            assert "0 failed" in out
        server.shutdown()
