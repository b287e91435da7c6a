"""What the story needs: commands run and told, the application's folder, pages fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from dockyard.cli.demo.engine import DOCKYARD
from dockyard.cli.demo.load import Load
from dockyard.cli.demo.voice import Narrator, condensed

ANSWER_LIMIT = 20.0


class Stage:
    """``environ`` is what the commands see; what `export` sets is told, the rest was there from the start.

    The docker CLI on the PATH is the client where there is one, dockyard's own otherwise; both speak to one engine.
    """

    def __init__(self, say: Narrator, folder: Path, environ: dict[str, str]) -> None:
        """``folder``: where the commands are run."""
        self.say, self.folder, self.environ = say, folder, {**os.environ, **environ}
        found = shutil.which("docker")
        self.docker: Sequence[str] = [found] if found else DOCKYARD
        self._docker_word = "docker" if found else "dockyard"
        self.load: Load | None = None

    def export(self, **variables: str) -> None:
        self.say.command(["export", *(f"{name}={value}" for name, value in variables.items())])
        self.environ |= variables

    def run(self, *words: str, show: int = 8, told: str = "", status: int = 0) -> str:
        """A command of docker's; its output is shown and returned. A wrong exit code ends the demo with its message."""
        return self._run([self._docker_word, *words], [*self.docker, *words], show, told, status)

    def dockyard(self, *words: str, show: int = 8, told: str = "", status: int = 0) -> str:
        return self._run(["dockyard", *words], [*DOCKYARD, *words], show, told, status)

    def host(self, *words: str, show: int = 8) -> str:
        """A command of the host's."""
        return self._run(words, words, show, "", 0)

    def compose(self, *words: str, status: int = 0) -> None:
        """Compose's progress: its own board on a terminal, the end of it in few lines elsewhere."""
        if not self.say.terminal:
            self.say.command(["dockyard", "compose", *words])
            done = self._call([*DOCKYARD, "compose", *words], "")
            self._check(["dockyard", "compose", *words], done, status)
            self.say.output(condensed(done.stderr) or done.stdout, 12)
            return
        self.say.command(["dockyard", "compose", *words])
        sys.stdout.flush()
        ended = subprocess.run([*DOCKYARD, "compose", *words], cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL)
        if ended.returncode != status:
            raise SystemExit(f"demo: 'compose {words[0]}' ended with {ended.returncode}")

    def get(self, url: str, expected: str) -> None:
        """The page, once it answers with what is expected."""
        deadline = time.monotonic() + ANSWER_LIMIT
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    body = answer.read().decode().strip()
                if expected not in body:
                    raise SystemExit(f"demo: unexpected page: {body[:200]}")
                self.say.output(f"GET {url} -> {answer.status} {body}")
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SystemExit(f"demo: {url} does not answer: {error}") from None
                time.sleep(0.1)  # it is starting or being healed; bounded by ANSWER_LIMIT

    def quietly(self, *words: str) -> str:
        """Output of a command of docker's that is no part of the story."""
        return subprocess.run([*self.docker, *words], env=self.environ, capture_output=True, text=True).stdout.strip()

    def _run(self, shown: Sequence[str], words: Sequence[str], show: int, told: str, status: int) -> str:
        self.say.command(shown)
        done = self._call(words, told)
        self._check(shown, done, status)
        self.say.output(done.stdout or done.stderr, show)
        return done.stdout.strip()

    def _call(self, words: Sequence[str], told: str) -> subprocess.CompletedProcess[str]:
        with self.say.working(lambda: str(self.load.total) if self.load else ""):
            return subprocess.run(words, env=self.environ, cwd=self.folder, capture_output=True, text=True, input=told)

    def _check(self, shown: Sequence[str], done: subprocess.CompletedProcess[str], status: int) -> None:
        if done.returncode != status:
            self.say.output(done.stdout + done.stderr, 30)
            raise SystemExit(f"demo: '{' '.join(shown[:3])}' ended with {done.returncode}")
