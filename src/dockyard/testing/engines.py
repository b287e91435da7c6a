"""Private engines side by side: Dockyard, Debian's dockerd and podman, each in its own net and mount namespace.

Everything an engine makes is below one directory and inside namespaces that end with it, so that a run can be killed at
any time: data root, sockets, bridges, rules, mounts. Containers that an engine leaves behind are ended by their cgroup.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

START_LIMIT = 60.0
"""Seconds until an engine must answer /_ping."""
STOP_LIMIT = 30.0
KINDS = ("dockyard", "dockerd", "podman")


@dataclass(frozen=True, slots=True)
class PrivateEngine:
    kind: str
    root: Path
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> Path:
        return self.root / "engine.sock"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def newest_api(self) -> str:
        return self.docker("version", "-f", "{{.Server.APIVersion}}").stdout.strip()

    @property
    def log(self) -> Path:
        return self.root / "engine.log"

    def inside(self, *command: str, cwd: Path = Path("/")) -> list[str]:
        """``command`` to be run in the engine's network and mount namespace (nsenter itself goes to /)."""
        change = ["sh", "-c", 'cd "$0" && exec "$@"', str(cwd)]
        return ["nsenter", "-t", str(self.process.pid), "-n", "-m", "--", *change, *command]

    def docker(self, *words: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", "-H", self.host, *words], capture_output=True, text=True, timeout=timeout)

    def pids(self) -> list[int]:
        """The engine's own processes (dockerd and its containerd, without shims)."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        own = [int(child) for child in children if _comm(int(child)) in ("containerd",)]
        return [self.process.pid, *own]


def command_of(kind: str, root: Path) -> list[str]:
    sock = f"unix://{root}/engine.sock"
    if kind == "dockerd":
        return [
            "dockerd", "--config-file", f"{root}/daemon.json", "--data-root", f"{root}/data", "--exec-root",
            f"{root}/run", "--pidfile", f"{root}/pid", "--cgroup-parent", f"/{root.name}", "-H", sock,
        ]  # fmt: skip
    if kind == "podman":
        return [
            "podman", "--root", f"{root}/data", "--runroot", f"{root}/run", "--tmpdir", f"{root}/tmp",
            "--cgroup-manager", "cgroupfs", "--network-config-dir", f"{root}/networks", "--events-backend", "file",
            "system", "service", "--time", "0", sock,
        ]  # fmt: skip
    return [
        sys.executable, "-m", "dockyard.cli", "engine", "--config-file", f"{root}/daemon.json", "--data-root",
        f"{root}/data", "--exec-root", f"{root}/run", "--pidfile", f"{root}/pid", "-H", sock,
    ]  # fmt: skip


@contextlib.contextmanager
def private_engine(
    kind: str, root: Path, *, namespaces: bool = True, settings: Mapping[str, Any] | None = None,
    local_names: Sequence[str] = (), environ: Mapping[str, str] | None = None, own_etc: str = "",
    before: str = "",
) -> Iterator[PrivateEngine]:  # fmt: skip
    """Start ``kind`` over ``root`` (removed at the end with all that is in it). ``settings``: keys of daemon.json;
    ``local_names``: host names that mean the namespace's own loopback; ``own_etc``: shell words that first change /etc,
    in a copy that only this engine sees; ``before``: shell words that its namespaces are made ready with (mounts)."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "daemon.json").write_text(json.dumps(dict(settings or {})))
    limits = [f"{name}={most}:{most}" for name, most in _hard_limits().items()]
    # podman raises these where it may not (no CAP_SYS_RESOURCE here), and then no container starts.
    # And its default runtime, crun, refuses hybrid cgroup hosts.
    (root / "containers.conf").write_text(
        f'[containers]\ndefault_ulimits = {json.dumps(limits)}\n[engine]\nruntime = "runc"\n'
    )
    for name in ("tmp", "run", "networks"):
        (root / name).mkdir(exist_ok=True)
    (root / "registries.conf").write_text('[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n')
    command = command_of(kind, root)
    if namespaces:
        (root / "hosts").write_text("127.0.0.1 localhost " + " ".join(local_names) + "\n")
        first = _own_etc(root, own_etc) if own_etc else ""
        first += f"{{ {before}; }} && " if before else ""
        script = f'ip link set lo up && {first}mount --bind {root}/hosts /etc/hosts && exec "$@"'
        command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]
    with (root / "engine.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {
                "CONTAINERS_CONF": f"{root}/containers.conf", "CONTAINERS_REGISTRIES_CONF": f"{root}/registries.conf"
            } | dict(environ or {}),
        )  # fmt: skip
    engine = PrivateEngine(kind, root, process)
    try:
        _await_ping(engine)
        yield engine
    finally:
        stop(engine)


def _own_etc(root: Path, change: str) -> str:
    """An overlay of /etc, in memory: the data root may lie on what cannot be an upper directory."""
    upper = f"{root}/etc"
    Path(upper).mkdir(exist_ok=True)
    return (
        f"mount -t tmpfs none {upper} && mkdir {upper}/upper {upper}/work && "
        f"mount -t overlay none -o lowerdir=/etc,upperdir={upper}/upper,workdir={upper}/work /etc && {{ {change}; }} && "
    )


def killed_and_again(engine: PrivateEngine) -> PrivateEngine:
    """kill -9 and a new engine (Dockyard) in the same namespaces, which a container's conmon must hold meanwhile. What it
    is given back is the caller's to ``stop``."""
    engine.process.kill()
    engine.process.wait(STOP_LIMIT)
    holder = next(pid for pid in _processes_naming(str(engine.root)) if _comm(pid) == "conmon")
    command = ["nsenter", "-t", str(holder), "-n", "-m", "--", *command_of("dockyard", engine.root)]
    with engine.log.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    made = replace(engine, process=process)
    _await_ping(made)
    return made


def _hard_limits() -> dict[str, int]:
    kinds = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    hard = {name: resource.getrlimit(kind)[1] for name, kind in kinds.items()}
    most = int(Path("/proc/sys/kernel/pid_max").read_text())  # podman lowers its own NPROC to this
    return {"nofile": hard["nofile"], "nproc": most if hard["nproc"] == -1 else min(most, hard["nproc"])}


def _await_ping(engine: PrivateEngine) -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and engine.process.poll() is None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(2)
            sock.connect(str(engine.socket))
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            if b" 200 " in sock.recv(64):
                return
        time.sleep(0.05)  # a real process is starting; bounded by START_LIMIT
    tail = engine.log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{engine.kind} does not answer: {tail}")


def stop(engine: PrivateEngine) -> None:
    if engine.process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            listed = engine.docker("ps", "-aq", timeout=STOP_LIMIT).stdout.split()
            for start in range(0, len(listed), 50):
                engine.docker("rm", "-fv", *listed[start : start + 50], timeout=4 * STOP_LIMIT)
        engine.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            engine.process.wait(STOP_LIMIT)
    leftovers = _processes_naming(str(engine.root))
    for pid in leftovers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    engine.process.wait(STOP_LIMIT)
    _until(lambda: not _processes_naming(str(engine.root)), STOP_LIMIT)
    if engine.kind == "dockerd":
        _remove_groups(engine.root.name)
    shutil.rmtree(engine.root, ignore_errors=True)


def _remove_groups(name: str) -> None:
    """The empty cgroups that dockerd leaves below its --cgroup-parent; one that another engine still uses stays."""
    for group in (*Path("/sys/fs/cgroup").glob(f"*/{name}"), Path("/sys/fs/cgroup", name)):
        for below in (*sorted((item for item in group.rglob("*") if item.is_dir()), reverse=True), group):
            with contextlib.suppress(OSError):
                below.rmdir()


def _processes_naming(text: str) -> list[int]:
    """Processes whose command line holds the engine's private directory: daemon, shims, conmons."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(word.startswith((text.encode() + b"/", b"unix://" + text.encode())) for word in words[1:]):
                    found.append(int(entry.name))
    return found


def _until(condition: Callable[[], bool], limit: float) -> None:
    end = time.monotonic() + limit
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
