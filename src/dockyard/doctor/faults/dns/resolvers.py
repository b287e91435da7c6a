"""Name resolution: the resolver files on both sides of the container boundary."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from itertools import chain

from dockyard.doctor.faults.net.forwarding import nameservers
from dockyard.doctor.finding import Confidence, Evidence, Finding, Fix, Object, Severity
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import Container, View, when

EMBEDDED = "127.0.0.11"
_GOOGLE = {"8.8.8.8", "8.8.4.4"}
_LOOPBACK = "the resolver of the container is a loopback address"
_MESSAGES = (
    r"no such host",
    r"temporary failure in name resolution",
    r"could not resolve",
    r"bad address",
    r"server misbehaving",
    r"name or service not known",
)


def _resolver(view: View, container: Container) -> list[str]:
    net = view.net(container)
    return nameservers(net.resolv_conf) if net else []


def loopback(view: View) -> Iterator[Finding]:
    for container in view.running:
        net = view.net(container)
        servers = _resolver(view, container)
        dead = [server for server in servers if server.startswith("127.") and server != EMBEDDED]
        if net is None or container.network_mode == "host" or not dead or len(dead) < len(servers):
            continue
        if any(item.port == 53 for item in net.listeners):
            continue
        yield finding(
            "DNS-01",
            _LOOPBACK,
            container.object,
            f"no name resolves in {container.name}; on the host they do",
            [
                Evidence(
                    "file", f"/etc/resolv.conf of {container.name}", f"nameserver {dead[0]}", "an address off loopback"
                ),
                Evidence("process", f"listeners in {container.name}", "none on port 53", ""),
            ],
            cause=["the host's resolver listens on the host's loopback, which is not the container's"],
            ruled_out={"DNS-03": "queries never leave the container"},
            affects=[container.id],
            fix=Fix("set dns in daemon.json (or --dns) to a resolver that containers reach, and create it again"),
            verify=f"docker exec {container.name} cat /etc/resolv.conf",
        )


def fallback(view: View) -> Iterator[Finding]:
    """Engines before 28 put Google's resolvers where the host has only loopback ones."""
    host = nameservers(view.facts.host.resolv_conf)
    if not host or not all(server.startswith("127.") for server in host):
        return
    users = [c for c in view.running if _GOOGLE & set(_resolver(view, c)) and not c.host_config.get("Dns")]
    if users:
        yield finding(
            "DNS-01",
            "the engine replaced the host's loopback resolver by public ones",
            Object("host", "/etc/resolv.conf"),
            "internal names do not resolve in containers; nothing does where 8.8.8.8 is blocked",
            [
                Evidence("file", "/etc/resolv.conf", f"nameserver {host[0]} only", "a resolver off loopback"),
                Evidence("file", f"/etc/resolv.conf of {users[0].name}", ", ".join(_resolver(view, users[0]))),
            ],
            severity=Severity.RISK,
            confidence=Confidence.LIKELY,
            affects=[container.id for container in users],
            fix=Fix("set dns in daemon.json to your resolver"),
        )


def host_file(view: View) -> Iterator[Finding]:
    if view.facts.host.resolv_conf is not None:
        return
    link = view.facts.host.resolv_link
    modern = view.engine_version >= (28, 0)
    yield finding(
        "DNS-02",
        "the host's resolver file is missing",
        Object("host", "/etc/resolv.conf"),
        "containers get no name server" if modern else "containers use public name servers",
        [Evidence("file", "/etc/resolv.conf", f"dangling link to {link}" if link else "absent", "a readable file")],
        severity=Severity.FAULT,
        cause=["engines from 28 on have no default name servers"] if modern else [],
        fix=Fix(f"create {link or '/etc/resolv.conf'}, or point the link at a file that exists; restart containers"),
        verify="cat /etc/resolv.conf",
    )


def empty_file(view: View) -> Iterator[Finding]:
    for container in view.running:
        net = view.net(container)
        if net is None or net.resolv_conf is None or container.network_mode in ("host", "none"):
            continue
        modern = "NO EXTERNAL NAMESERVERS" in net.resolv_conf.upper()
        if _resolver(view, container) and not modern:
            continue
        if not container.networks or "nameserver" in net.resolv_conf:
            continue
        yield finding(
            "DNS-04",
            "the container has no name server",
            container.object,
            f"no name resolves in {container.name}",
            [Evidence("file", f"/etc/resolv.conf of {container.name}", "no nameserver line", "one at least")],
            affects=[container.id],
            fix=Fix("set dns in daemon.json, or write a resolver to the host's /etc/resolv.conf; restart it"),
        )


def stale(view: View) -> Iterator[Finding]:
    """Containers on the default bridge keep the copy of the host's file made at their start."""
    now = nameservers(view.facts.host.resolv_conf)
    if not now or all(server.startswith("127.") for server in now):
        return
    for container in view.running:
        had = _resolver(view, container)
        if container.host_config.get("Dns") or EMBEDDED in had or not had or _GOOGLE & set(had):
            continue
        if container.network_mode in ("host", "none") or container.network_mode.startswith("container:"):
            continue
        if set(had) & set(now) or any(server.startswith("127.") for server in had):
            continue
        yield finding(
            "DNS-10",
            "the container's resolver file is older than the host's",
            container.object,
            f"names do not resolve in {container.name} since the host's resolver changed",
            [
                Evidence("file", f"/etc/resolv.conf of {container.name}", ", ".join(had), ", ".join(now)),
                Evidence("file", "/etc/resolv.conf", ", ".join(now)),
            ],
            confidence=Confidence.LIKELY,
            affects=[container.id],
            fix=Fix("restart it: the engine copies the file at each start", [f"docker restart {container.name}"]),
            verify=f"docker exec {container.name} cat /etc/resolv.conf",
        )


def default_bridge_names(view: View) -> Iterator[Finding]:
    """A container of the default bridge whose log shows that it looked for a neighbour by name."""
    names = {container.name for container in view.containers}
    for container in view.containers:
        if container.network_mode not in ("default", "bridge") or "bridge" not in container.networks:
            continue
        line = view.log_line(container, "|".join(_MESSAGES))
        wanted = next((name for name in sorted(names, key=len, reverse=True) if name and name in line), "")
        if not line or not wanted or wanted == container.name:
            continue
        yield finding(
            "DNS-05",
            "the default bridge has no name resolution",
            container.object,
            f"{container.name} cannot resolve {wanted}",
            [
                Evidence("log", f"docker logs {container.name}", line),
                Evidence("api", "HostConfig.NetworkMode", container.network_mode, "a network of your own"),
            ],
            affects=[container.id],
            fix=Fix(
                "put both on a network of their own",
                [
                    "docker network create app",
                    f"docker network connect app {container.name}",
                    f"docker network connect app {wanted}",
                ],
                [
                    "docker network disconnect app " + container.name,
                    "docker network disconnect app " + wanted,
                    "docker network rm app",
                ],
            ),
        )


_FAILED = re.compile(
    r"(?:connect\S* failed|can't connect|cannot connect|failed to connect|no route to host|unreachable|connection refused)", re.IGNORECASE
)
_ADDRESS = re.compile(r"\b(\d+\.\d+\.\d+\.\d+)\b")


def old_address(view: View) -> Iterator[Finding]:
    """Its last failure names an address of its network that no endpoint has, and one of its neighbours is younger than it."""
    for container in view.running:
        line = view.log_line(container, _FAILED.pattern)
        for network in (item for item in view.bridges if item.name in container.networks and line):
            held = {view.address(member, network) for member in view.members(network)} | {network.gateway}
            subnet = ipaddress.ip_network(network.subnets[0])
            lost = next((text for text in _ADDRESS.findall(line) if _inside(text, subnet) and text not in held), "")
            started = when(container.state.get("StartedAt"))
            younger = [item for item in view.members(network) if when(item.state.get("StartedAt")) > started]
            if not lost or not younger:
                continue
            names = ", ".join(sorted(item.name for item in younger))
            yield finding(
                "DNS-06",
                "a program keeps the address of a container that is gone",
                container.object,
                f"{container.name} connects to {lost}, which nobody has; {names} came after it had started",
                [
                    Evidence("log", f"docker logs {container.name}", line),
                    Evidence("api", f"GET /networks/{network.name} addresses", f"no endpoint has {lost}", "an endpoint"),
                ],
                affects=[container.id],
                ruled_out={"PUB-04": "no container has that address"},
                fix=Fix(
                    "restart it, so that it resolves the name again; for good: let it resolve at each request "
                    "(nginx: resolver 127.0.0.11 and a variable in proxy_pass)",
                    [f"docker restart {container.name}"],
                ),
                verify=f"docker logs --tail 5 {container.name}",
            )
            break


def _inside(text: str, subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(text) in subnet
    except ValueError:
        return False


RULES = (
    Rule(
        "DNS-01",
        _LOOPBACK,
        "127.0.0.1 in a container is the container. Resolvers of the host that listen on its "
        "loopback (dnsmasq, unbound, systemd-resolved's stub) are out of reach.",
        lambda view: chain(loopback(view), fallback(view)),
        ("containers", "nets", "host"),
        causes=("NET-00",),
        lookalikes=("DNS-03",),
        messages=_MESSAGES,
        decides="nameserver lines in the container",
    ),
    Rule(
        "DNS-06",
        "a program keeps the address of a container that is gone",
        "A proxy that resolves a name once, at its start, keeps the address; a container that is made again may get another.",
        old_address,
        ("containers", "networks", "logs"),
        causes=("CTR-16", "CTR-17"),
        lookalikes=("PUB-04", "CMP-01"),
        messages=(r"connect\(\) failed", r"502 bad gateway", r"no route to host", r"host is unreachable", r"connection refused"),
        decides="the address in the log against the endpoints of its networks",
    ),
    Rule(
        "DNS-02",
        "the host's resolver file is missing",
        "The engine copies it for the default bridge and forwards to its servers elsewhere.",
        host_file,
        ("host",),
        causes=("DNS-04", "DNS-05", "IMG-11"),
        messages=_MESSAGES,
        decides="lstat and readlink of /etc/resolv.conf",
    ),
    Rule(
        "DNS-04",
        "the container has no name server",
        "See DNS-02.",
        empty_file,
        ("containers", "nets"),
        messages=_MESSAGES,
        decides="nameserver lines in the container",
    ),
    Rule(
        "DNS-05",
        "the default bridge has no name resolution",
        "The embedded resolver 127.0.0.11 serves networks that you created, for compatibility not the default one.",
        default_bridge_names,
        ("containers", "logs"),
        causes=("CTR-16", "CMP-10"),
        messages=_MESSAGES,
        decides="is 127.0.0.11 in the container's resolv.conf?",
    ),
    Rule(
        "DNS-10",
        "the container's resolver file is older than the host's",
        "The copy is made at start.",
        stale,
        ("containers", "nets", "host"),
        messages=_MESSAGES,
        decides="both files compared",
    ),
)
