"""What the benchmarks of engines share: peers installed and started, taking turns, and figures with their ratios.

The machine is shared and noisy, so a number alone says little: every measurement is taken in rounds in which each engine
has its turn, the order rotates, and what is printed is the median of each with its ratio to ours.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dockyard.testing.engines import PrivateEngine, private_engine

PACKAGES = {"dockerd": "docker.io", "podman": "podman", "docker-registry": "docker-registry", "skopeo": "skopeo", "mkfs.xfs": "xfsprogs"}
OURS = "dockyard"
FALLBACK = "dockyard (extracting)"
"""Ours as it is on a kernel that cannot mount EROFS from a file."""
SCRATCH = Path(os.environ.get("DOCKYARD_BENCH_DIR", "/var/tmp/dockyard-bench"))
POLICY = Path("/usr/sbin/policy-rc.d")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def install(*programs: str) -> None:
    """Debian's packages of what is missing; services that they bring are not started."""
    missing = [PACKAGES[name] for name in programs if shutil.which(name) is None]
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    made = not POLICY.exists()
    if made:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
    finally:
        if made:
            POLICY.unlink()


@contextlib.contextmanager
def engines(kinds: Sequence[str], *, namespaces: bool = True) -> Iterator[dict[str, PrivateEngine]]:
    """All of ``kinds``, each in namespaces and below a directory of its own, removed at the end."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        running = {}
        for kind in kinds:
            root = SCRATCH / f"{'extracting' if kind == FALLBACK else kind}-{os.getpid()}"
            name, settings = (OURS, {"storage-opts": ["layers=extract"]}) if kind == FALLBACK else (kind, {})
            running[kind] = stack.enter_context(private_engine(name, root, namespaces=namespaces, settings=settings))
            say(f"{kind} is up")
        yield running


@contextlib.contextmanager
def on_xfs(gigabytes: int = 24) -> Iterator[None]:
    """SCRATCH on an XFS in a sparse file. ext4 passes over every inode that was deleted in the last minute (five while
    its block is dirty) when it makes a file, so an engine that extracts pays there for what another has removed."""
    install("mkfs.xfs")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    image = SCRATCH.with_suffix(".xfs")
    with image.open("wb") as file:
        file.truncate(gigabytes << 30)
    try:
        subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(SCRATCH)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", str(SCRATCH)], check=True)
    finally:
        image.unlink()


def docker(engine: PrivateEngine, *words: str, timeout: float = 300.0) -> float:
    """Seconds that one call of the docker CLI took. Raises RuntimeError with what it said."""
    begin = time.perf_counter()
    done = subprocess.run(["docker", "-H", engine.host, *words], capture_output=True, text=True, timeout=timeout)
    took = time.perf_counter() - begin
    if done.returncode != 0:
        raise RuntimeError(f"{engine.kind}: docker {' '.join(words)}: {done.stderr.strip()[-400:]}")
    return took


def rounds(count: int, kinds: Sequence[str], measure: Callable[[str], float]) -> dict[str, list[float]]:
    """``measure(kind)`` for each kind in each round; who begins changes, so that nobody always runs after the same."""
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(count):
        for step in range(len(kinds)):
            kind = kinds[(number + step) % len(kinds)]
            taken[kind].append(measure(kind))
    return taken


@dataclass
class Report:
    """Rows of one page. ``better`` says whether less or more is better; the ratio is always "times better than it"."""

    title: str
    kinds: Sequence[str]
    rows: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, what: str, unit: str, values: dict[str, float | None], *, goal: str = "", less: bool = True) -> None:
        ours = values.get(OURS)
        cells = []
        for kind in self.kinds:
            value = values.get(kind)
            text = "-" if value is None else f"{value:,.1f} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
            if kind != OURS and value and ours:
                text += f" ({(value / ours) if less else (ours / value):.1f} x)"
            cells.append(text)
        line = f"| {what} | {' | '.join(cells)} | {goal} |"
        self.rows.append(line)
        say(line)

    def times(self, what: str, taken: dict[str, list[float]], *, goal: str = "") -> None:
        """Seconds taken in rounds, told as medians in milliseconds (minimum beside it)."""
        self.row(what, "ms", {kind: statistics.median(values) * 1e3 for kind, values in taken.items() if values}, goal=goal)
        self.row(f"{what}, minimum", "ms", {kind: min(values) * 1e3 for kind, values in taken.items() if values})

    def note(self, text: str) -> None:
        self.notes.append(text)
        say(text)

    def text(self) -> str:
        head = f"| what | {' | '.join(self.kinds)} | goal |"
        rule = "|---|" + "---|" * (len(self.kinds) + 1)
        lines = [f"# {self.title}", "", machine(), "", head, rule, *self.rows]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        path.write_text(self.text())
        say(f"written: {path}")


def machine() -> str:
    """What the figures were taken on."""
    with open("/proc/cpuinfo") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "?")
    versions = [f"Python {platform.python_version()}"]
    for command in (["dockerd", "--version"], ["podman", "--version"], ["runc", "--version"], ["crun", "--version"],
                    ["conmon", "--version"], ["docker", "--version"]):  # fmt: skip
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
            versions.append(said[0].strip() if said else command[0])
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    release = os.uname().release.partition("-")[0]
    return (
        f"Machine: {os.cpu_count()} x {model}, Linux {release}, {'; '.join(versions)}. Load when this was written: {load}. "
        "Values are medians of interleaved rounds; in brackets: how many times ours is better."
    )


def pss(pids: Sequence[int]) -> float:
    """Proportional memory of the processes, in megabytes; one that has gone counts nothing."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total / 1024


def keepers(engine: PrivateEngine) -> list[int]:
    """Processes that an engine keeps for its containers (conmon, shims): they name its private directory."""
    own = set(engine.pids())
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in own:
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                name = (entry / "comm").read_text()
                if str(engine.root).encode() in words and name.startswith(("conmon", "containerd-shim")):
                    found.append(int(entry.name))
    return found
