"""Failure on purpose: the checks before, during and after it, and what they say of it. `faults` has what is done."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dockyard.compose.errors import NOT_STEADY
from dockyard.compose.faults import Fault

CHECK_PAUSE, CHECK_LIMIT = 0.1, 2.0
STEADY = 5
"""So many passing checks in a row are a steady state."""
RECOVERY_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One check: seconds since the start of the experiment, and what was wrong ("" is nothing)."""

    at: float
    wrong: str


@dataclass(frozen=True, slots=True)
class Report:
    """Times in seconds after the injection; None: never. ``recovered`` is the first check of the last unbroken run."""

    checks: int
    failed: int
    detected: float | None
    recovered: float | None
    aborted: bool = False

    @property
    def passed(self) -> bool:
        """Steady again at the end, and no stop condition was reached."""
        return not self.aborted and (self.failed == 0 or self.recovered is not None)


def judge(samples: Sequence[Sample], injected: float, *, aborted: bool = False) -> Report:
    """Pure."""
    after = [sample for sample in samples if sample.at >= injected]
    bad = [sample for sample in after if sample.wrong]
    good = [sample.at for sample in after if not sample.wrong and (not bad or sample.at > bad[-1].at)]
    return Report(
        len(after), len(bad), bad[0].at - injected if bad else None,
        good[0] - injected if bad and len(good) >= STEADY else None, aborted,
    )  # fmt: skip


class Checker:
    """Asks the URLs in turn, on and on, in a thread of its own."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Checker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(CHECK_LIMIT * 2)

    @property
    def now(self) -> float:
        return time.monotonic() - self._began

    def _run(self) -> None:
        while self._urls and not self._stop.is_set():
            for url in self._urls:
                at = self.now
                self.samples.append(Sample(at, fetch(url)))
            self._stop.wait(CHECK_PAUSE)

    def failing(self) -> int:
        """Failed checks in a row up to now."""
        count = 0
        for sample in reversed(self.samples):
            if not sample.wrong:
                break
            count += 1
        return count

    def await_steady(self, limit: float) -> bool:
        """Whether STEADY checks in a row pass within the limit; at once without checks."""
        end = time.monotonic() + limit
        begin = len(self.samples)
        while self._urls and time.monotonic() < end:
            last = self.samples[begin:][-STEADY:]
            if len(last) == STEADY and not any(sample.wrong for sample in last):
                return True
            time.sleep(CHECK_PAUSE)
        return not self._urls


def fetch(url: str) -> str:
    """What is wrong with the answer; "" for any status below 500."""
    parts = urllib.parse.urlsplit(url)
    wire = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=CHECK_LIMIT)
    try:
        wire.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        status = wire.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        wire.close()
    return "" if status < 500 else f"HTTP {status}"


def run(
    fault: Fault, urls: Sequence[str], seconds: float, abort_after: int, tell: Callable[[str], None]
) -> Report:
    """The whole experiment; everything is taken back at its end, also after Ctrl-C and by the fault's guard when this
    process is killed. Raises Conflict when the system was
    not steady before: then nothing is injected. ``abort_after``: failed checks in a row that stop it, 0 for none."""
    with Checker(urls) as checker:
        if not checker.await_steady(CHECK_LIMIT * STEADY):
            raise NOT_STEADY(cause=next((one.wrong for one in reversed(checker.samples) if one.wrong), "no answer"))
        tell("steady state: " + (f"{len(urls)} check(s) pass" if urls else "not checked (--check URL)"))
        injected, aborted = checker.now, False
        try:
            fault.inject()
            tell("injected")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                if abort_after and checker.failing() >= abort_after:
                    aborted = True
                    tell(f"stop condition: {abort_after} checks in a row failed")
                    break
                time.sleep(CHECK_PAUSE)
        finally:
            for told in fault.undo():
                tell(f"cannot take back: {told}")
            tell("taken back")
        checker.await_steady(RECOVERY_LIMIT)
    return judge(checker.samples, injected, aborted=aborted)
