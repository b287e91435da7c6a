"""The demo's registry: an account, a login, a push, a search, a pull, a logout; its data live as long as the demo."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

HOST = "127.0.0.1:5077"
_START_LIMIT = 30.0
_STOP_LIMIT = 20.0
_REGISTRY = (sys.executable, "-m", "dockyard.cli", "registry")


class DemoRegistry:
    """`run` is the demo's: words of the client, shown with their output; `told` is what is typed into it."""

    def __init__(self, data: Path, run: Callable[..., str]) -> None:
        self._data = data
        self._run = run

    def play(self, image: str) -> None:
        """Push `image`, take it away here, and pull it back."""
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(parents=True)
        password = secrets.token_urlsafe(12)
        dockyard = list(_REGISTRY[:-1])
        place = ("registry", "--data", str(self._data))
        self._run(*place, "user", "add", "demo", "--password-stdin", cli=dockyard, told=password)
        with (self._data / "log").open("wb") as log:
            server = subprocess.Popen(
                [*_REGISTRY, "--data", str(self._data), "serve", "--listen", HOST], stdout=log, stderr=log
            )
        try:
            self._await_answer(server)
            self._push_and_pull(image, password)
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            shutil.rmtree(self._data, ignore_errors=True)

    def _push_and_pull(self, image: str, password: str) -> None:
        name, config = f"{HOST}/{image}", str(self._data / "client")

        def docker(*words: str, told: str = "") -> None:
            self._run(*words, told=told, config=config, show=4)

        docker("login", "-u", "demo", "--password-stdin", HOST, told=password)
        docker("tag", image, name)
        docker("push", name)
        docker("search", f"{HOST}/nginx")
        docker("rmi", name)
        docker("pull", name)
        docker("rmi", name)
        docker("logout", HOST)

    def _await_answer(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_LIMIT
        while True:
            try:
                urllib.request.urlopen(f"http://{HOST}/health", timeout=5).close()
                return
            except OSError as error:
                if server.poll() is not None or time.monotonic() > deadline:
                    said = (self._data / "log").read_text()[-2000:]
                    raise SystemExit(f"demo: the registry does not answer: {error}\n{said}") from None
                time.sleep(0.05)
