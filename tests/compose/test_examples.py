"""The example applications: as Compose files, old and new, built, brought up, asked over HTTP, hurt, and well again; and their
images through every door of the builder.

Every failure is made by ``dockyard chaos``, whose report says when it was seen and when all was well again. The builds
install Debian packages, for which the private engine has a port that leads to the mirror.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dockyard.testing import buildkit
from dockyard.testing.balanced import free_port
from dockyard.testing.engines import PrivateEngine, private_engine
from dockyard.testing.uplink import uplink

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]
EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT = 500
PORT = "8080"
URL = f"http://127.0.0.1:{PORT}"
ANSWER_LIMIT = 60.0
FILES = ("compose.yaml", "old.yml")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    with private_engine("dockyard", tmp_path_factory.mktemp("engine") / "e") as made:
        environ = os.environ | {"DOCKER_HOST": made.host}
        base = [sys.executable, "-m", "dockyard.cli", "image", "bootstrap", "debian:bookworm-slim"]
        subprocess.run(base, env=environ, check=True, capture_output=True, timeout=LIMIT)
        yield made


@pytest.fixture(scope="module")
def config(engine: PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A client's directory whose proxy settings lead to the mirror."""
    folder = tmp_path_factory.mktemp("config")
    network = json.loads(engine.docker("network", "inspect", "bridge").stdout)[0]
    with uplink(engine, "deb.debian.org") as port:
        proxy = f"http://{network['IPAM']['Config'][0]['Gateway']}:{port}"
        (folder / "config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": proxy}}}))
        yield folder


class Application:
    """One example from one of its files; run in a copy of its folder."""

    def __init__(self, engine: PrivateEngine, folder: Path, file: str, config: Path) -> None:
        self._engine, self._folder, self._file = engine, folder, file
        self._environ = os.environ | {"DOCKER_HOST": engine.host, "DOCKER_CONFIG": str(config), "PORT": PORT}
        self.old = file == "old.yml"

    def dockyard(self, *words: str, status: int = 0) -> str:
        command = self._engine.inside(sys.executable, "-m", "dockyard.cli", *words, cwd=self._folder)
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def compose(self, *words: str) -> str:
        return self.dockyard("compose", "-f", self._file, *words)

    def up(self) -> None:
        self.compose("build", "-q")
        self.compose("up", "-d", *([] if self.old else ["--wait"]))

    def get(self, path: str, *words: str) -> str:
        """The page, as curl sees it; "" when there is none."""
        command = self._engine.inside("curl", "-s", "-f", "-m", "5", *words, URL + path)
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT).stdout

    def expect(self, text: str, path: str, *words: str) -> str:
        end = time.monotonic() + ANSWER_LIMIT
        while text not in (page := self.get(path, *words)):
            assert time.monotonic() < end, f"{text!r} is not in {page!r}"
            time.sleep(0.2)  # an application starts or heals; bounded by ANSWER_LIMIT
        return page

    def hurt(self, verb: str, service: str, path: str = "/", seconds: int = 3) -> dict[str, Any]:
        """The report of an experiment on the service's first container; it passed: the end is as steady as the start."""
        name = self.compose("ps", "--format", "{{.Name}}", service).split()[0]
        words = ("chaos", verb, "--json", "--duration", f"{seconds}s", "--check", URL + path, name)
        report: dict[str, Any] = json.loads(self.dockyard(*words))
        assert report["passed"], report
        return report


@pytest.fixture
def application(engine: PrivateEngine, config: Path, tmp_path: Path) -> Iterator[Callable[[str, str], Application]]:
    made: list[Application] = []

    def make(example: str, file: str) -> Application:
        folder = tmp_path / example
        shutil.copytree(EXAMPLES / example, folder)
        made.append(Application(engine, folder, file, config))
        made[0].up()
        return made[0]

    yield make
    for one in made:
        one.compose("down", "-v", "-t", "1")
        assert engine.docker("ps", "-aq").stdout == ""


def _seen_and_healed(report: dict[str, Any], seconds: int = 3) -> None:
    assert report["failed"] > 0, "the failure was seen"
    assert report["detected"] < seconds
    assert report["recovered"] < seconds + ANSWER_LIMIT


@pytest.mark.parametrize("file", FILES)
def test_node_and_redis(application: Callable[[str, str], Application], file: str) -> None:
    shop = application("node-redis", file)
    shop.expect('"visits":', "/")
    servers = {json.loads(shop.expect('"visits":', "/"))["server"] for _ in range(30)}
    assert len(servers) == 3
    report = shop.hurt("kill", "app1" if shop.old else "app")
    assert report["failed"] == 0, "two others are left, and NGINX asks the next one"
    before = json.loads(shop.expect('"visits":', "/"))["visits"]
    _seen_and_healed(shop.hurt("kill", "store"))
    after = json.loads(shop.expect('"visits":', "/"))["visits"]
    assert (after > before) == (not shop.old), "the volume keeps the count; the old file keeps it in memory"


@pytest.mark.parametrize("file", FILES)
def test_three_tiers(application: Callable[[str, str], Application], file: str) -> None:
    notes = application("rails", file)
    notes.expect("[", "/notes")
    notes.expect('"text":"hello"', "/notes", "-d", "text=hello")
    _seen_and_healed(notes.hurt("kill", "db", "/notes"))
    notes.expect('"text":"hello"', "/notes")
    _seen_and_healed(notes.hurt("kill", "app", "/notes"))
    notes.expect('"text":"hello"', "/notes")
    _seen_and_healed(notes.hurt("cut", "app", "/notes"))
    notes.expect('"text":"hello"', "/notes")


@pytest.mark.parametrize("file", FILES)
def test_lemp(application: Callable[[str, str], Application], file: str) -> None:
    guests = application("lemp", file)
    guests.expect("Guest book", "/")
    guests.expect("- Ada", "/", "-d", "name=Ada")
    _seen_and_healed(guests.hurt("kill", "db"))
    guests.expect("- Ada", "/")
    _seen_and_healed(guests.hurt("pause", "web"))
    guests.expect("- Ada", "/")


async def _through(door: str, engine: PrivateEngine, config: Path, context: Path) -> list[str]:
    """The layers of the image that this door builds of ``context``."""
    tag, proxy = "built", json.loads((config / "config.json").read_text())["proxies"]["default"]["httpProxy"]
    if door == "BuildKit":
        async with buildkit.connected(str(engine.socket), context) as client:
            await client.build({"build-arg:http_proxy": proxy}, [("moby", {"name": tag})])
    else:
        words = {"POST /build": ["docker"], "dockyard build": [sys.executable, "-m", "dockyard.cli"]}[door]
        environ = os.environ | {"DOCKER_HOST": engine.host, "DOCKER_CONFIG": str(config), "DOCKER_BUILDKIT": "0"}
        command = engine.inside(*words, "build", "-q", "-t", tag, str(context))
        done = await asyncio.to_thread(
            subprocess.run, command, env=environ, capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    layers: list[str] = json.loads(engine.docker("image", "inspect", tag).stdout)[0]["RootFS"]["Layers"]
    return layers


@pytest.mark.parametrize("example", ["cowsay", "node-redis", "rails", "lemp"])
async def test_every_door_finds_what_another_has_built(engine: PrivateEngine, config: Path, example: str) -> None:
    """One solver stands behind POST /build, BuildKit's protocol and ``dockyard build``: a step that ran again would make files
    with other times, and so another layer."""
    contexts = sorted(path.parent for path in (EXAMPLES / example).rglob("Dockerfile"))
    for number, context in enumerate(contexts):
        doors = ["POST /build", "BuildKit", "dockyard build"]
        first, *others = doors[number % 3 :] + doors[: number % 3]
        layers = await _through(first, engine, config, context)
        for door in others:
            assert await _through(door, engine, config, context) == layers, f"{door} after {first}: {context.name}"


def test_cowsay_is_built_tagged_pushed_and_pulled_back(engine: PrivateEngine, config: Path, tmp_path: Path) -> None:
    asyncio.run(_through("POST /build", engine, config, EXAMPLES / "cowsay"))
    place = f"127.0.0.1:{free_port()}"
    name = f"{place}/ada/cowsay:1"
    environ = os.environ | {"DOCKER_HOST": engine.host, "DOCKER_CONFIG": str(tmp_path)}

    def run(*words: str, told: str | None = None) -> str:
        done = subprocess.run(words, env=environ, input=told, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    registry = [sys.executable, "-m", "dockyard.cli", "registry", "--data", str(tmp_path / "registry")]
    run(*registry, "user", "add", "ada", "--password-stdin", told="a long password")
    serving = subprocess.Popen(engine.inside(*registry, "serve", "--listen", place), stderr=subprocess.DEVNULL)
    try:
        patient = ("--retry", "50", "--retry-connrefused", "--retry-delay", "1")
        run(*engine.inside("curl", "-s", *patient, f"http://{place}/health"))
        run("docker", "login", "-u", "ada", "--password-stdin", place, told="a long password")
        run("docker", "tag", "built", name)
        assert "digest: sha256:" in run("docker", "push", name)
        run("docker", "rmi", name, "built")
        assert "< moo >" in run("docker", "run", "--rm", name, "moo")
        assert "||----w |" in run("docker", "run", "--rm", name), "a fortune"
    finally:
        serving.terminate()
        serving.wait()
