"""EACCES and EPERM: owner and mode, capabilities, read-only /proc/sys, seccomp."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from dockyard.doctor.facts import FileFact
from dockyard.doctor.finding import Confidence, Evidence, Finding, Fix
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import Container, View

_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple(_NAMES.split())  # in the order of their bits, linux/capability.h
_GRANTED = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID"
_GRANTED_TOO = "SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
DEFAULT = {*_GRANTED.split(), *_GRANTED_TOO.split()}
# What a line of a log says was refused, and the capability that its system call asks for (capabilities(7)).
NEEDS = (
    (r"ping|raw socket|SOCK_RAW|arping|tcpdump|traceroute", "NET_RAW"),
    (r"chown|changing ownership", "CHOWN"),
    (r"chmod|utime", "FOWNER"),
    (r"\bip6?tables|nft\b|\bip: |RTNETLINK|ifconfig|TUNSETIFF|/dev/net/tun", "NET_ADMIN"),
    (r"mount|unshare|setns|pivot_root|swapon|sethostname", "SYS_ADMIN"),
    (r"setuid|su: |sudo|initgroups|setresuid|set user", "SETUID"),
    (r"setgid|setgroups", "SETGID"),
    (r"ptrace|strace|gdb", "SYS_PTRACE"),
    (r"settimeofday|clock_settime|date: |ntpd|chrony", "SYS_TIME"),
    (r"mknod", "MKNOD"),
    (r"chroot", "SYS_CHROOT"),
    (r"bind.*(port )?:?(\d{1,3}|10[01]\d|102[0-3])\b", "NET_BIND_SERVICE"),
)


def granted(view: View, container: Container) -> set[str]:
    """Capabilities of the container: of its process when it runs, else by its settings."""
    process = view.process(container)
    if process is not None and process.uid == 0:
        return {name for bit, name in enumerate(CAPABILITIES) if process.capabilities >> bit & 1}
    if container.host_config.get("Privileged"):
        return set(CAPABILITIES)
    add = {str(name).removeprefix("CAP_").upper() for name in container.host_config.get("CapAdd") or []}
    drop = {str(name).removeprefix("CAP_").upper() for name in container.host_config.get("CapDrop") or []}
    base = set() if "ALL" in drop else DEFAULT - drop
    return set(CAPABILITIES) if "ALL" in add else base | add


def missing_capability(view: View) -> Iterator[Finding]:
    for container in view.containers:
        line = view.log_line(container, r"operation not permitted|permission denied \(are you root|must be root")
        if not line:
            continue
        has = granted(view, container)
        wanted = next(
            (name for pattern, name in NEEDS if re.search(pattern, line, re.IGNORECASE) and name not in has), ""
        )
        if not wanted:
            continue
        privileged = "never --privileged for this"
        yield finding(
            "SEC-04",
            f"a capability is missing: {wanted}",
            container.object,
            f'{container.name} gets "Operation not permitted"',
            [
                Evidence("log", f"docker logs {container.name}", line),
                Evidence("process", "effective capabilities", ", ".join(sorted(has)) or "none", wanted),
            ],
            confidence=Confidence.LIKELY,
            ruled_out={"SEC-07": "a refused system call would fail with every capability too"},
            affects=[container.id],
            fix=Fix(f"create it again with --cap-add {wanted}, if it must do this ({privileged})"),
            verify=f"docker inspect -f '{{{{.HostConfig.CapAdd}}}}' {container.name}",
        )


def read_only_sysctl(view: View) -> Iterator[Finding]:
    for container in view.containers:
        line = view.log_line(container, r"sysctl.*read-only file system|/proc/sys/\S*.*read-only")
        error = container.error if "is not in a separate kernel namespace" in container.error else ""
        if not line and not error:
            continue
        knob = re.search(r"((?:net|kernel|vm|fs)[./][\w./]+)", line or error)
        name = knob[1].replace("/", ".") if knob else "it"
        own = name.startswith(("net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue"))
        yield finding(
            "SEC-09",
            "a kernel setting is read-only in the container",
            container.object,
            f"{container.name} cannot set {name}",
            [Evidence("log", f"docker logs {container.name}", line) if line else Evidence("api", "State.Error", error)],
            cause=[
                f"{name} is {'of its own network or IPC namespace' if own else 'the one of the host, shared by all'}"
            ],
            affects=[container.id],
            fix=Fix(f"create it again with --sysctl {name}=VALUE" if own else f"set {name} on the host"),
        )


def refused_path(view: View) -> Iterator[Finding]:
    """A log line says "permission denied" for a path below a mount, and owner and mode of that path agree."""
    for container in view.containers:
        line = view.log_line(container, r"permission denied")
        user = _user(view, container)
        if not line or user is None or user[0] == 0:
            continue
        for mount in container.mounts:
            target, source = str(mount.get("Destination", "")), str(mount.get("Source", ""))
            if not target or target not in line:
                continue
            first = _first_refusing(view, source, user)
            if first is None:
                continue
            uid = user[0]
            yield finding(
                "SEC-01",
                "owner and mode of a mount refuse the container's user",
                container.object,
                f"{container.name} may not use {target}",
                [
                    Evidence("log", f"docker logs {container.name}", line),
                    Evidence(
                        "file", first.path, f"uid {first.uid} gid {first.gid} mode {first.mode:04o}", f"uid {uid}"
                    ),
                    Evidence("process", "user of the container", f"uid {uid} gid {user[1]}"),
                ],
                ruled_out={"SEC-02": "no SELinux policy is needed to explain it"},
                affects=[container.id],
                fix=Fix(
                    f"give the directory to that user: chown -R {uid}:{user[1]} {source}",
                    [f"chown {uid}:{user[1]} {first.path}"],
                    [f"chown {first.uid}:{first.gid} {first.path}"],
                    "the host's user of that number owns it too",
                    machine=first.path == source,
                ),
                verify=f"docker start {container.name}",
            )
            break


def _user(view: View, container: Container) -> tuple[int, int, list[int]] | None:
    process = view.process(container)
    if process is not None:
        return process.uid, process.gid, process.groups
    user, _, group = str(container.config.get("User") or "0").partition(":")
    if not user.isdigit() or (group and not group.isdigit()):
        return None
    return int(user), int(group or 0), []


def _first_refusing(view: View, source: str, user: tuple[int, int, list[int]]) -> FileFact | None:
    """The first part of the path without search (or, at its end, write) permission. Parts above the mount do not count:
    the container enters at the mount point."""
    fact = view.facts.files.get(f"host:{source}")
    if fact is None or fact.error or user[0] == 0:
        return None
    wanted = 3 if fact.kind == "dir" else 4
    shift = 6 if fact.uid == user[0] else 3 if fact.gid in (user[1], *user[2]) else 0
    return fact if (fact.mode >> shift) & wanted != wanted else None


def own_profile(view: View) -> Iterator[Finding]:
    """A profile of one's own, and a call refused that every capability it needs is there for."""
    for container in view.containers:
        options = [str(item) for item in container.host_config.get("SecurityOpt") or []]
        own = next((item for item in options if item.startswith("seccomp=") and "unconfined" not in item), "")
        line = view.log_line(container, r"operation not permitted")
        if not own or not line:
            continue
        has = granted(view, container)
        if any(re.search(pattern, line, re.IGNORECASE) and name not in has for pattern, name in NEEDS):
            continue  # SEC-04 explains it
        yield finding(
            "SEC-07",
            "the seccomp profile refuses a system call",
            container.object,
            f'{container.name} gets "Operation not permitted" although it has the capability',
            [
                Evidence("log", f"docker logs {container.name}", line),
                Evidence("api", "HostConfig.SecurityOpt", _short(own), "the default profile"),
            ],
            confidence=Confidence.LIKELY,
            ruled_out={"SEC-04": "the capability that such a call needs is there"},
            affects=[container.id],
            fix=Fix("add the call to the profile, or leave the profile out (never seccomp=unconfined for this)"),
            verify=f"docker start {container.name}",
        )


def _short(option: str) -> str:
    return option if len(option) <= 60 else option[:57] + "..."


def old_seccomp(view: View) -> Iterator[Finding]:
    for container in view.containers:
        line = view.log_line(
            container, r"getaddrinfo\(\) thread failed to start|clone3.*not permitted|pthread_create.*not perm"
        )
        process = view.process(container)
        if not line or (process is not None and process.seccomp != 2):
            continue
        yield finding(
            "SEC-07",
            "the seccomp profile refuses a new system call",
            container.object,
            f"programs in {container.name} fail in odd places",
            [
                Evidence("log", f"docker logs {container.name}", line),
                Evidence("process", "Seccomp", "2 (filter)" if process else "default profile"),
            ],
            confidence=Confidence.LIKELY,
            ruled_out={"DNS-03": "queries by packet would work: it is the thread that cannot start"},
            affects=[container.id],
            fix=Fix("upgrade engine, runc and libseccomp: old profiles answer EPERM where ENOSYS lets libc fall back"),
        )


RULES = (
    Rule(
        "SEC-01",
        "owner and mode of a mount refuse the container's user",
        "A bind keeps the host's numbers; the container's user is a number too.",
        refused_path,
        ("containers", "files", "logs"),
        causes=("CTR-16", "CMP-10", "CTR-17"),
        lookalikes=("SEC-02", "CTR-02"),
        messages=(r"permission denied",),
        decides="uid, gid and mode of the first refusing path part",
    ),
    Rule(
        "SEC-04",
        "a capability is missing",
        "Root in a container has 14 of 41 capabilities.",
        missing_capability,
        ("containers", "logs"),
        causes=("CTR-16", "CMP-10"),
        lookalikes=("SEC-07",),
        messages=(r"operation not permitted",),
        decides="CapEff of the process against the refused system call",
    ),
    Rule(
        "SEC-07",
        "the seccomp profile refuses a new system call",
        "clone3 on old engines is the usual one.",
        lambda view: chain(old_seccomp(view), own_profile(view)),
        ("containers", "logs"),
        causes=("CTR-16",),
        lookalikes=("SEC-04", "DNS-03"),
        messages=(r"operation not permitted", r"thread failed to start"),
        decides="works with seccomp=unconfined?",
    ),
    Rule(
        "SEC-09",
        "a kernel setting is read-only in the container",
        "/proc/sys is mounted read-only.",
        read_only_sysctl,
        ("containers", "logs"),
        causes=("CTR-16", "CMP-10"),
        messages=(r"sysctl.*read-only", r"separate kernel namespace"),
        decides="is the knob namespaced?",
    ),
)
