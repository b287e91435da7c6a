"""The command line from start to end, beside docker's CLI and podman's. ``python -m bench.cli [--quick] [--write]``.

dockyard and docker talk to one Dockyard engine; podman, which needs its own, to a podman service through its remote
client. CPU time is told besides, for on a shared machine it says more than the clock. Root.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import peers
from bench.peers import OURS, Report, say
from dockyard.testing import kit
from dockyard.testing.engines import PrivateEngine

PAGE = Path(__file__).parents[1] / "docs" / "cli-numbers.md"
KINDS = (OURS, "docker", "podman")
GOAL = "120 ms"
IMAGE = "busybox:latest"
LIMIT = 120.0
Clients = dict[str, list[str]]


def clients(ours: PrivateEngine, podman: PrivateEngine) -> Clients:
    script = Path(sys.executable).with_name("dockyard")
    return {
        OURS: [str(script), "-H", ours.host], "docker": ["docker", "-H", ours.host],
        "podman": ["podman", "--remote", "--url", podman.host],
    }  # fmt: skip


def call(command: list[str]) -> tuple[float, float]:
    """(seconds by the clock, seconds of CPU). Raises RuntimeError with what it said."""
    # Without variables such as PYTHONPATH of whoever runs the bench: they make each start of Python longer.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environ)
    took, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-400:]}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(report: Report, what: str, count: int, made: Clients, *words: str, goal: str = "") -> None:
    spent: dict[str, list[float]] = {kind: [] for kind in made}

    def one(kind: str) -> float:
        took, cpu = call([*made[kind], *words])
        spent[kind].append(cpu)
        return took

    report.times(what, peers.rounds(count, list(made), one), goal=goal)
    report.row(f"{what}, CPU", "ms", {kind: 1e3 * min(values) for kind, values in spent.items()})


def _each(made: Clients, work: Callable[[str], list[str]]) -> None:
    for kind, client in made.items():
        if kind != "docker":  # it shares our engine
            call([*client, *work(kind)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, few containers")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    wish = parser.parse_args()
    rounds, many = (5, 5) if wish.quick else (30, 50)
    peers.install("dockerd", "podman")
    report = Report("Command line: start to end", KINDS)
    with peers.engines(("dockyard", "podman")) as engines:
        made = clients(engines["dockyard"], engines["podman"])
        archive = kit.archive(peers.SCRATCH / "kit.tar")
        _each(made, lambda _: ["load", "-i", str(archive)])
        measured(report, "ps, idle engine", rounds, made, "ps", goal=GOAL)
        measured(report, "images", rounds, made, "images")
        say(f"making {many} containers")
        for number in range(many):
            _each(made, lambda kind, number=number: _create(f"c{number}"))  # type: ignore[misc]
        measured(report, f"ps -a, {many} containers", rounds, made, "ps", "-a")
        measured(report, "inspect", rounds, made, "inspect", "c0")
    report.note("podman has no -H; its remote client talks to its own engine, which is part of its time.")
    report.note("A process of CPython alone takes about 15 ms of CPU here; docker and podman are compiled programs.")
    if wish.write:
        report.write(PAGE)
    else:
        print(report.text())


def _create(name: str) -> list[str]:
    return ["create", "--name", name, IMAGE, "sleep", "1000"]


if __name__ == "__main__":
    main()
