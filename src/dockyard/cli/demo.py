"""``make demo``: the main job end to end, on a private engine, and what happened in words.

The docker CLI on the PATH is the client where there is one, dockyard's own otherwise; both speak to one engine. The
engine's data stay in a directory of its own (``/var/lib/dockyard/demo``), so that a second run finds the base image;
everything else is taken away at the end, also after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from dockyard.cli.demo_doctor import DemoDoctor
from dockyard.cli.demo_registry import DemoRegistry

ROOT = Path("/var/lib/dockyard/demo")
RUN = Path("/run/dockyard/demo")
SOCKET = RUN / "dockyard.sock"
BASE = "debian:bookworm-slim"
IMAGE = "demo/nginx:1"
EXAMPLE = Path(__file__).parents[3] / "examples" / "node-redis"
EXAMPLE_PORT = "8081"
START_LIMIT = 30.0
ANSWER_LIMIT = 20.0
STOP_LIMIT = 30.0

PAGE = "<h1>Hello from Dockyard</h1>"
INSTALL = (
    "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light"
    " >/dev/null && rm -rf /var/lib/apt/lists/* && ln -sf /dev/stdout /var/log/nginx/access.log"
    f" && echo '{PAGE}' > /var/www/html/index.html"
)


class Narrator:
    """Numbered steps, the commands as one would type them, and how long each took."""

    def __init__(self) -> None:
        self._step = 0
        self._colour = sys.stdout.isatty()

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._step += 1
        print(self._paint("1", f"\n{self._step}. {title}"), flush=True)
        began = time.monotonic()
        yield
        print(self._paint("32", f"   done in {time.monotonic() - began:.2f} s"), flush=True)

    def command(self, words: Sequence[str]) -> None:
        shown = " ".join(word if " " not in word else f"'{word}'" for word in words)
        print(self._paint("36", f"   $ {shown if len(shown) < 100 else shown[:97] + '...'}"), flush=True)

    def output(self, text: str, lines: int = 8) -> None:
        rows = text.rstrip().splitlines()
        for row in rows[:lines]:
            print(f"     {row[:110]}", flush=True)
        if len(rows) > lines:
            print(f"     ... {len(rows) - lines} more lines", flush=True)


class Demo:
    def __init__(self) -> None:
        self.say = Narrator()
        found = shutil.which("docker")
        self.cli = [found] if found else [sys.executable, "-m", "dockyard.cli"]
        self.name = "docker" if found else "dockyard"
        self.environ = {**os.environ, "DOCKER_HOST": f"unix://{SOCKET}"}

    def run(self, *words: str, cli: Sequence[str] | None = None, show: int = 8, told: str = "",
            config: str = "") -> str:  # fmt: skip
        """Runs a command of the client; its output is shown and returned. A failure ends the demo with its message.

        `told` is typed into it; `config` is a directory for its logins instead of one's own.
        """
        self.say.command([self.name if cli is None else "dockyard", *words])
        environ = self.environ | ({"DOCKER_CONFIG": config} if config else {})
        done = subprocess.run([*(cli or self.cli), *words], env=environ, capture_output=True, text=True, input=told)
        if done.returncode != 0:
            self.say.output(done.stdout + done.stderr, 30)
            raise SystemExit(f"demo: '{' '.join(words[:2])}' ended with {done.returncode}")
        self.say.output(done.stdout, show)
        return done.stdout.strip()

    def play(self) -> None:
        with self.say.step("Base image without any registry"):
            self.run("image", "bootstrap", BASE, cli=[sys.executable, "-m", "dockyard.cli"])
            self.run("images")
        with self.say.step("An nginx image, made in a container and committed"):
            self.run("run", "--name", "demo-build", BASE, "sh", "-c", INSTALL)
            self.run("commit", "-c", 'CMD ["nginx", "-g", "daemon off;"]', "-c", "EXPOSE 80", "demo-build", IMAGE)
            self.run("rm", "demo-build")
        with self.say.step("Push it to a registry of our own, with an account, and pull it back"):
            DemoRegistry(ROOT / "registry", self.run).play(IMAGE)
        with self.say.step("Run it with a published port"):
            self.run("run", "-d", "--name", "demo-web", "-p", "127.0.0.1:0:80", IMAGE)
            address = self.run("port", "demo-web", "80/tcp").splitlines()[0]
        with self.say.step("Fetch a page through the port"):
            print(f"     GET http://{address}/ -> {self._fetch(f'http://{address}/')}")
        with self.say.step("Look inside: exec, logs, stats"):
            self.run("exec", "demo-web", "nginx", "-v")
            self.run("exec", "demo-web", "cat", "/etc/hostname", "/etc/resolv.conf")
            self.run("logs", "demo-web")
            self.run("stats", "--no-stream", "demo-web")
            self.run("ps")
        with self.say.step("Stop and clean up"):
            self.run("stop", "demo-web")
            self.run("rm", "demo-web")
            self.run("rmi", IMAGE)
        with self.say.step("An application from its Dockerfiles: NGINX > three Node.js servers > Redis"):
            self.script("up")
            self.run("ps")
        with self.say.step("Ask it: another server answers each time, the count is one"):
            url = f"http://127.0.0.1:{EXAMPLE_PORT}/"
            for _ in range(4):
                print(f"     GET {url} -> {self._fetch(url, 'visits')}")
        doctor = DemoDoctor(self.run, self.say.command, self.say.output, self.environ, f"http://127.0.0.1:{EXAMPLE_PORT}/")
        with self.say.step("Break it: a script of the host takes the network's bridge down"):
            doctor.bridge_down()
        with self.say.step("Break it: a limit of processes that is too small"):
            doctor.no_processes()
        with self.say.step("Break it: the wrong port in -p"):
            doctor.wrong_port()
        with self.say.step("Take it away"):
            self.script("down")
            self.run("ps", "-a")

    def script(self, name: str) -> None:
        """A script of the example, with this client; the end of its output is shown."""
        self.say.command([f"examples/{EXAMPLE.name}/{name}"])
        environ = {**self.environ, "DOCKER": " ".join(self.cli), "PORT": EXAMPLE_PORT}
        done = subprocess.run([EXAMPLE / name], env=environ, capture_output=True, text=True)
        if done.returncode != 0:
            self.say.output(done.stdout + done.stderr, 30)
            raise SystemExit(f"demo: examples/{EXAMPLE.name}/{name} ended with {done.returncode}")
        built = [line for line in done.stdout.splitlines() if line.startswith("Successfully ")]
        self.say.output("\n".join(built), 12)

    @staticmethod
    def _fetch(url: str, expected: str = PAGE) -> str:
        deadline = time.monotonic() + ANSWER_LIMIT
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    body = answer.read().decode().strip()
                    if expected not in body:
                        raise SystemExit(f"demo: unexpected page: {body[:200]}")
                    return f"{answer.status} {body}"
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SystemExit(f"demo: {url} does not answer: {error}") from None
                time.sleep(0.05)

    def clean(self) -> None:
        """Leftovers of an earlier, interrupted run."""
        for name in ("demo-build", "demo-web", "demo-second"):
            subprocess.run([*self.cli, "rm", "-f", name], env=self.environ, capture_output=True)
        environ = {**self.environ, "DOCKER": " ".join(self.cli)}
        subprocess.run([EXAMPLE / "down"], env=environ, capture_output=True)


@contextlib.contextmanager
def engine(say: Narrator) -> Iterator[None]:
    """A private engine for the length of the demo."""
    RUN.mkdir(parents=True, exist_ok=True)
    ROOT.mkdir(parents=True, exist_ok=True)
    words = ["engine", "--data-root", str(ROOT), "--exec-root", str(RUN), "--host", f"unix://{SOCKET}"]
    say.command(["dockyard", *words])
    log = (RUN / "engine.log").open("wb")
    process = subprocess.Popen([sys.executable, "-m", "dockyard.cli", *words], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_LIMIT
        while not SOCKET.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"demo: the engine did not start:\n{(RUN / 'engine.log').read_text()[-2000:]}")
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def main() -> int:
    demo = Demo()
    began = time.monotonic()
    print(f"Dockyard demo: the client is {'the docker CLI' if demo.name == 'docker' else 'the dockyard CLI'}.")
    try:
        with engine(demo.say):
            demo.clean()
            try:
                demo.play()
            finally:
                demo.clean()
    except KeyboardInterrupt:
        print("\ninterrupted; all that the demo made is taken away")
        return 130
    print(f"\nAll of it in {time.monotonic() - began:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
