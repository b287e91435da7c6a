"""A small load: clients that ask one address as fast as it answers, and whether what was measured is good enough."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from dockyard.dockunit.pipeline import Load

ANSWER_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Measured:
    """``taken``: seconds of each answer, sorted. ``failed``: no answer, or 5xx."""

    seconds: float
    taken: tuple[float, ...]
    failed: int
    first_failure: str = ""

    @property
    def requests(self) -> int:
        return len(self.taken) + self.failed

    def percentile(self, share: float) -> float:
        return self.taken[min(len(self.taken) - 1, int(share * len(self.taken)))] if self.taken else float("inf")


def measure(load: Load) -> Measured:
    """``clients`` threads, each over a connection that it keeps."""
    taken: list[float] = []
    failures: list[str] = []
    lock = threading.Lock()
    began = time.monotonic()
    end = began + load.seconds
    threads = [threading.Thread(target=_client, args=(load.url, end, taken, failures, lock), daemon=True) for _ in range(load.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(load.seconds + 2 * ANSWER_LIMIT)
    with lock:
        return Measured(time.monotonic() - began, tuple(sorted(taken)), len(failures), failures[0] if failures else "")


def _client(url: str, end: float, taken: list[float], failures: list[str], lock: threading.Lock) -> None:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    wire = http.client.HTTPConnection(parts.netloc, timeout=ANSWER_LIMIT)
    while time.monotonic() < end:
        begin = time.monotonic()
        try:
            wire.request("GET", target)
            answer = wire.getresponse()
            answer.read()
            told = f"status {answer.status}" if answer.status >= 500 else ""
        except (OSError, http.client.HTTPException) as error:
            told = str(error) or type(error).__name__
            wire.close()
            time.sleep(0.01)  # a server that refuses is not asked a hundred thousand times
        with lock:
            if told:
                failures.append(told)
            else:
                taken.append(time.monotonic() - begin)
    wire.close()


def judged(load: Load, measured: Measured) -> list[str]:
    """A sentence for each bound that was not kept. Pure."""
    found = []
    percent = 100.0 * measured.failed / measured.requests if measured.requests else 100.0
    if percent > load.errors:
        found.append(f"{percent:.2f} % of {measured.requests} requests failed, at most {load.errors:g} % may: {measured.first_failure}")
    for name, most in load.most:
        value = measured.percentile(int(name[1:]) / 100)
        if value > most:
            found.append(f"{name} is {value * 1000:.1f} ms, at most {most * 1000:g} ms may it be")
    rate = len(measured.taken) / measured.seconds
    if rate < load.rate:
        found.append(f"{rate:.1f} requests/s, at least {load.rate:g} must it be")
    return found


def told(measured: Measured) -> str:
    times = ", ".join(f"p{share} {measured.percentile(share / 100) * 1000:.1f} ms" for share in (50, 95, 99))
    return f"{measured.requests} requests, {len(measured.taken) / measured.seconds:.1f}/s, {measured.failed} failed, {times}"
