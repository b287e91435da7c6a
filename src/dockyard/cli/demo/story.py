"""The story: from nothing to a whole application, through every trouble, and back to nothing.

The engine's data stay in a directory of its own (``/var/lib/dockyard/demo``), so that a second run finds the base image
and the build's cache; everything else is taken away at the end, also after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from dockyard.cli.demo.doctor import SECOND, DemoDoctor
from dockyard.cli.demo.engine import DOCKYARD, Engine
from dockyard.cli.demo.load import Load
from dockyard.cli.demo.registry import HOST, IMAGES, DemoRegistry
from dockyard.cli.demo.stage import Stage
from dockyard.cli.demo.voice import Narrator

ROOT = Path("/var/lib/dockyard/demo")
RUN = Path("/run/dockyard/demo")
BASE = "debian:bookworm-slim"
EXAMPLE = Path(__file__).parents[4] / "examples" / "node-redis"
PROJECT = "visits"
PORT = "8081"
URL = f"http://127.0.0.1:{PORT}/"
STEPS = 15

PS = ("ps", "--format", "table {{.Service}}\t{{.Name}}\t{{.Status}}\t{{.Ports}}")
STATS = ("stats", "--no-stream", "--format", "table {{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.NetIO}}\t{{.PIDs}}")
MISTAKE = "s/listen(3000)/listen(process.env.PROT)/"
REPAIR = "s/listen(process.env.PROT)/listen(3000)/; s/{ server/{ version: 2, server/"

NEXT = """
  . .venv/bin/activate
  dockyard engine &                                    # an engine to keep
  dockyard image bootstrap debian:bookworm-slim
  cd examples/node-redis && dockyard compose up -d     # this application
  dockyard doctor                                      # if anything is odd"""


class Demo:
    def __init__(self, say: Narrator, engine: Engine) -> None:
        self.say, self._engine = say, engine
        self.stage = Stage(say, RUN / PROJECT, {
            "DOCKER_HOST": f"unix://{engine.socket}", "DOCKER_CONFIG": str(RUN / "client"), "PORT": PORT,
        })  # fmt: skip
        self._registry = DemoRegistry(ROOT / "registry", self.stage)

    def play(self) -> None:
        shutil.copytree(EXAMPLE, self.stage.folder)
        self.make()
        self.start()
        self.balance()
        with Load(URL) as load:
            self.stage.load = load
            self.scale()
            self.kill()
            self.update()
        self.stage.load = None
        self.diagnose()
        self.down()
        total = load.total
        print(f"\n   While it was scaled, killed and updated: {total}, slowest {total.slowest:.2f} s.")

    def make(self) -> None:
        stage = self.stage
        with self.say.step("A base image, without any registry", "Made from a Debian mirror: a minute, once."):
            stage.dockyard("image", "bootstrap", BASE)
        with self.say.step("Build three images: NGINX, Node.js, Redis", "From their Dockerfiles; then from the cache."):
            stage.export(REGISTRY=f"{HOST}/")
            stage.compose("build")
        with self.say.step("Push them to a registry of our own, forget them, pull them", "With an account and a login."):
            self._registry.start()
            stage.compose("push")
            stage.run("rmi", *IMAGES, show=3)
            stage.compose("pull")

    def start(self) -> None:
        stage = self.stage
        with self.say.step("One command: NGINX > Node.js x 3 > Redis", "Each starts when what it needs is healthy."):
            stage.compose("up", "-d", "--wait", "--no-build")
            stage.dockyard("compose", *PS)
            for _ in range(3):
                stage.get(URL, "visits")
        with self.say.step("Look inside"):
            stage.run("exec", f"{PROJECT}-web-1", "nginx", "-v")
            stage.dockyard("compose", "logs", "--tail", "2", "web")
            stage.run(*STATS)

    def balance(self) -> None:
        stage = self.stage
        with self.say.step("A balancer between them: HAProxy, driven by the engine's events", "No reload, no failed request."):
            gateway = stage.quietly("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}")
            stage.export(COMPOSE_FILE="compose.yaml:balance.yaml", GATEWAY=gateway)
            stage.dockyard("compose", "balance", "--detach")
            stage.compose("up", "-d", "--wait", "--no-build")
            for _ in range(3):
                stage.get(URL, "visits")

    @contextlib.contextmanager
    def under_load(self, title: str, why: str = "") -> Iterator[None]:
        """A step during which no request may fail."""
        assert self.stage.load is not None
        with self.say.step(title, why), self.stage.load.window() as count:
            yield
            who = f", answered by {len(count.servers)} servers" if count.servers else ""
            self.say.good(f"{count}, slowest {count.slowest:.2f} s{who}")
            if count.failed or not count.requests:
                raise SystemExit(f"demo: {len(count.failed)} of {count.requests} requests failed: {count.failed[:3]}")

    def scale(self) -> None:
        with self.under_load("Scale from three to five", "From here on, three users ask all the time; none may be refused."):
            self.stage.compose("up", "-d", "--wait", "--no-build", "--scale", "app=5")

    def kill(self) -> None:
        with self.under_load("Kill an instance", "A check goes on before, during and after it; then it is started again."):
            self.stage.dockyard("chaos", "kill", "--duration", "2s", "--check", URL, f"{PROJECT}-app-2")
        with self.under_load("Kill the engine", "Containers do not need it, and the next engine finds them all."):
            self._engine.kill()
            self._engine.start()
            self.stage.dockyard("compose", *PS)

    def update(self) -> None:
        stage = self.stage
        with self.under_load("An update that is broken", "A typing mistake. The health gate stops it, all is put back."):
            stage.host("sed", "-i", MISTAKE, "app/server.js")
            stage.compose("build", "app")
            stage.compose("update", "--wait-timeout", "8", "app", status=1)
        with self.under_load("An update that is good", "Instance by instance, new before old."):
            stage.host("sed", "-i", REPAIR, "app/server.js")
            stage.compose("build", "app")
            stage.compose("push", "app")
            stage.compose("update", "app")
            stage.get(URL, '"version":2')

    def diagnose(self) -> None:
        doctor = DemoDoctor(self.stage, PROJECT, IMAGES[1], URL)
        with self.say.step("Break it: a script of the host takes the network's bridge down"):
            doctor.bridge_down()
        with self.say.step("Break it: a limit of processes that is too small"):
            doctor.no_processes()
        with self.say.step("Break it: the wrong port in -p"):
            doctor.wrong_port()

    def down(self) -> None:
        with self.say.step("Take it away"):
            self.stage.compose("down", "-v", "--rmi", "all")
            self.close()
            left = self.stage.quietly("ps", "-aq") + self.stage.quietly("volume", "ls", "-q")
            left += self.stage.quietly("network", "ls", "-q", "--filter", "type=custom")
            if left:
                raise SystemExit(f"demo: left behind: {left}")
            self.say.output("(no container, no network, no volume is left)")

    def close(self) -> None:
        """Ends the registry; may be called twice. The balancer goes with its project."""
        self._registry.stop()

    def clean(self) -> None:
        """Leftovers, also of an earlier, interrupted run."""
        self.close()
        self.stage.quietly("rm", "-f", SECOND)
        words = [*DOCKYARD, "compose", "-p", PROJECT, "down", "-v", "--remove-orphans", "-t", "1"]
        # By the labels alone: the files may be gone, or may never have been there.
        environ = {name: value for name, value in self.stage.environ.items() if name != "COMPOSE_FILE"}
        subprocess.run(words, env=environ, cwd=RUN, capture_output=True)
        for name in (PROJECT, "client"):
            shutil.rmtree(RUN / name, ignore_errors=True)


def main() -> int:
    say = Narrator(STEPS)
    began = time.monotonic()
    print("Dockyard, from nothing to NGINX > Node.js x 3 > Redis, through every trouble, and back.")
    print("Two to four minutes the first time; Ctrl-C ends it and takes it all away.")
    try:
        with Engine(say, ROOT, RUN) as engine:
            demo = Demo(say, engine)
            demo.clean()
            try:
                demo.play()
            finally:
                demo.clean()
    except KeyboardInterrupt:
        print("\ninterrupted; all that the demo made is taken away")
        return 130
    print(f"\nAll of it in {time.monotonic() - began:.0f} s. Now yours:\n{NEXT}")
    return 0
