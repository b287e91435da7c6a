"""What this host can do, found once at start: runtimes (by a trial), conmon, cgroups, capabilities, limits."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import platform
import re
import resource
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import msgspec

from dockyard.kernel import caps, cgroup, process
from dockyard.kernel import mount as kmount
from dockyard.runtime import errors
from dockyard.runtime.model import HostFacts, RuntimeFacts

PREFERENCE = ("crun", "runc")
"""crun first: a create costs a third of the processor time that runc takes, and an exec a fifth (ADR 204)."""
_HIDE = 'busybox mount --make-private "$0" && busybox umount "$1" && shift && exec "$@"'
_UNSHARE = ("unshare", "-m", "--propagation", "shared")
"""Leaves what is shared with the host shared with it; busybox 1.35 fails at ``unchanged``."""
INITS = ("docker-init", "tini-static", "catatonit")
"""Statically linked ones only: it runs inside images that have no libc, or another."""
TRIAL_LIMIT = 20.0
_APPARMOR = "/sys/kernel/security/apparmor/profiles"
_ARCHES = {
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "ppc64le": "ppc64le", "s390x": "s390x",
    "riscv64": "riscv64", "loongarch64": "loong64", "mips64": "mips64",
}  # fmt: skip


async def probe(prefer: str = "") -> HostFacts:
    """``prefer`` names a runtime or gives its path; others are used only if it does not work. Raises Unavailable."""
    cgroups = cgroup.probe()
    names = [prefer] if prefer else []
    names += [name for name in PREFERENCE if name != prefer]
    runtimes = tuple(await asyncio.gather(*(_try_runtime(name, cgroups) for name in names)))
    working = next((runtime for runtime in runtimes if runtime.works), None)
    if working is None:
        raise errors.NO_RUNTIME(reasons="; ".join(f"{runtime.name}: {runtime.reason}" for runtime in runtimes))
    conmon = _which("conmon")
    if not conmon:
        raise errors.NO_CONMON()
    version = await process.run([conmon, "--version"], timeout=TRIAL_LIMIT)
    release = os.uname().release
    match = re.match(r"(\d+)\.(\d+)", release)
    return HostFacts(
        runtime=working,
        runtimes=runtimes,
        conmon_path=conmon,
        conmon_version=_version(version.stdout),
        cgroup=cgroups,
        capabilities=caps.permitted(),
        kernel=(int(match[1]), int(match[2])) if match else (0, 0),
        kernel_release=release,
        arch=_ARCHES.get(platform.machine(), platform.machine()),
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        seccomp=os.path.exists("/proc/sys/kernel/seccomp/actions_avail"),
        apparmor=_read("/sys/module/apparmor/parameters/enabled").startswith("Y"),
        apparmor_default="docker-default" if "docker-default" in _read(_APPARMOR) else "",
        init_path=next((path for path in map(_which, INITS) if path), ""),
        rlimits=_rlimits(),
        thermal_throttle=tuple(sorted(glob.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle"))),
        boot_id=_read("/proc/sys/kernel/random/boot_id").strip(),
    )


def _which(name: str) -> str:
    return shutil.which(name, path=process.PATH) or ""


def _version(output: bytes) -> str:
    match = re.search(rb"version (\S+)", output)
    return match[1].decode() if match else ""


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path) as file:
        return file.read()
    return ""


def _rlimits() -> dict[str, tuple[int, int]]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"]
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


async def _try_runtime(name: str, cgroups: cgroup.Cgroups) -> RuntimeFacts:
    path = name if "/" in name else _which(name)
    if not path or not os.access(path, os.X_OK):
        return RuntimeFacts(os.path.basename(name), path, "", False, "not found")
    short = os.path.basename(path)
    version = _version((await process.run([path, "--version"], timeout=TRIAL_LIMIT)).stdout)
    before: tuple[str, ...] = ()
    reason = await _trial([path], cgroups)
    if reason and cgroups.layout == "hybrid":
        before = legacy_view(cgroups)
        reason = await _trial([*before, path], cgroups) if before else reason
    features = await _features(path) if not reason else ()
    return RuntimeFacts(short, path, version, not reason, reason, features, before)


def legacy_view(cgroups: cgroup.Cgroups) -> tuple[str, ...]:
    """Words that start a program where the v2 tree of a hybrid host is not mounted, so that it sees plain v1: crun 1.8
    refuses hybrid hosts, though it would need nothing of that tree. One program (busybox) does it all: 2 ms.

    All other mounts stay peers of the host's, or no bind could be rslave or rshared. Only what the tree is mounted in is
    made private, lest it disappeared from the host, too."""
    busybox, tree = _which("busybox"), cgroups.roots[""]
    rows = kmount.read_mounts()
    parents = [row.parent_id for row in rows if row.target == tree]
    around = next((row.target for row in rows if row.mount_id in parents), "")
    return (busybox, *_UNSHARE, busybox, "sh", "-c", _HIDE, around, tree) if busybox and around else ()


async def _trial(command: Sequence[str], cgroups: cgroup.Cgroups) -> str:
    """Why the runtime does not work here; "" if it does. It runs a container with nothing in it: the one right answer
    is that the program is missing; by then namespaces, cgroups and the root file system have been set up."""
    with tempfile.TemporaryDirectory(prefix="dockyard-probe-") as work:
        name = os.path.basename(work)
        for place in ("proc", "dev"):
            os.makedirs(f"{work}/rootfs/{place}")
        spec: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"args": ["/missing"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"cgroupsPath": f"/{name}", "namespaces": [{"type": "mount"}, {"type": "pid"}]},
        }
        with open(f"{work}/config.json", "wb") as config:
            config.write(msgspec.json.encode(spec))
        words = [*command, "--root", f"{work}/state", "run", "--bundle", work, name]
        try:
            done = await process.run(words, timeout=TRIAL_LIMIT)
        except TimeoutError:
            return f"no answer within {TRIAL_LIMIT:g} s"
        finally:
            with contextlib.suppress(OSError):
                cgroup.remove(cgroups, f"/{name}")
        message = done.stderr.decode(errors="replace").strip()
        return "" if "no such file" in message.lower() and "missing" in message else message or f"exit code {done.code}"


async def _features(path: str) -> tuple[str, ...]:
    """Mount options that the runtime knows (``features``, runc 1.1 and crun 1.12 on)."""
    done = await process.run([path, "features"], timeout=TRIAL_LIMIT)
    with contextlib.suppress(msgspec.DecodeError):
        found = msgspec.json.decode(done.stdout)
        if isinstance(found, dict):
            return tuple(found.get("mountOptions") or ())
    # crun mounts recursively read-only since 1.0, but says so only from 1.12 on.
    return ("rro",) if os.path.basename(path) == "crun" else ()
