"""The demo's registry: an account, a login, a push and a pull; its data live as long as the demo."""

from __future__ import annotations

import secrets
import shutil
import urllib.request
from pathlib import Path

from dockyard.cli.demo.engine import Program
from dockyard.cli.demo.stage import Stage

HOST = "127.0.0.1:5077"
USER = "shop"
IMAGES = tuple(f"{HOST}/{USER}/{name}" for name in ("web", "app", "store"))


class DemoRegistry:
    def __init__(self, data: Path, stage: Stage) -> None:
        self._data, self._stage = data, stage
        words = ["registry", "--data", str(data), "serve", "--listen", HOST]
        self._program = Program(words, data / "log", _answers)

    def start(self) -> None:
        """An account, the server, a login."""
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(parents=True)
        password = secrets.token_urlsafe(12)
        place = ("registry", "--data", str(self._data))
        self._stage.dockyard(*place, "user", "add", USER, "--password-stdin", told=password)
        self._stage.say.command(["dockyard", *place, "serve", "--listen", HOST, "&"])
        self._program.start()
        self._stage.run("login", "-u", USER, "--password-stdin", HOST, told=password)

    def stop(self) -> None:
        self._program.stop()
        shutil.rmtree(self._data, ignore_errors=True)


def _answers() -> bool:
    try:
        urllib.request.urlopen(f"http://{HOST}/health", timeout=5).close()
    except OSError:
        return False
    return True
