"""docker build on Dockyard, Debian's dockerd (its own builder) and podman, side by side (root).

    python -m bench.build [CASE ...] [--engines LIST] [--files 20000] [--buildx PROGRAM]

Each engine is private (data root, socket, net and mount namespace) and is driven by the same docker CLI with
DOCKER_BUILDKIT=0, or by buildx through BuildKit's door (dockerd has BuildKit behind it, podman no such door). A row tells
the best of a few runs and how many times as long the others took. Engines take turns within a case, so that a busy host
is equally busy for all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dockyard.testing import kit
from dockyard.testing.engines import KINDS, PrivateEngine, private_engine

LIMIT = 900
BUILDX = ""
"""The program, where builds go through BuildKit's door."""
Case = Callable[[PrivateEngine, Path], float]


def build(engine: PrivateEngine, context: Path, *flags: str) -> float:
    """Seconds of one ``docker build``."""
    start = [BUILDX] if BUILDX else ["docker"]
    command = [*start, "build", "-q", *flags, str(context)]
    environ = os.environ | {"DOCKER_BUILDKIT": "0", "DOCKER_HOST": engine.host}
    began = time.perf_counter()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LIMIT)
    spent = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{engine.kind}: {done.stderr[-2000:]}")
    return spent


def dockerfile(context: Path, text: str) -> None:
    context.mkdir(parents=True, exist_ok=True)
    (context / "Dockerfile").write_text(text)


def noop(engine: PrivateEngine, work: Path) -> float:
    context = work / "noop"
    if not context.exists():
        dockerfile(context, "FROM busybox\n" + "".join(f"RUN echo {n} > /f{n}\n" for n in range(19)))
    marker = work / f"noop-{engine.kind}"
    if not marker.exists():
        build(engine, context)
        marker.touch()
    return min(build(engine, context) for _ in range(5))


def run_overhead(engine: PrivateEngine, work: Path) -> float:
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

    def cold(self, engine: PrivateEngine, work: Path) -> float:
        return build(engine, self.make(work), "--no-cache")

    def touched(self, engine: PrivateEngine, work: Path) -> float:
        """Only the time stamp of one file changed."""
        context = self.make(work)
        build(engine, context)
        os.utime(context / "d0/f0.txt")
        return build(engine, context)


def stages(engine: PrivateEngine, work: Path) -> float:
    context = work / "stages"
    text = "".join(f"FROM busybox AS s{n}\nRUN sleep 0.5; echo {n} > /{n}\n" for n in range(9))
    dockerfile(context, text + "FROM busybox\n" + "".join(f"COPY --from=s{n} /{n} /{n}\n" for n in range(9)))
    return build(engine, context, "--no-cache")


def cases(files: int) -> dict[str, tuple[str, Case, int]]:
    some = Files(files)
    return {
        "noop": ("no-op rebuild of 20 steps", noop, 3),
        "run": ("a RUN that does nothing", run_overhead, 3),
        "copy": (f"COPY of {files} files, cold", some.cold, 2),
        "touch": (f"COPY of {files} files, one touched", some.touched, 2),
        "stages": ("10 stages, each half a second", stages, 2),
    }


@contextlib.contextmanager
def engines(kinds: list[str], work: Path) -> Iterator[list[PrivateEngine]]:
    archive = kit.archive(work / "images.tar")
    with contextlib.ExitStack() as stack:
        made = []
        for kind in kinds:
            engine = stack.enter_context(private_engine(kind, work / kind))
            with archive.open("rb") as images:
                subprocess.run(["docker", "-H", engine.host, "load"], stdin=images, check=True, capture_output=True)
            if kind == "podman":
                engine.docker("tag", "docker.io/library/busybox:latest", "localhost/busybox:latest")
            made.append(engine)
        yield made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="noop, run, copy, touch, stages; all by default")
    parser.add_argument("--engines", default=",".join(KINDS))
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--buildx", default="", metavar="PROGRAM", help="build through BuildKit's door with this buildx")
    wish = parser.parse_args()
    global BUILDX
    BUILDX = wish.buildx
    known = cases(wish.files)
    work = Path(tempfile.mkdtemp(prefix="dockyard-bench-", dir="/var/tmp"))
    try:
        kinds = [kind for kind in wish.engines.split(",") if not BUILDX or kind != "podman"]
        with engines(kinds, work) as made:
            print(f"{'':38}" + "".join(f"{engine.kind:>20}" for engine in made))
            for name in wish.cases or known:
                title, case, repeat = known[name]
                best = {engine.kind: float("inf") for engine in made}
                for _ in range(repeat):
                    for engine in made:
                        best[engine.kind] = min(best[engine.kind], case(engine, work))
                own = best.get("dockyard", float("nan"))
                row = "".join(f"{spent * 1000:>11.0f} ms {spent / own:>4.1f}x" for spent in best.values())
                print(f"{title:38}{row}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
