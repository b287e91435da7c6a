"""The demo breaks its own application in three ways; the doctor finds, explains and cures each.

Only what the demo made is touched: the bridge of its network, the limit of one of its containers, a container of its own.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request

from dockyard.cli.demo.engine import DOCKYARD
from dockyard.cli.demo.stage import Stage

SECOND = "shop-second"
SECOND_PORT = 8082
SHOWN = 12
LISTENS = ":0BB8 "
"""Port 3000 as /proc/net/tcp writes it."""
LISTEN_LIMIT = 20.0
HEALTHY, FAULTS, UNSEEN = 0, 2, 3
ATTEMPTS = 3


class DemoDoctor:
    def __init__(self, stage: Stage, project: str, image: str, url: str) -> None:
        """``image``: one that listens on port 3000. ``url``: where the application answers."""
        self._stage, self._project, self._image, self._url = stage, project, image, url

    def bridge_down(self) -> None:
        """Somebody's network script takes the bridge down: no container of the network reaches another."""
        name = f"{self._project}_default"
        network = json.loads(self._stage.quietly("network", "inspect", name))[0]
        bridge = network.get("Options", {}).get("com.docker.network.bridge.name") or f"br-{network['Id'][:12]}"
        self._stage.host("ip", "link", "set", bridge, "down")
        self._symptom()
        self._doctor("network", name)
        self._doctor("network", name, "--apply", "NET-10", "--yes", expected=HEALTHY)
        self._stage.get(self._url, "visits")

    def no_processes(self) -> None:
        """A limit that is too small: the program runs, and cannot begin anything new."""
        one = f"{self._project}-app-1"
        self._stage.run("update", "--pids-limit", "6", one)
        self._doctor("container", one)
        self._doctor("container", one, "--apply", "RES-04", "--yes", expected=HEALTHY)
        self._stage.run("exec", one, "true")

    def wrong_port(self) -> None:
        """A typing mistake in -p: here a person decides, so the doctor says what and how."""
        words = ("run", "-d", "--name", SECOND, "--network", f"{self._project}_default")
        self._stage.run(*words, "-p", f"127.0.0.1:{SECOND_PORT}:80", self._image)
        self._await_listener()
        self._doctor("container", SECOND)
        self._stage.run("rm", "-f", SECOND)
        self._stage.run(*words, "-p", f"127.0.0.1:{SECOND_PORT}:3000", self._image)
        self._await_listener()
        self._doctor("container", SECOND, expected=HEALTHY)
        self._stage.run("rm", "-f", SECOND)

    def _await_listener(self) -> None:
        """Until the program inside listens: before that, nobody can know which port it means."""
        end = time.monotonic() + LISTEN_LIMIT
        while time.monotonic() < end:
            if LISTENS in self._stage.quietly("exec", SECOND, "cat", "/proc/net/tcp", "/proc/net/tcp6"):
                return
            time.sleep(0.1)  # a program is starting; bounded by LISTEN_LIMIT
        raise SystemExit(f"demo: {SECOND} does not listen")

    def _symptom(self) -> None:
        try:
            with urllib.request.urlopen(self._url, timeout=3) as answer:
                raise SystemExit(f"demo: it should be broken, and answers {answer.status}")
        except OSError as error:
            self._stage.say.output(f"GET {self._url} -> {error}")

    def _doctor(self, *words: str, expected: int = FAULTS) -> None:
        """Its words are shown; HEALTHY also allows advice and checks that could not be made."""
        self._stage.say.command(["dockyard", "doctor", *words])
        with self._stage.say.working():
            for _ in range(ATTEMPTS):  # on a machine that is very busy a look may end before it has seen all
                done = subprocess.run([*DOCKYARD, "doctor", *words], env=self._stage.environ, capture_output=True, text=True)
                if done.returncode != UNSEEN or expected != FAULTS:
                    break
        self._stage.say.output(done.stdout + done.stderr, SHOWN)
        if (done.returncode == FAULTS) != (expected == FAULTS):
            raise SystemExit(f"demo: dockyard doctor {' '.join(words)} ended with {done.returncode}")
