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
import socket
import subprocess
import sys
import textwrap
import threading
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

WIDTH = 80
IMAGES = ("images", "--format", "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Size}}")
PS = ("ps", "--format", "table {{.Names}}\t{{.Image}}\t{{.Status}}\t{{.Ports}}")
STATS = ("stats", "--no-stream", "--format", "table {{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.NetIO}}\t{{.PIDs}}")

PAGE = "<h1>Hello from Dockyard</h1>"
INSTALL = (
    "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light"
    " >/dev/null && rm -rf /var/lib/apt/lists/* && ln -sf /dev/stdout /var/log/nginx/access.log"
    f" && echo '{PAGE}' > /var/www/html/index.html"
)


NEXT = """
  . .venv/bin/activate
  dockyard engine &                                    # an engine to keep
  dockyard image bootstrap debian:bookworm-slim
  dockyard run -it --rm debian:bookworm-slim bash
  dockyard doctor                                      # if anything is odd"""


class Narrator:
    """Numbered steps, why each is there, the commands as one would type them, and how long each step took."""

    def __init__(self) -> None:
        self._step = 0
        self._terminal = sys.stdout.isatty()
        self._colour = self._terminal and not os.environ.get("NO_COLOR")

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    @contextlib.contextmanager
    def step(self, title: str, why: str = "") -> Iterator[None]:
        self._step += 1
        print(self._paint("1", f"\n{self._step}. {title}"), flush=True)
        for line in textwrap.wrap(why, WIDTH - 3):
            print(self._paint("2", f"   {line}"), flush=True)
        began = time.monotonic()
        yield
        print(self._paint("32", f"   done in {time.monotonic() - began:.2f} s"), flush=True)

    def command(self, words: Sequence[str]) -> None:
        shown = " ".join(word if " " not in word else f"'{word}'" for word in words)
        shown = shown.replace("\t", "\\t")
        print(self._paint("36", cut(f"   $ {shown}")), flush=True)

    def output(self, text: str, lines: int = 8) -> None:
        rows = text.rstrip().splitlines()
        for row in rows[:lines]:
            print(cut(f"     {row.rstrip()}"), flush=True)
        if len(rows) > lines:
            print(f"     ... {len(rows) - lines} more lines", flush=True)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Shows that something goes on: a line that counts on a terminal, a line now and then elsewhere."""
        done = threading.Event()
        pause, first, last = (1, "\r", "") if self._terminal else (15, "", "\n")

        def count() -> None:
            began = time.monotonic()
            while not done.wait(pause):
                print(f"{first}     ... {time.monotonic() - began:.0f} s", end=last, flush=True)

        counter = threading.Thread(target=count, daemon=True)
        counter.start()
        try:
            yield
        finally:
            done.set()
            counter.join()
            if self._terminal:
                print("\r\033[K", end="", flush=True)


def cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


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
        with self.say.working():
            done = subprocess.run([*(cli or self.cli), *words], env=environ, capture_output=True, text=True, input=told)
        if done.returncode != 0:
            self.say.output(done.stdout + done.stderr, 30)
            raise SystemExit(f"demo: '{' '.join(words[:2])}' ended with {done.returncode}")
        self.say.output(done.stdout or done.stderr, show)
        return done.stdout.strip()

    def play(self, daemon: Engine) -> None:
        with self.say.step("Base image without any registry", "Made from the host's Debian mirror, then kept."):
            self.run("image", "bootstrap", BASE, cli=[sys.executable, "-m", "dockyard.cli"])
            self.run(*IMAGES)
        with self.say.step("An nginx image, made in a container and committed", "Installs nginx: a minute at most."):
            self.run("run", "--name", "demo-build", BASE, "sh", "-c", INSTALL)
            self.run("commit", "-c", 'CMD ["nginx", "-g", "daemon off;"]', "-c", "EXPOSE 80", "demo-build", IMAGE)
            self.run("rm", "demo-build")
        with self.say.step(
            "Push it to a registry of our own, with an account, and pull it back",
            "`dockyard registry` is part of the package: users, teams, search, web pages.",
        ):
            DemoRegistry(ROOT / "registry", self.run).play(IMAGE)
        with self.say.step("Run it with a published port"):
            self.run("run", "-d", "--name", "demo-web", "-p", "127.0.0.1:0:80", IMAGE)
            address = self.run("port", "demo-web", "80/tcp").splitlines()[0]
            self.get(f"http://{address}/")
        with self.say.step("Look inside: exec, logs, stats"):
            self.run("exec", "demo-web", "nginx", "-v")
            self.run("exec", "demo-web", "cat", "/etc/hostname", "/etc/resolv.conf")
            self.run("logs", "demo-web")
            self.run(*STATS, "demo-web")
        with self.say.step(
            "Kill the engine with SIGKILL", "Containers do not need it: the page is served on, and the next engine finds all."
        ):
            daemon.kill()
            self.get(f"http://{address}/")
            daemon.start()
            self.run(*PS)
        with self.say.step("Stop and clean up"):
            self.run("stop", "demo-web")
            self.run("rm", "demo-web")
            self.run("rmi", IMAGE)
        with self.say.step(
            "An application from its Dockerfiles: NGINX > three Node.js servers > Redis",
            "Builds three images with Debian packages: a minute or two the first time, then from the cache.",
        ):
            self.script("up")
            self.run(*PS)
        with self.say.step("Ask it: the three servers share the work and the count"):
            for _ in range(4):
                self.get(f"http://127.0.0.1:{EXAMPLE_PORT}/", "visits")
        doctor = DemoDoctor(self.run, self.say.command, self.say.output, self.environ, f"http://127.0.0.1:{EXAMPLE_PORT}/")
        with self.say.step("Break it: a script of the host takes the network's bridge down"):
            doctor.bridge_down()
        with self.say.step("Break it: a limit of processes that is too small"):
            doctor.no_processes()
        with self.say.step("Break it: the wrong port in -p"):
            doctor.wrong_port()
        with self.say.step("Take it away"):
            self.script("down")
            if not self.run("ps", "-aq"):
                self.say.output("(no container is left)")

    def get(self, url: str, expected: str = PAGE) -> None:
        self.say.output(f"GET {url} -> {self._fetch(url, expected)}")

    def script(self, name: str) -> None:
        """A script of the example, with this client; the end of its output is shown."""
        self.say.command([f"examples/{EXAMPLE.name}/{name}"])
        environ = {**self.environ, "DOCKER": " ".join(self.cli), "PORT": EXAMPLE_PORT}
        with self.say.working():
            done = subprocess.run([EXAMPLE / name], env=environ, capture_output=True, text=True)
        if done.returncode != 0:
            self.say.output(done.stdout + done.stderr, 30)
            raise SystemExit(f"demo: examples/{EXAMPLE.name}/{name} ended with {done.returncode}")
        built = [line for line in done.stdout.splitlines() if line.startswith("Successfully ")]
        self.say.output("\n".join(built), 12)

    @staticmethod
    def _fetch(url: str, expected: str) -> str:
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


class Engine:
    """A private engine for the length of the demo."""

    def __init__(self, say: Narrator) -> None:
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Engine:
        RUN.mkdir(parents=True, exist_ok=True)
        ROOT.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def start(self) -> None:
        words = ["engine", "--data-root", str(ROOT), "--exec-root", str(RUN), "--host", f"unix://{SOCKET}"]
        self._say.command(["dockyard", *words])
        with (RUN / "engine.log").open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "dockyard.cli", *words], stdout=log, stderr=log)
        deadline = time.monotonic() + START_LIMIT
        while not _answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"demo: the engine did not start:\n{(RUN / 'engine.log').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        assert self._process is not None
        self._say.command(["kill", "-9", str(self._process.pid)])
        self._process.kill()
        self._process.wait()

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _answers() -> bool:
    """A socket alone does not say so: that of a killed engine stays."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(SOCKET))
        return True
    return False


def main() -> int:
    demo = Demo()
    began = time.monotonic()
    print(f"Dockyard demo: the client is {'the docker CLI' if demo.name == 'docker' else 'the dockyard CLI'}.")
    print("Two to four minutes on a fresh machine; Ctrl-C ends it and takes it all away.")
    try:
        with Engine(demo.say) as daemon:
            demo.clean()
            try:
                demo.play(daemon)
            finally:
                demo.clean()
    except KeyboardInterrupt:
        print("\ninterrupted; all that the demo made is taken away")
        return 130
    print(f"\nAll of it in {time.monotonic() - began:.1f} s. Now yours:\n{NEXT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
