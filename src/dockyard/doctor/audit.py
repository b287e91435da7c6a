"""The audit: each way out of a container, what it reaches, and the least privilege that would do. Pure.

Rows SEC-10 to SEC-15 of the catalogue, with the number of the CIS Docker Benchmark (1.6) recommendation.
"""

from __future__ import annotations

from collections.abc import Iterator

from dockyard.doctor.facts import Facts
from dockyard.doctor.faults.privileges.access import CAPABILITIES, DEFAULT, granted
from dockyard.doctor.finding import Evidence, Finding, Fix, Severity
from dockyard.doctor.rule import finding
from dockyard.doctor.view import Container, View

SOCKETS = (
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/dockyard",
)
SENSITIVE = (
    "/etc",
    "/boot",
    "/dev",
    "/lib/modules",
    "/proc",
    "/sys",
    "/usr",
    "/var/lib/docker",
    "/root",
    "/var/run",
    "/run",
)
# What a capability amounts to on the host (capabilities(7)).
DANGEROUS = {
    "SYS_ADMIN": "mount file systems, enter namespaces: root on the host in practice",
    "SYS_MODULE": "load kernel modules",
    "SYS_PTRACE": "read and write other processes (all of the host's with --pid host)",
    "DAC_READ_SEARCH": "read any file of mounted file systems by handle (open_by_handle_at)",
    "SYS_RAWIO": "read and write physical memory and disks",
    "NET_ADMIN": "change addresses, routes and filters of its network namespace",
    "BPF": "load BPF programs",
    "SYS_BOOT": "reboot the host",
    "SYS_TIME": "set the host's clock",
}


def audit(facts: Facts) -> Iterator[Finding]:
    view = View(facts)
    for container in view.containers:
        yield from _privileged(view, container)
        yield from _mounts(view, container)
        yield from _namespaces(view, container)
        yield from _confinement(view, container)


def _risk(rule: str, title: str, container: Container, symptom: str, seen: list[Evidence], fix: str) -> Finding:
    return finding(
        rule, title, container.object, symptom, seen, severity=Severity.RISK, affects=[container.id], fix=Fix(fix)
    )


def _privileged(view: View, container: Container) -> Iterator[Finding]:
    has = granted(view, container)
    if container.host_config.get("Privileged"):
        seen = [Evidence("api", "HostConfig.Privileged", "true", "false"),
                Evidence("process", "effective capabilities", f"{len(has)} of {len(CAPABILITIES)}", f"{len(DEFAULT)}")]  # fmt: skip
        yield _risk(
            "SEC-10",
            "a privileged container (CIS 5.5)",
            container,
            f"whoever controls {container.name} controls the host: all capabilities and devices, no filters",
            seen,
            _least(view, container),
        )
        return
    for name in sorted(has & DANGEROUS.keys() - DEFAULT):
        seen = [Evidence("process" if container.running else "api", "capabilities", name, "not granted")]
        yield _risk(
            "SEC-15",
            f"a dangerous capability: {name} (CIS 5.4)",
            container,
            f"{container.name} may {DANGEROUS[name]}",
            seen,
            f"drop it: --cap-drop {name}",
        )


def _least(view: View, container: Container) -> str:
    """What seems to be used of the privileges, by what the container shows."""
    command = " ".join(container.command).lower()
    devices = [str(device.get("PathOnHost")) for device in container.host_config.get("Devices") or []]
    hints = [f"--device {device}" for device in devices]
    words = {"dockerd": "a rootless image", "iptables": "--cap-add NET_ADMIN", "tcpdump": "--cap-add NET_RAW",
             "openvpn": "--cap-add NET_ADMIN --device /dev/net/tun", "wireguard": "--cap-add NET_ADMIN",
             "mount": "--cap-add SYS_ADMIN with a seccomp profile", "fuse": "--device /dev/fuse --cap-add SYS_ADMIN",
             "chrony": "--cap-add SYS_TIME", "ntpd": "--cap-add SYS_TIME"}  # fmt: skip
    hints += [hint for word, hint in words.items() if word in command]
    if hints:
        return f"instead of --privileged: {', '.join(dict.fromkeys(hints))}"
    return "start it without --privileged and add what the first refusal names (dockyard doctor tells: SEC-04)"


def _mounts(view: View, container: Container) -> Iterator[Finding]:
    for mount in container.mounts:
        source, writable = str(mount.get("Source", "")), bool(mount.get("RW", True))
        if mount.get("Type") != "bind":
            continue
        target = Evidence("api", f"Mounts {mount.get('Destination')}", f"{source} ({'rw' if writable else 'ro'})")
        socket = next((path for path in SOCKETS if source == path), "")
        if socket or (view.facts.engine.socket and source == view.facts.engine.socket.path):
            yield _risk(
                "SEC-11",
                "the engine's socket is mounted (CIS 5.32)",
                container,
                f"{container.name} can start a privileged container: it is root on the host (ro does not help)",
                [target],
                "give it a filtering proxy of the socket that allows only the calls it needs",
            )
        elif source == "/" or (
            writable and any(source == path or source.startswith(path + "/dev/") for path in SENSITIVE)
        ):
            yield _risk(
                "SEC-13",
                "a sensitive host directory is mounted (CIS 5.6)",
                container,
                f"{container.name} can {'change' if writable else 'read'} {source} of the host",
                [target],
                "mount only the file it needs, read-only",
            )


_MODES = {"PidMode": ("pid", "5.16", "see and signal every process"), "IpcMode": ("ipc", "5.17", "use shared memory"),
          "NetworkMode": ("net", "5.10", "use every interface and port"), "UTSMode": ("uts", "5.21", "change the host name"),
          "UsernsMode": ("user", "5.31", "be the host's root")}  # fmt: skip


def _namespaces(view: View, container: Container) -> Iterator[Finding]:
    process = view.process(container)
    host = view.facts.host_net.inode if view.facts.host_net else 0
    for key, (name, number, power) in _MODES.items():
        if container.host_config.get(key) != "host":
            continue
        seen = [Evidence("api", f"HostConfig.{key}", "host", "private")]
        if process is not None and name == "net":
            seen.append(
                Evidence("process", f"/proc/{process.pid}/ns/net", str(process.namespaces.get("net")), f"not {host}")
            )
        yield _risk(
            "SEC-12",
            f"it shares the host's {name} namespace (CIS {number})",
            container,
            f"{container.name} can {power} of the host",
            seen,
            f"leave out --{name} host; publish ports instead" if name == "net" else f"leave out --{name} host",
        )


def _confinement(view: View, container: Container) -> Iterator[Finding]:
    if container.host_config.get("Privileged"):
        return
    options = [str(option) for option in container.host_config.get("SecurityOpt") or []]
    off = [option for option in options if option.endswith(("unconfined", "label=disable", "label:disable"))]
    process = view.process(container)
    if not off and not (process is not None and process.seccomp == 0 and not options and _filters(view)):
        return
    seen = [Evidence("api", "HostConfig.SecurityOpt", ", ".join(off) or "none", "the defaults")]
    seen += [Evidence("process", "Seccomp", str(process.seccomp), "2")] if process is not None else []
    yield _risk(
        "SEC-14",
        "a confinement is switched off (CIS 5.1, 5.22)",
        container,
        f"{container.name} may use every system call or path",
        seen,
        "use the default profile, or one that adds the single call it needs",
    )


def _filters(view: View) -> bool:
    return any("seccomp" in str(option) for option in view.facts.engine.info.get("SecurityOptions") or [])
