"""Tests in four containers, and instances into the balancer. ``python -m bench.operation [--rounds N] [--write]``.

By hand is `docker run` four times, one after another, on dockerd. The balancer's time is from the engine's start event of an
instance to the balancer's word that it is in, while clients ask. Root; each engine has its own data root, socket and namespaces.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import peers
from bench.peers import OURS, Report, say
from dockyard.client import Client
from dockyard.testing import kit
from dockyard.testing.balanced import LOAD
from dockyard.testing.engines import PrivateEngine

OURS_ON_DOCKERD, BY_HAND = "dockyard unit, dockerd", "by hand, dockerd"
KINDS = (OURS, OURS_ON_DOCKERD, BY_HAND)
PAGE = Path(__file__).parents[1] / "docs" / "operation-numbers.md"
LIMIT = 300.0
CONTAINERS, MOST = 4, 10
IMAGE = "busybox:latest"
COUNT = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
WORKS = {"that wait (a download of 1 s, tests of 2 s)": ("sleep 1", "sleep 2"), "that compute": (COUNT, COUNT)}
COMPOSE = """
services:
  web:
    image: busybox:latest
    command: sh -c 'mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www'
    stop_signal: SIGKILL
    x-dockyard: {balance: {listen: "127.0.0.1:8080", port: 80}}
"""


def environ(engine: PrivateEngine) -> dict[str, str]:
    found = os.environ | {"DOCKER_HOST": engine.host, "PYTHONPYCACHEPREFIX": str(peers.SCRATCH / "pycache")}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


# ---- a matrix of four


def unit(engine: PrivateEngine, directory: Path, *words: str) -> float:
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "dockyard.cli", "unit", *words], cwd=directory, env=environ(engine),
                          capture_output=True, text=True, timeout=LIMIT)  # fmt: skip
    took = time.perf_counter() - begin
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return took


def by_hand(engine: PrivateEngine, directory: Path, before: str, test: str) -> float:
    return sum(
        peers.docker(engine, "run", "--rm", "-v", f"{directory}:/app/test", "-w", "/app/test", IMAGE, "sh", "-c", f"{before} && {test}")
        for _ in range(CONTAINERS)
    )


def matrix(engines: dict[str, PrivateEngine], directory: Path, count: int, report: Report) -> None:
    for what, (before, test) in WORKS.items():
        rows = [{"prettyName": f"c{number}", "image": IMAGE, "beforeScripts": [before], "testCommand": test}
                for number in range(CONTAINERS)]  # fmt: skip
        (directory / "Dockunit.json").write_text(json.dumps({"containers": rows}))
        on = {OURS: engines[OURS], OURS_ON_DOCKERD: engines["dockerd"]}
        first: dict[str, list[float]] = {kind: [] for kind in KINDS}
        again: dict[str, list[float]] = {kind: [] for kind in KINDS}

        def turn(kind: str, before: str = before, test: str = test, first: dict[str, list[float]] = first,
                 again: dict[str, list[float]] = again, on: dict[str, PrivateEngine] = on) -> float:  # fmt: skip
            if kind == BY_HAND:
                took = by_hand(engines["dockerd"], directory, before, test)
                first[kind].append(took)
                again[kind].append(took)
            else:
                first[kind].append(unit(on[kind], directory, "--du-no-cache"))
                unit(on[kind], directory)
                again[kind].append(unit(on[kind], directory))
            return 0.0

        peers.rounds(count, KINDS, turn)
        goal = ">= 3 x" if "wait" in what else ""
        report.times(f"four containers {what}, nothing prepared", first, goal=goal)
        report.times(f"four containers {what}, prepared", again, goal=goal)


# ---- instances into the balancer


class Starts:
    """When the engine started each container, by its own clock."""

    def __init__(self, engine: PrivateEngine) -> None:
        self.at: dict[str, float] = {}
        self._client = Client(engine.host)
        self._answer = self._client.open("GET", "/events", {"filters": {"event": ["start"]}})
        self._answer.settimeout(None)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(Exception):
            for event in self._answer.objects():
                self.at[event["Actor"]["Attributes"]["name"]] = event["timeNano"] / 1e9

    def close(self) -> None:
        self._answer.close()


@contextlib.contextmanager
def balancing(engine: PrivateEngine, directory: Path) -> Iterator[dict[str, float]]:
    """Instance ("web-3") to the moment at which the balancer told that it is in."""
    told: dict[str, float] = {}
    command = engine.inside(sys.executable, "-m", "dockyard.cli", "compose", "balance", cwd=directory)
    with subprocess.Popen(command, env=environ(engine), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None

        def read() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                name, _, word = line.strip().partition(" ")
                if word == "in":
                    told[name] = time.time()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            until(lambda: "web-1" in told)
            yield told
        finally:
            process.terminate()
            reader.join(LIMIT)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("the balancer did not tell")
        time.sleep(0.01)


def scaling(engine: PrivateEngine, directory: Path, count: int, report: Report) -> None:
    (directory / "compose.yaml").write_text(COMPOSE)
    compose = [sys.executable, "-m", "dockyard.cli", "compose"]

    def call(*words: str) -> None:
        done = subprocess.run([*compose, *words], cwd=directory, env=environ(engine), capture_output=True, text=True, timeout=LIMIT)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)

    call("up", "-d")
    starts, delays, whole = Starts(engine), [], []
    answers: dict[object, int] = {}
    try:
        with balancing(engine, directory) as told:
            command = engine.inside(sys.executable, "-c", LOAD, "0.005")
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
                for _ in range(count):
                    told.clear()
                    begin = time.perf_counter()
                    call("up", "-d", "--scale", f"web={MOST}")
                    until(lambda: len(told) == MOST - 1)
                    whole.append(time.perf_counter() - begin)
                    delays += [told[name] - starts.at[f"{directory.name}-{name}"] for name in told]
                    call("up", "-d", "--scale", "web=1")
                out, _ = load.communicate("stop\n", timeout=LIMIT)
            answers = ast.literal_eval(out)
    finally:
        starts.close()
        call("down", "-v", "-t", "0")
    report.times("an instance, from its start to its place in the balancer", {OURS: delays}, goal="<= 50 ms")
    report.row("slowest of them", "ms", {OURS: max(delays) * 1e3})
    report.times(f"scaling from 1 to {MOST}, until the last is in the balancer", {OURS: whole})
    failed = sum(number for status, number in answers.items() if status != 200)
    report.row("requests during all that", "", {OURS: float(sum(answers.values()))})
    report.row("of these failed", "", {OURS: float(failed)}, goal="0")
    if failed:
        say(str(answers))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--write", action="store_true", help="write docs/operation-numbers.md")
    options = arguments.parse_args()
    peers.install("dockerd")
    archive = kit.archive(peers.SCRATCH / "kit.tar")
    directory = peers.SCRATCH / f"operation-{os.getpid()}" / "bench"
    directory.mkdir(parents=True)
    report = Report("Operation: tests in containers, instances in the balancer", KINDS)
    try:
        with peers.engines((OURS, "dockerd")) as engines:
            for engine in engines.values():
                peers.docker(engine, "load", "-i", str(archive))
            scaling(engines[OURS], directory, options.rounds, report)
            (directory / "compose.yaml").unlink()
            matrix(engines, directory, options.rounds, report)
    finally:
        shutil.rmtree(directory.parent, ignore_errors=True)
    report.note("By hand: docker run -v PROJECT:/app/test, four times one after another; nothing is kept between runs.")
    report.note("What computes is bound by the processors; what waits is not. A median of the delays is over all instances.")
    print(report.text())
    if options.write:
        report.write(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
