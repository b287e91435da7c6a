"""A throw-away container host: everything that a case breaks lives in namespaces of its own.

::

    outside netns                     lab netns + mount namespace
    203.0.113.1/24  out0 ────────── up0  203.0.113.2/24, default via .1
      TCP 8000, DNS 53                dockerd (own data root, socket, exec root), docker0, br-*

The doctor runs outside of it, as on a real host: it finds the engine by the peer of its socket and looks in.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from dockyard.client import Client
from dockyard.errors import Conflict, DockyardError, NotFound

OUTSIDE, UPLINK = "203.0.113.1", "203.0.113.2"
START_TIMEOUT = 60.0
COMMAND_TIMEOUT = 20.0
APPLETS = [
    "sh",
    "sleep",
    "cat",
    "nc",
    "wget",
    "httpd",
    "echo",
    "ls",
    "id",
    "touch",
    "mkdir",
    "dd",
    "nslookup",
    "ping",
    "true",
    "false",
    "kill",
    "sysctl",
    "chown",
    "yes",
    "head",
    "ip",
    "tail",
    "env",
    "mount",
    "timeout",
    "ps",
]

IMAGE = "lab:latest"
ENGINES = {"dockerd": ["dockerd"], "dockyard": [sys.executable, "-m", "dockyard.cli", "engine"]}


class Lab:
    """One host with one engine, "dockerd" or "dockyard". `start` and `stop` in pairs; `reset` removes what a case made."""

    def __init__(self, root: Path, *, kind: str = "dockerd", flags: tuple[str, ...] = ()) -> None:
        self.root, self.kind, self.flags = root, kind, flags
        self.vars: dict[str, Any] = {}
        self.opened: dict[Path, int] = {}  # directories of the machine that a case let others through, and their modes
        self._children: list[subprocess.Popen[bytes]] = []
        self.holder = self.outside = 0
        self.engine: subprocess.Popen[bytes] | None = None
        self.cgroup = f"dockyard-lab-{os.getpid()}"

    # The host ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.outside = self._namespace("--net")
        self.holder = self._namespace("--net", "--mount", "--propagation", "private")
        run("ip", "link", "add", "up0", "netns", str(self.holder), "type", "veth", "peer", "out0", "netns",
            str(self.outside))  # fmt: skip
        enter(self.outside, "sh", "-c", f"ip link set lo up; ip addr add {OUTSIDE}/24 dev out0; ip link set out0 up")
        self.sh(f"ip link set lo up; ip addr add {UPLINK}/24 dev up0; ip link set up0 up; "
                f"ip route add default via {OUTSIDE}; "
                "sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1")  # fmt: skip
        server = self._child("nsenter", "-t", str(self.outside), "-n", sys.executable,
                             str(Path(__file__).with_name("outside.py")), OUTSIDE, stdout=subprocess.PIPE)  # fmt: skip
        assert server.stdout is not None
        with server.stdout:
            server.stdout.readline()
        for name, text in (("resolv.conf", f"nameserver {OUTSIDE}\n"), ("daemon.json", "{}")):
            (self.root / name).write_text(text)
        (self.root / "etc-docker").mkdir(exist_ok=True)
        self.sh(f"mount -t tmpfs none /run && mkdir -p /etc/docker && mount --bind {self.root}/etc-docker /etc/docker "
                f"&& mount --bind {self.root}/resolv.conf /etc/resolv.conf")  # fmt: skip
        self.start_engine()
        self.load_image()

    def _namespace(self, *kinds: str) -> int:
        return self._child("unshare", *kinds, "sleep", "infinity").pid

    def _child(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(command, **options)
        self._children.append(child)
        if command[0] == "unshare":  # wait until it has become the sleeper in its namespaces
            wait(lambda: Path(f"/proc/{child.pid}/comm").read_text().strip() == "sleep", START_TIMEOUT)
        return child

    def start_engine(self, *more: str) -> None:
        with (self.root / "engine.log").open("ab") as log:
            self.engine = subprocess.Popen(
                ["nsenter", "-t", str(self.holder), "-m", "-n", *ENGINES[self.kind],
                 "--data-root", f"{self.root}/data",
                 "--exec-root", f"{self.root}/exec", "-H", f"unix://{self.socket}", "-p", f"{self.root}/pid",
                 "--cgroup-parent", f"/{self.cgroup}", "--log-level", "warn", *self.flags, *more],
                stdout=log, stderr=log,
            )  # fmt: skip
        self.client = Client(f"unix://{self.socket}", timeout=COMMAND_TIMEOUT)
        wait(self._answers, START_TIMEOUT)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping(timeout=2).api_version)
        except DockyardError:
            return False

    def stop_engine(self) -> None:
        if self.engine is not None:
            self.client.close()
            self.engine.send_signal(signal.SIGTERM)
            try:
                self.engine.wait(20)
            except subprocess.TimeoutExpired:
                self.engine.kill()
                self.engine.wait(10)
            self.engine = None

    @property
    def socket(self) -> Path:
        return self.root / "docker.sock"

    def stop(self) -> None:
        """End everything this lab started and remove what it left on the machine."""
        try:
            if self.engine is not None:
                self.reset()
        finally:
            for place, mode in self.opened.items():
                place.chmod(mode)
            self.stop_engine()
            for child in reversed(self._children):
                child.kill()
                child.wait(10)
            for tree in Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}"):
                for directory in sorted(tree.rglob("*"), reverse=True):
                    if directory.is_dir():
                        directory.rmdir()
                tree.rmdir()
            shutil.rmtree(self.root, ignore_errors=True)

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run a shell line on the lab's host."""
        return enter(self.holder, "sh", "-c", script, mount=True, check=check)

    # What cases do with the engine ---------------------------------------------------------------------------------

    def load_image(self, name: str = IMAGE, files: dict[str, tuple[bytes, int]] | None = None, **query: str) -> None:
        repository, _, tag = name.partition(":")
        query = {"fromSrc": "-", "repo": repository, "tag": tag or "latest", **query}
        self.client.request("POST", "/images/create", query, rootfs(files or {}))

    def run(self, name: str, command: list[str] | None = None, *, start: bool = True, **spec: Any) -> str:
        """Create (and start) a container; ``spec`` is the create body, HostConfig included. Gives its id."""
        body = {"Image": IMAGE, "Cmd": ["sleep", "1000"] if command is None else command, **spec}
        key = str(self.client.request("POST", "/containers/create", {"name": name}, body)["Id"])
        if start:
            self.client.request("POST", f"/containers/{key}/start")
        return key

    def tries_to_start(self, name: str) -> bool:
        """Start a container; False, and the engine's words in ``vars["error"]``, when it does not come up."""
        try:
            self.client.request("POST", f"/containers/{name}/start")
        except DockyardError as error:
            self.vars["error"] = str(error)
            return False
        return True

    def serve(self, name: str, port: int, bind: str = "0.0.0.0", **host_config: Any) -> str:
        """A container with a web server on ``port``."""
        command = ["httpd", "-f", "-p", f"{bind}:{port}", "-h", "/"]
        return self.run(name, command, HostConfig=host_config)

    def exec(self, name: str, *command: str, seconds: float = 3.0) -> bool:
        """Run a command in a container; True if it ends with 0 in time."""
        words = ["timeout", str(seconds), *command]
        body = {"Cmd": words, "AttachStdout": True, "AttachStderr": True}
        key = self.client.request("POST", f"/containers/{name}/exec", body=body)["Id"]
        with self.client.hijack(f"/exec/{key}/start", body={"Detach": False}) as stream:
            stream.settimeout(COMMAND_TIMEOUT)
            self.vars["output"] = b"".join(frame.data for frame in stream.frames(tty=False)).decode("utf-8", "replace")
        return bool(self.client.request("GET", f"/exec/{key}/json")["ExitCode"] == 0)

    def fetches(self, name: str, address: str, port: int = 8000, size: int = 2, seconds: float = 2.0) -> bool:
        """Does a container get ``size`` bytes from the outside server (or one like it)?"""
        script = f"echo {size} | nc -w {int(seconds)} {address} {port} | head -c {size}"
        return self.exec(name, "sh", "-c", script, seconds=seconds) and self.vars["output"].startswith("x" * size)

    def uploads(self, name: str, address: str, size: int) -> bool:
        """Does a container get ``size`` bytes through to the outside server?"""
        script = f"(echo put {size}; head -c {size} /dev/zero) | nc -w 2 {address} 8000"
        return self.exec(name, "sh", "-c", script) and "done" in self.vars["output"]

    def connects(self, name: str, address: str, port: int) -> bool:
        return self.exec(name, "sh", "-c", f"nc -w 1 {address} {port} </dev/null", seconds=2)

    def outside_connects(self, port: int, address: str = UPLINK) -> bool:
        script = f"timeout 2 busybox wget -q -O /dev/null http://{address}:{port}/etc/passwd"
        return enter_ok(self.outside, "sh", "-c", script)

    def remove(self, name: str) -> None:
        try:
            self.client.request("DELETE", f"/containers/{name}", {"force": True, "v": True})
        except (NotFound, Conflict):
            return

    def network(self, name: str, **body: Any) -> str:
        return str(self.client.request("POST", "/networks/create", body={"Name": name, **body})["Id"])

    def inspect(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = self.client.request("GET", f"/containers/{name}/json")
        return document

    def wait_exit(self, name: str, seconds: float = 10.0) -> int:
        wait(lambda: self.inspect(name)["State"]["Status"] in ("exited", "dead", "created"), seconds)
        return int(self.inspect(name)["State"]["ExitCode"])

    def reset(self) -> None:
        """Remove containers, networks and volumes of cases, end their helpers; leave the engine and its images."""
        if (child := self.vars.pop("child", None)) is not None:
            child.kill()
            child.wait(10)
            child.stdout.close()
        for row in self.client.request("GET", "/containers/json", {"all": True}):
            self.remove(row["Id"])
        for row in self.client.request("GET", "/networks"):
            if row["Name"] not in ("bridge", "host", "none"):
                self.client.request("DELETE", f"/networks/{row['Id']}")
        for row in self.client.request("GET", "/volumes")["Volumes"] or []:
            self.client.request("DELETE", f"/volumes/{row['Name']}", {"force": True})
        self.vars.clear()


def rootfs(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar of busybox with its applets, a passwd file, and ``files`` by path: (content, mode)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "dev", "proc", "sys", "app"):
            _add(tar, name, b"", 0o1777 if name == "tmp" else 0o755, tarfile.DIRTYPE)
        busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
        files = {"bin/busybox": (busybox, 0o755), **files}
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n", 0o644)
        for path, (content, mode) in files.items():
            _add(tar, path.lstrip("/"), content, mode)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int, kind: bytes = tarfile.REGTYPE) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size = kind, mode, len(content)
    tar.addfile(entry, io.BytesIO(content))


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def enter(pid: int, *command: str, mount: bool = False, check: bool = True) -> str:
    return run("nsenter", "-t", str(pid), "-n", *(["-m"] if mount else []), *command, check=check)


def enter_ok(pid: int, *command: str) -> bool:
    full = ["nsenter", "-t", str(pid), "-n", *command]
    return subprocess.run(full, capture_output=True, timeout=COMMAND_TIMEOUT, check=False).returncode == 0


def wait(condition: Any, seconds: float) -> None:
    """Poll ``condition`` until it holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while True:
        if condition():
            return
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)
