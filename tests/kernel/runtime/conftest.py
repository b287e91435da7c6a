"""A throw-away host for containers: busybox rootfs, a runtime of its own, and a check that nothing is left."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dockyard.kernel import cgroup
from dockyard.model import new_id
from dockyard.runtime import HostFacts, Runtime, probe

BUSYBOX = shutil.which("busybox") or "/bin/busybox"

APPLETS = "sh cat ls sleep true false grep printf echo id env stty head dd seq kill hostname mount df readlink pwd"


def tree_state() -> dict[str, Any]:
    facts = cgroup.probe()
    groups = {path for tree in facts.trees() for path, _, _ in os.walk(f"{tree}/dockyard-test")}
    conmons = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as cmdline, open(f"/proc/{pid}/stat") as stat:
                if b"dockyard-test" in cmdline.read() or f") Z {os.getpid()} " in stat.read():
                    conmons.add(pid)
        except OSError:
            continue
    with open("/proc/self/mountinfo") as mounts:
        lines = {line for line in mounts if "dockyard-test" in line}
    fds = {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }
    return {"cgroups": groups, "processes": conmons, "mounts": lines, "fds": len(fds)}


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rootfs")
    root.chmod(0o755)
    for directory in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
        (root / directory).mkdir()
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in APPLETS.split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    return root


@pytest.fixture(scope="session")
def host_facts() -> HostFacts:
    return asyncio.run(probe())


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    before = tree_state()
    yield
    for _ in range(50):  # a conmon ends a moment after its container is gone, and is reaped on this loop
        if tree_state() == before:
            break
        await asyncio.sleep(0.1)
    assert tree_state() == before


@pytest.fixture
async def runtime(tmp_path: Path, host_facts: HostFacts, no_leaks: None) -> AsyncIterator[Runtime]:
    one = Runtime(host_facts, str(tmp_path / "dockyard-test-state"), sweep=0.2)
    yield one
    for container in one.ids():
        await one.delete(container, force=True)
    await one.close()
    for tree in host_facts.cgroup.trees():
        if os.path.isdir(f"{tree}/dockyard-test"):
            os.rmdir(f"{tree}/dockyard-test")


class Box:
    """Makes bundles with the smallest spec that runs."""

    def __init__(self, rootfs: Path, work: Path) -> None:
        self.rootfs, self.work = rootfs, work

    def spec(self, *argv: str, **process: Any) -> tuple[str, str, dict[str, Any]]:
        container = new_id()
        bundle = self.work / "dockyard-test" / container
        bundle.mkdir(parents=True)
        spec = {
            "ociVersion": "1.0.2",
            "root": {"path": str(self.rootfs), "readonly": True},
            "process": {
                "args": list(argv),
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "env": ["PATH=/bin"],
                **process,
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {
                    "destination": "/dev/pts",
                    "type": "devpts",
                    "source": "devpts",
                    "options": ["newinstance", "ptmxmode=0666"],
                },
            ],
            "linux": {
                "cgroupsPath": f"/dockyard-test/{container}",
                "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "network")],
                "resources": {"devices": [{"allow": True, "access": "rwm"}]},
            },
        }
        return container, str(bundle), spec


@pytest.fixture
def box(rootfs: Path, tmp_path: Path) -> Box:
    return Box(rootfs, tmp_path)
