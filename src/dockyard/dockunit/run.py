"""Runs the entries: image, files, beforeScripts, test, each in a container of its own, side by side."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dockyard.client import Client, quote
from dockyard.dockunit.engine import LABEL, exec_in, fetch, has
from dockyard.dockunit.errors import CANNOT_START, NO_SHELL, NOTHING_KEPT
from dockyard.dockunit.matrix import Entry
from dockyard.dockunit.report import Outcome
from dockyard.dockunit.tree import TARGET, Kept, Tree
from dockyard.errors import DockyardError, NotFound

Json = dict[str, Any]
REPOSITORY = "dockunit-prepared"
LATE = 124
"""As timeout(1) ends."""
_BASHRC = "[ -r ~/.bashrc ] && . ~/.bashrc; "
_CHOOSE = 'if command -v bash >/dev/null 2>&1; then exec bash -c "$1"; else exec sh -c "$2"; fi'
"""The choice is made where the words are run: to ask first would be two more execs, of 0.1 to 0.5 s each on a busy machine."""


@dataclass(slots=True)
class Runner:
    """``arguments`` are put behind each test command. ``tell`` gets (entry, line) as it comes, from several threads.
    ``headers``: the credentials for an image's registry. ``place``: names the project for its prepared images.
    ``networks``: that the containers join. ``kept``: what earlier stages made, put over the tree. ``keep``: paths below
    the tree that are taken out of a container that passed, into ``taken``. ``limit``: seconds for an entry, 0 for ever."""

    client: Client
    tree: Tree
    arguments: str = ""
    place: str = ""
    cached: bool = True
    tell: Callable[[Entry, str], None] = lambda entry, line: None
    headers: Callable[[str], dict[str, str]] = lambda image: {}
    networks: Sequence[str] = ()
    env: Sequence[str] = ()
    kept: Sequence[Kept] = ()
    keep: Sequence[str] = ()
    limit: float = 0.0
    taken: list[Kept] = field(default_factory=list)
    _containers: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, entries: Sequence[Entry], parallel: int, done: Callable[[Outcome], None]) -> list[Outcome]:
        """All outcomes in the order of the file; ``done`` hears of each at once. Raises what the first entry raised that
        could not even be started. No container is left, also after Ctrl-C."""
        outcomes: dict[int, Outcome] = {}
        failures: list[DockyardError] = []
        slots = threading.BoundedSemaphore(max(1, parallel))

        def work(entry: Entry) -> None:
            with slots:
                if failures:
                    return
                try:
                    outcomes[entry.number] = self.one(entry)
                except DockyardError as error:
                    failures.append(error)
                else:
                    done(outcomes[entry.number])

        threads = [threading.Thread(target=work, args=(entry,), daemon=True) for entry in entries]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            self.clean()
        if failures:
            raise failures[0]
        return [outcomes[entry.number] for entry in entries if entry.number in outcomes]

    def one(self, entry: Entry) -> Outcome:
        """Raises System when the container cannot be had at all."""
        began = time.monotonic()
        lines: list[str] = []

        def hear(line: str) -> None:
            lines.append(line)
            self.tell(entry, line)

        image = self._image(entry)
        content = "".join([self.tree.digest, *(one.digest for one in self.kept), *self.env])
        prepared = f"{REPOSITORY}:{entry.prepared_key(image, content)}"
        ready = bool(entry.before_scripts) and self.cached and has(self.client, prepared)
        container = self._start(entry, prepared if ready else image, copy=not ready)
        late = threading.Event()

        def end() -> None:
            late.set()
            self._remove(container)

        timer = threading.Timer(self.limit, end)
        timer.daemon = True
        if self.limit:
            timer.start()
        try:
            return self._run(entry, container, prepared, ready, began, lines, hear)
        except DockyardError:
            if not late.is_set():
                raise
            return Outcome(entry, LATE, time.monotonic() - began, "\n".join(lines), f"the limit of {self.limit:g} s")
        finally:
            timer.cancel()
            self._remove(container)

    def _run(self, entry: Entry, container: str, prepared: str, ready: bool, began: float, lines: list[str],
             hear: Callable[[str], None]) -> Outcome:  # fmt: skip
        for script in () if ready else entry.before_scripts:
            code = self._shell(container, script, script, hear)
            if code:
                stage = f"before script: {script}"
                return Outcome(entry, code, time.monotonic() - began, "\n".join(lines), stage)
        if entry.before_scripts and self.cached and not ready:
            self._keep(entry, container, prepared)
        words = " ".join(filter(None, (entry.test_command, self.arguments)))
        code = self._shell(container, _BASHRC + words, words, hear)
        if not code:
            self._take(entry, container)
        return Outcome(entry, code, time.monotonic() - began, "\n".join(lines))

    def _take(self, entry: Entry, container: str) -> None:
        for path in self.keep:
            try:
                _, answer = self.client.get_archive(container, f"{TARGET}/{path}")
            except NotFound:
                raise NOTHING_KEPT(stage=entry.name, path=path) from None
            with answer:
                one = Kept.of(path, answer.chunks())
            with self._lock:
                self.taken.append(one)

    def _image(self, entry: Entry) -> str:
        try:
            return fetch(self.client, entry.image, self.headers)
        except DockyardError as error:
            raise CANNOT_START(name=entry.name, cause=error) from None

    def _start(self, entry: Entry, image: str, *, copy: bool) -> str:
        body = {
            "Image": image, "Cmd": ["/bin/sh"], "Tty": True, "OpenStdin": True, "WorkingDir": TARGET,
            "Labels": {LABEL: f"{self.place}#{entry.number}"}, "Env": list(self.env),
            "HostConfig": {"NetworkMode": self.networks[0]} if self.networks else {},
        }  # fmt: skip
        try:
            made = str(self.client.request("POST", "/containers/create", body=body)["Id"])
            with self._lock:
                self._containers.add(made)
            for network in self.networks[1:]:
                self.client.request("POST", f"/networks/{quote(network)}/connect", body={"Container": made})
            if copy:
                self.client.put_archive(made, "/", self.tree.pieces())
                for one in self.kept:
                    self.client.put_archive(made, one.folder, one.pieces())
            self.client.request("POST", f"/containers/{made}/start")
        except DockyardError as error:
            if "/bin/sh" in str(error):
                raise NO_SHELL(image=entry.image) from None
            raise CANNOT_START(name=entry.name, cause=error) from None
        return made

    def _shell(self, container: str, bash: str, sh: str, hear: Callable[[str], None]) -> int:
        """The exit code of the words in bash or, where the image has none, in sh."""
        return exec_in(self.client, container, ["sh", "-c", _CHOOSE, "sh", bash, sh], hear, directory=TARGET)

    def _keep(self, entry: Entry, container: str, prepared: str) -> None:
        """The container after its scripts as an image, unless they started something that an image cannot hold. The
        image that an earlier state of the project left for this entry goes."""
        if len(self.client.request("GET", f"/containers/{container}/top").get("Processes") or []) > 1:
            return
        place = f"{self.place}#{entry.number}"
        before = self.client.request("GET", "/images/json", {"filters": {"label": [f"{LABEL}={place}"]}}) or []
        repository, _, tag = prepared.partition(":")
        query = {"container": container, "repo": repository, "tag": tag}
        self.client.request("POST", "/commit", query, {"Labels": {LABEL: place}})
        for row in before:
            for name in row.get("RepoTags") or []:
                if name.startswith(f"{REPOSITORY}:") and name != prepared:
                    with contextlib.suppress(DockyardError):  # another run may be using it
                        self.client.request("DELETE", f"/images/{quote(name)}")

    def _remove(self, container: str) -> None:
        with contextlib.suppress(NotFound):
            self.client.request("DELETE", f"/containers/{container}", {"force": True, "v": True})
        with self._lock:
            self._containers.discard(container)

    def clean(self) -> None:
        """Takes away what is left: after Ctrl-C the threads are cut off in the midst of their work."""
        with self._lock:
            left = list(self._containers)
        for container in left:
            with contextlib.suppress(DockyardError):
                self._remove(container)
