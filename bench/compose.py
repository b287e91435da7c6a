"""A project of ten services beside docker-compose on dockerd. ``python -m bench.compose [--rounds N] [--write]``.

Each side is the whole of what a user has: dockyard compose on the Dockyard engine, docker-compose on dockerd. The peer
is what DOCKER_COMPOSE names (a Compose v2 or v5 binary), else docker-compose of the PATH (Debian: 1.29.2). Root; each
engine has its own data root, socket and namespaces.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench import peers
from bench.peers import OURS, Report, say
from dockyard.testing import kit
from dockyard.testing.engines import PrivateEngine

KINDS = (OURS, "dockerd")
SERVICES = 10
PAGE = Path(__file__).parents[1] / "docs" / "compose-numbers.md"
LIMIT = 300.0
IDLE = "up again, nothing to do"


def project(directory: Path) -> Path:
    """Ten services in three layers, two networks and a volume, as people write them."""
    lines = ["services:"]
    for number in range(SERVICES):
        needs = f", depends_on: [s{number // 3 - 1}]" if number >= 3 else ""
        network = "front" if number % 2 else "back"
        lines.append(
            f"  s{number}: {{image: 'busybox:latest', command: sleep 1000, stop_signal: SIGKILL, networks: [{network}], "
            f"environment: {{N: '{number}'}}, volumes: ['data:/data']{needs}}}"
        )
    lines += ["networks: {front: {}, back: {}}", "volumes: {data: {}}", ""]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "compose.yaml").write_text("version: '3.8'\n" + "\n".join(lines))
    return directory


class Side:
    def __init__(self, engine: PrivateEngine, command: list[str], directory: Path) -> None:
        self.engine, self.command, self.directory = engine, command, directory
        self.environ = os.environ | {"DOCKER_HOST": engine.host, "COMPOSE_HTTP_TIMEOUT": "300"}
        # Byte code is kept, as it is where a user has installed us; the first command of all fills the folder.
        self.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        self.environ["PYTHONPYCACHEPREFIX"] = str(peers.SCRATCH / "pycache")

    def run(self, *words: str) -> tuple[float, float]:
        """Seconds that one command took, and seconds of processor that it used itself (the load of the machine does not
        count there). Raises RuntimeError with what it said."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        done = subprocess.run(
            [*self.command, *words], cwd=self.directory, env=self.environ, capture_output=True, text=True, timeout=LIMIT
        )
        took = time.perf_counter() - begin
        if done.returncode != 0:
            raise RuntimeError(f"{self.engine.kind}: {' '.join(words)}: {(done.stderr or done.stdout)[-600:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(sides: dict[str, Side], count: int, report: Report) -> None:
    taken: dict[str, dict[str, list[float]]] = {}
    used: dict[str, list[float]] = {name: [] for name in KINDS}

    def one(what: str, kind: str, *words: str) -> None:
        seconds, processor = sides[kind].run(*words)
        taken.setdefault(what, {name: [] for name in KINDS})[kind].append(seconds)
        if what == IDLE:
            used[kind].append(processor)

    def turn(kind: str) -> float:
        one("up, ten services, from nothing", kind, "up", "-d")
        one(IDLE, kind, "up", "-d")
        one("ps", kind, "ps")
        one("up --force-recreate", kind, "up", "-d", "--force-recreate")
        one("scale one service from 1 to 10", kind, "up", "-d", "--scale", "s0=10")
        one("down -v", kind, "down", "-v")
        return 0.0

    peers.rounds(count, KINDS, turn)
    goals = {"up, ten services, from nothing": ">= 2 x", IDLE: "<= 300 ms"}
    for what, values in taken.items():
        report.times(what, values, goal=goals.get(what, ""))
    report.times(f"{IDLE}: processor time of the command", used)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--write", action="store_true", help="write docs/compose-numbers.md")
    options = arguments.parse_args()
    peer = os.environ.get("DOCKER_COMPOSE") or shutil.which("docker-compose")
    if not peer:
        say("no peer: name a docker-compose with DOCKER_COMPOSE, or apt-get install docker-compose")
        return 1
    peers.install("dockerd")
    archive = kit.archive(peers.SCRATCH / "kit.tar")
    with peers.engines(KINDS) as engines:
        sides = {}
        for kind, engine in engines.items():
            peers.docker(engine, "load", "-i", str(archive))
            ours = [sys.executable, "-m", "dockyard.cli", "compose"]
            directory = project(peers.SCRATCH / f"compose-{os.getpid()}" / "ten")
            sides[kind] = Side(engine, ours if kind == OURS else [peer], directory)
        report = Report("Compose: ten services", KINDS)
        version = subprocess.run([peer, "version", "--short"], capture_output=True, text=True).stdout.strip()
        try:
            for side in sides.values():
                side.run("ps")
            measure(sides, options.rounds, report)
        finally:
            shutil.rmtree(peers.SCRATCH / f"compose-{os.getpid()}", ignore_errors=True)
        report.note("On a loaded machine a command waits for a processor; what it needs itself is its processor time.")
        report.note(f"The peer is docker-compose {version} on dockerd; ours is dockyard compose on the Dockyard engine.")
    print(report.text())
    if options.write:
        report.write(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
