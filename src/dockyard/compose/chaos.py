"""Failure on purpose: what is done to a container and how it is taken back, and what the checks say of it."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dockyard.client import Client, quote
from dockyard.compose.errors import CHAOS_MISSING, NOT_STEADY
from dockyard.errors import DockyardError, NotModified

Json = dict[str, Any]
CHECK_PAUSE, CHECK_LIMIT = 0.1, 2.0
STEADY = 5
"""So many passing checks in a row are a steady state."""
RECOVERY_LIMIT = 60.0
MARK = "/tmp/.dockyard-chaos"
VERBS = {
    "kill": "ends it with SIGKILL, starts it again", "stop": "stops it, starts it again",
    "pause": "freezes it for the time", "restart": "restarts it", "cut": "takes it off its networks for the time",
    "cpu": "busy loops inside it", "memory": "fills memory inside it (--size MiB)", "disk": "fills disk inside it (--size MiB)",
}  # fmt: skip
NO_NETEM = ("delay", "loss", "bandwidth")


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


class Fault:
    """One verb on some containers; ``undo`` may be called at any time, also after half an injection."""

    def __init__(self, client: Client, verb: str, containers: Sequence[str], size: int) -> None:
        """``size``: MiB of memory or disk. Raises NotImplemented for what needs netem."""
        if verb in NO_NETEM:
            raise CHAOS_MISSING(verb=verb)
        self._client, self._verb, self._containers, self._size = client, verb, list(containers), size
        self._undo: list[Callable[[], object]] = []

    def inject(self) -> None:
        """Raises the engine's refusals."""
        for name in self._containers:
            getattr(self, f"_{self._verb}")(f"/containers/{quote(name)}")

    def undo(self) -> list[str]:
        """What could not be taken back, in words."""
        told = []
        while self._undo:
            try:
                self._undo.pop()()
            except NotModified:
                continue
            except DockyardError as error:
                told.append(str(error))
        return told

    def _post(self, path: str, query: Json | None = None, body: Any = None) -> Any:
        return self._client.request("POST", path, query, body)

    def _kill(self, place: str) -> None:
        self._undo.append(lambda: self._post(f"{place}/start"))
        self._post(f"{place}/kill", {"signal": "SIGKILL"})

    def _stop(self, place: str) -> None:
        self._undo.append(lambda: self._post(f"{place}/start"))
        with contextlib.suppress(NotModified):
            self._post(f"{place}/stop")

    def _pause(self, place: str) -> None:
        self._undo.append(lambda: self._post(f"{place}/unpause"))
        self._post(f"{place}/pause")

    def _restart(self, place: str) -> None:
        self._post(f"{place}/restart")

    def _cut(self, place: str) -> None:
        found = self._client.request("GET", f"{place}/json")
        for network, terms in ((found.get("NetworkSettings") or {}).get("Networks") or {}).items():
            path = f"/networks/{quote(network)}"
            kept = {key: terms.get(key) for key in ("Aliases", "IPAMConfig", "Links", "DriverOpts") if terms.get(key)}
            body = {"Container": found["Id"], "EndpointConfig": kept}
            self._undo.append(lambda path=path, body=body: self._post(f"{path}/connect", body=body))  # type: ignore[misc]
            self._post(f"{path}/disconnect", body={"Container": found["Id"], "Force": True})

    def _cpu(self, place: str) -> None:
        self._undo.append(lambda: self._inside(place, f"kill -9 $(cat {MARK}); rm -f {MARK}"))
        self._inside(place, f"echo $$ > {MARK}; while :; do :; done", wait=False)

    def _memory(self, place: str) -> None:
        self._filled(place, "/dev/shm")

    def _disk(self, place: str) -> None:
        self._filled(place, "/tmp")

    def _filled(self, place: str, folder: str) -> None:
        file = f"{folder}/{MARK.rpartition('/')[2]}"
        self._undo.append(lambda: self._inside(place, f"rm -f {file}"))
        self._inside(place, f"dd if=/dev/zero of={file} bs=1048576 count={self._size} 2>/dev/null", wait=False)

    def _inside(self, place: str, script: str, *, wait: bool = True) -> None:
        body = {"Cmd": ["sh", "-c", script], "AttachStdout": wait, "AttachStderr": wait}
        made = self._post(f"{place}/exec", body=body)["Id"]
        if not wait:
            self._post(f"/exec/{made}/start", body={"Detach": True, "Tty": False})
            return
        with self._client.hijack(f"/exec/{made}/start", body={"Detach": False, "Tty": False}) as stream:
            for _ in stream.frames(tty=False):
                pass


def run(
    fault: Fault, urls: Sequence[str], seconds: float, abort_after: int, tell: Callable[[str], None]
) -> Report:
    """The whole experiment; everything is taken back at its end, also after Ctrl-C. Raises Conflict when the system was
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
