"""How long the doctor takes on a host with many containers: quick, deep, and a trace; median and 95th of rounds."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from bench.faults.lab import Lab

ROUNDS = 20
TARGETS = {"quick": 3.0, "deep": 10.0, "trace": 1.0}  # seconds, 95 of 100


def measure(lab: Lab, count: int) -> dict[str, object]:
    """Seconds of whole commands, start of the interpreter included, as a person waits for them; and the load meanwhile."""
    try:
        lab.network("speed")
        for index in range(count):
            lab.serve(f"speed{index}", 80, NetworkMode="speed")
        verbs = {"quick": ["doctor"], "deep": ["doctor", "--deep"], "trace": ["trace", "speed0", "speed1:80"]}
        times = {name: _rounds(lambda words=words: _command(lab, *words)) for name, words in verbs.items()}
    finally:
        lab.reset()
    return {"containers": count, "load": round(os.getloadavg()[0], 1), **times}


def _rounds(work: Callable[[], bool]) -> list[float]:
    """Median, 95th of 100, and how many rounds could not check everything in their time."""
    spent, partial = [], 0
    for _ in range(ROUNDS):
        start = time.monotonic()
        partial += not work()
        spent.append(time.monotonic() - start)
    return [round(statistics.median(spent), 2), round(sorted(spent)[int(ROUNDS * 0.95)], 2), partial]


def _command(lab: Lab, *words: str) -> bool:
    """Did it check everything? Raises RuntimeError when it names a fault: the host is healthy."""
    command = [sys.executable, "-m", "dockyard.cli", "-H", f"unix://{lab.socket}", *words, "--json"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if done.returncode not in (0, 1, 3):
        raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {(done.stdout + done.stderr).decode()[-300:]}")
    return done.returncode != 3
