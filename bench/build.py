"""docker build on Dockyard, Debian's dockerd (its own builder) and podman, side by side (root).

    python -m bench.build [CASE ...] [--engines LIST] [--files 20000] [--rounds N] [--buildx PROGRAM]

Each engine is private (data root, socket, net and mount namespace) and is driven by the same docker CLI with
DOCKER_BUILDKIT=0, or by buildx through BuildKit's door (dockerd has BuildKit behind it, podman no such door). A row tells
the median of a few runs (the best in brackets) and how many times as long the others took; the load is told with it.
Engines take turns within a case, so that a busy host is equally busy for all.

`cli` is no engine: a socket that takes the context and answers at once, which is what the command line takes by itself.
Cases with `own` go through `dockyard build`, those with `sync` through BuildKit's door with the client in Python that the
tests have, which sends only what changed, as buildx does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dockyard.testing import buildkit, kit
from dockyard.testing.engines import KINDS, private_engine

LIMIT = 900
BUILDX = ""
"""The program, where builds go through BuildKit's door."""
OWN = f"{sys.prefix}/bin/dockyard"
ALONE = "cli"


class Engine(Protocol):
    """What a case asks of an engine; a private one, or the socket that builds nothing."""

    @property
    def kind(self) -> str: ...

    @property
    def host(self) -> str: ...


Case = Callable[[Engine, Path], float]


def build(engine: Engine, context: Path, *flags: str, program: str = "") -> float:
    """Seconds of one ``docker build``."""
    command = [program or BUILDX or "docker", "build", "-q", *flags, str(context)]
    environ = os.environ | {"DOCKER_BUILDKIT": "0", "DOCKER_HOST": engine.host}
    began = time.perf_counter()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LIMIT)
    spent = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{engine.kind}: {done.stderr[-2000:]}")
    return spent


def synced(engine: Engine, context: Path) -> float:
    """Seconds of one build through BuildKit's door, each with a session of its own, as buildx has it."""

    async def work() -> None:
        async with buildkit.connected(engine.host.removeprefix("unix://"), context) as client:
            await client.build({}, [("moby", {})])

    began = time.perf_counter()
    asyncio.run(asyncio.wait_for(work(), LIMIT))
    return time.perf_counter() - began


@dataclass(frozen=True)
class Alone:
    """Takes contexts and throws them away."""

    path: Path
    kind: str = ALONE

    @property
    def host(self) -> str:
        return f"unix://{self.path}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[Alone]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.path))
            listener.listen()
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            yield self
            listener.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=_swallow, args=(listener.accept()[0],), daemon=True).start()


def _swallow(peer: socket.socket) -> None:
    with peer, peer.makefile("rb", buffering=1 << 20) as file:
        while line := file.readline():
            fields = list(iter(file.readline, b"\r\n"))
            if any(b"chunked" in field for field in fields):
                while size := int(file.readline(), 16):
                    file.read(size + 2)
                file.readline()
            body = b'{"stream":"sha256:%b\\n"}\n' % (b"0" * 64) if b"/build" in line else b"OK"
            head = b"HTTP/1.1 200 OK\r\nApi-Version: 1.43\r\nOstype: linux\r\nContent-Length: %d\r\n\r\n" % len(body)
            peer.sendall(head + (b"" if line.startswith(b"HEAD") else body))


def dockerfile(context: Path, text: str) -> None:
    context.mkdir(parents=True, exist_ok=True)
    (context / "Dockerfile").write_text(text)


def noop(engine: Engine, work: Path) -> float:
    context = work / "noop"
    if not context.exists():
        dockerfile(context, "FROM busybox\n" + "".join(f"RUN echo {n} > /f{n}\n" for n in range(19)))
    marker = work / f"noop-{engine.kind}"
    if not marker.exists():
        build(engine, context)
        marker.touch()
    return min(build(engine, context) for _ in range(5))


def run_overhead(engine: Engine, work: Path) -> float:
    """Seconds a RUN that does nothing."""
    context = work / "run"
    dockerfile(context, "FROM busybox\n" + "".join(f"RUN true {n}\n" for n in range(10)))
    return build(engine, context, "--no-cache") / 10


@dataclass
class Files:
    count: int

    def make(self, work: Path) -> Path:
        context = work / "files"
        if not context.exists():
            dockerfile(context, "FROM busybox\nCOPY . /app/\n")
            for number in range(self.count):
                folder = context / f"d{number // 200}"
                folder.mkdir(exist_ok=True)
                (folder / f"f{number}.txt").write_text(f"file {number}\n" * 8)
        return context

    def cold(self, engine: Engine, work: Path) -> float:
        return build(engine, self.make(work), "--no-cache")

    def touched(self, engine: Engine, work: Path) -> float:
        """Only the time stamp of one file changed."""
        return self._again(engine, work, build, edit=False)

    def edited(self, engine: Engine, work: Path) -> float:
        """One file's content changed: the layer is made anew."""
        return self._again(engine, work, build, edit=True)

    def touched_own(self, engine: Engine, work: Path) -> float:
        return self._again(engine, work, lambda one, context: build(one, context, program=OWN), edit=False)

    def touched_synced(self, engine: Engine, work: Path) -> float:
        return self._again(engine, work, synced, edit=False)

    def edited_synced(self, engine: Engine, work: Path) -> float:
        return self._again(engine, work, synced, edit=True)

    def _again(self, engine: Engine, work: Path, way: Callable[[Engine, Path], float], *, edit: bool) -> float:
        context = self.make(work)
        way(engine, context)
        file = context / "d0/f0.txt"
        if edit:
            file.write_text(f"{time.time_ns()}\n" * 8)
        else:
            os.utime(file)
        return way(engine, context)


def stages(engine: Engine, work: Path) -> float:
    context = work / "stages"
    text = "".join(f"FROM busybox AS s{n}\nRUN sleep 0.5; echo {n} > /{n}\n" for n in range(9))
    dockerfile(context, text + "FROM busybox\n" + "".join(f"COPY --from=s{n} /{n} /{n}\n" for n in range(9)))
    return build(engine, context, "--no-cache")


def cases(files: int) -> dict[str, tuple[str, Case, int, tuple[str, ...]]]:
    """(title, what is done, rounds, engines that have no such thing) by name."""
    some = Files(files)
    return {
        "noop": ("no-op rebuild of 20 steps", noop, 3, ()),
        "run": ("a RUN that does nothing", run_overhead, 3, (ALONE,)),
        "copy": (f"COPY of {files} files, cold", some.cold, 2, ()),
        "touch": (f"COPY of {files} files, one touched", some.touched, 2, ()),
        "edit": (f"COPY of {files} files, one edited", some.edited, 2, ()),
        "touch-own": (f"{files} files, one touched, dockyard build", some.touched_own, 2, ()),
        "touch-sync": (f"{files} files, one touched, DiffCopy", some.touched_synced, 2, ("podman", ALONE)),
        "edit-sync": (f"{files} files, one edited, DiffCopy", some.edited_synced, 2, ("podman", ALONE)),
        "stages": ("10 stages, each half a second", stages, 2, (ALONE,)),
    }


@contextlib.contextmanager
def engines(kinds: list[str], work: Path) -> Iterator[list[Engine]]:
    archive = kit.archive(work / "images.tar")
    with contextlib.ExitStack() as stack:
        made: list[Engine] = []
        for kind in kinds:
            if kind == ALONE:
                made.append(stack.enter_context(Alone(work / "cli.sock").serving()))
                continue
            engine = stack.enter_context(private_engine(kind, work / kind))
            with archive.open("rb") as images:
                subprocess.run(["docker", "-H", engine.host, "load"], stdin=images, check=True, capture_output=True)
            if kind == "podman":
                engine.docker("tag", "docker.io/library/busybox:latest", "localhost/busybox:latest")
            made.append(engine)
        yield made


def measure(case: Case, made: list[Engine], rounds: int, work: Path) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {engine.kind: [] for engine in made}
    for number in range(rounds):
        for step in range(len(made)):
            engine = made[(number + step) % len(made)]
            taken[engine.kind].append(case(engine, work))
    return taken


def row(title: str, taken: dict[str, list[float]]) -> str:
    own = statistics.median(taken.get("dockyard", [float("nan")]))
    cells = []
    for kind, values in taken.items():
        middle = statistics.median(values)
        cells.append(f"{kind} {middle * 1000:.0f} ms ({min(values) * 1000:.0f}) {middle / own:.1f}x")
    return f"{title}: {'  '.join(cells)}  [load {os.getloadavg()[0]:.1f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"{', '.join(cases(0))}; all by default")
    parser.add_argument("--engines", default=",".join((*KINDS, ALONE)))
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=0, help="instead of each case's own number")
    parser.add_argument("--buildx", default="", metavar="PROGRAM", help="build through BuildKit's door with this buildx")
    wish = parser.parse_args()
    global BUILDX
    BUILDX = wish.buildx
    known = cases(wish.files)
    work = Path(tempfile.mkdtemp(prefix="dockyard-bench-", dir="/var/tmp"))
    try:
        kinds = [kind for kind in wish.engines.split(",") if not BUILDX or kind not in ("podman", ALONE)]
        with engines(kinds, work) as made:
            for name in wish.cases or known:
                title, case, rounds, without = known[name]
                print(row(title, measure(case, [e for e in made if e.kind not in without], wish.rounds or rounds, work)), flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
