"""The demo breaks its own application in three ways; the doctor finds, explains and cures each.

Only what the demo made is touched: the bridge of its network, the limit of one of its containers, a container of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping

DOCTOR = (sys.executable, "-m", "dockyard.cli", "doctor")
SECOND_PORT = 8082
SHOWN = 12
HEALTHY, FAULTS = 0, 2


class DemoDoctor:
    """``run`` is the demo's, for commands of the client; ``shown`` prints a command line, ``output`` what it said."""

    def __init__(
        self, run: Callable[..., str], shown: Callable[[list[str]], None], output: Callable[[str, int], None],
        environ: Mapping[str, str], url: str,
    ) -> None:  # fmt: skip
        self._run, self._shown, self._output, self._environ, self._url = run, shown, output, environ, url

    def bridge_down(self) -> None:
        """Somebody's network script takes the bridge down: no container of the network reaches another."""
        network = json.loads(self._run("network", "inspect", "example-net", show=0))[0]
        bridge = network.get("Options", {}).get("com.docker.network.bridge.name") or f"br-{network['Id'][:12]}"
        self._host("ip", "link", "set", bridge, "down")
        self._symptom()
        self._doctor("network", "example-net")
        self._doctor("network", "example-net", "--apply", "NET-10", "--yes", expected=HEALTHY)
        self._well()

    def no_processes(self) -> None:
        """A limit that is too small: the program runs, and cannot begin anything new."""
        self._run("update", "--pids-limit", "6", "app1")
        self._doctor("container", "app1")
        self._doctor("container", "app1", "--apply", "RES-04", "--yes", expected=HEALTHY)
        self._run("exec", "app1", "true")

    def wrong_port(self) -> None:
        """A typing mistake in -p: here a person decides, so the doctor says what and how."""
        words = ("run", "-d", "--name", "demo-second", "--network", "example-net")
        self._run(*words, "-p", f"127.0.0.1:{SECOND_PORT}:81", "example-web")
        self._doctor("container", "demo-second")
        self._run("rm", "-f", "demo-second")
        self._run(*words, "-p", f"127.0.0.1:{SECOND_PORT}:80", "example-web")
        self._doctor("container", "demo-second", expected=HEALTHY)
        self._run("rm", "-f", "demo-second")

    def _host(self, *words: str) -> None:
        self._shown(list(words))
        subprocess.run(words, check=True)

    def _symptom(self) -> None:
        try:
            with urllib.request.urlopen(self._url, timeout=3) as answer:
                raise SystemExit(f"demo: it should be broken, and answers {answer.status}")
        except OSError as error:
            print(f"     GET {self._url} -> {error}", flush=True)

    def _well(self) -> None:
        with urllib.request.urlopen(self._url, timeout=20) as answer:
            print(f"     GET {self._url} -> {answer.status}", flush=True)

    def _doctor(self, *words: str, expected: int = FAULTS) -> None:
        """Its words are shown; HEALTHY also allows advice and checks that could not be made."""
        self._shown(["dockyard", "doctor", *words])
        done = subprocess.run([*DOCTOR, *words], env=self._environ, capture_output=True, text=True)
        self._output(done.stdout + done.stderr, SHOWN)
        if (done.returncode == FAULTS) != (expected == FAULTS):
            raise SystemExit(f"demo: dockyard doctor {' '.join(words)} ended with {done.returncode}")
