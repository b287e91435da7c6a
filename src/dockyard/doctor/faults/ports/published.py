"""Published ports: who listens, where the packet is sent, what drops it, who holds the port."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockyard.doctor.facts import Listener, NetNs
from dockyard.doctor.finding import Evidence, Finding, Fix, Object, Severity
from dockyard.doctor.firewall import Packet, translate, walk
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import OUTSIDE, Container, Network, Published, View, when

START_GRACE = 10.0  # seconds a program may take until it listens
_LOOPBACK = "the program listens on loopback only"
_WRONG_PORT = "nothing listens on the published port"


def listening(net: NetNs, proto: str) -> list[Listener]:
    """Sockets of a container, without those of the engine's embedded resolver (127.0.0.11)."""
    return [item for item in net.listeners if item.proto.rstrip("6") == proto and item.address != "127.0.0.11"]


def _local(item: Listener) -> bool:
    return item.address.startswith("127.") or item.address in ("::1", "::ffff:127.0.0.1")


def not_listening(view: View) -> Iterator[Finding]:
    for container in view.running:
        net = view.net(container)
        if net is None or container.network_mode == "host":
            continue
        starting = view.facts.taken_at - when(container.state.get("StartedAt")) < START_GRACE
        for port in {item.port: item for item in container.published if item.proto == "tcp"}.values():
            sockets = listening(net, "tcp")
            right = [item for item in sockets if item.port == port.port]
            if right and not all(_local(item) for item in right):
                continue
            if right:
                yield _loopback(container, port, right)
            elif not starting or any(not _local(item) for item in sockets):
                yield _elsewhere(container, port, sockets)


def _loopback(container: Container, port: Published, right: list[Listener]) -> Finding:
    return finding(
        "PUB-04",
        _LOOPBACK,
        container.object,
        f"port {port.host_port} of the host answers with reset or refused; inside {container.name} it works",
        [
            Evidence(
                "process", f"listeners in {container.name}", f"{right[0].address}:{port.port}", f"0.0.0.0:{port.port}"
            ),
            Evidence("api", "NetworkSettings.Ports", f"{port.host_ip}:{port.host_port} to {port.port}/{port.proto}"),
        ],
        cause=["a container's 127.0.0.1 is its own: packets from the bridge arrive at its other address"],
        ruled_out={"PUB-05": "the port number is right"},
        affects=[container.id],
        fix=Fix("let the program listen on 0.0.0.0 in the container; the host side can stay on 127.0.0.1"),
        verify=f"dockyard trace outside {container.name}:{port.port}",
    )


def _elsewhere(container: Container, port: Published, sockets: list[Listener]) -> Finding:
    others = sorted({item.port for item in sockets if not _local(item)})
    seen = ", ".join(str(number) for number in others) or "none"
    return finding(
        "PUB-05",
        _WRONG_PORT,
        container.object,
        f"port {port.host_port} of the host is refused: nothing in {container.name} listens on {port.port}",
        [
            Evidence("process", f"listening TCP ports in {container.name}", seen, str(port.port)),
            Evidence("api", "NetworkSettings.Ports", f"{port.host_ip}:{port.host_port} to {port.port}/{port.proto}"),
        ],
        severity=Severity.FAULT if others else Severity.RISK,
        ruled_out={"PUB-04": "no listener on 127.0.0.1 either"},
        affects=[container.id],
        fix=Fix(
            f"publish what it listens on: -p {port.host_port}:{others[0]}"
            if others
            else "start the program in it, or give it more time"
        ),
        verify=f"dockyard trace outside {container.name}:{port.port}",
    )


def dropped(view: View) -> Iterator[Finding]:
    """Follow a packet from outside: translation, then the forward hook."""
    if not view.uplink or not view.uplink_address:
        return
    for network in view.bridges:
        for container in view.members(network):
            address = view.address(container, network)
            for port in container.published:
                if address and port.host_ip in ("0.0.0.0", "::", view.uplink_address):
                    found = _follow(view, container, network, port, address)
                    if found is not None:
                        yield found
                        break


def _follow(view: View, container: Container, network: Network, port: Published, address: str) -> Finding | None:
    packet = Packet(OUTSIDE, view.uplink_address, port.proto, dport=port.host_port, iif=view.uplink, local=True)
    found = translate(view.firewall, "prerouting", packet)
    if found is None or found[0].kind != "dnat":
        return None  # docker-proxy answers instead; NET-04 tells when the rules are gone
    target = found[0].target
    if target not in ("?", f"{address}:{port.port}"):
        if target.rpartition(":")[0] in {view.address(other, network) for other in view.members(network)}:
            return None  # the address is shared by a network the container has too
        return _stale(container, port, found[1].place, target, f"{address}:{port.port}")
    inner = packet.with_(destination=address, dport=port.port, oif=network.bridge, local=False, dnat=True)
    outcome = walk(view.firewall, "forward", inner)
    if outcome.kind not in ("drop", "reject"):
        return None
    hits = outcome.rule.packets if outcome.rule else None
    user = outcome.chain is not None and outcome.chain.name == "DOCKER-USER"
    return finding(
        "PUB-12",
        "a firewall drops connections to a published port",
        container.object,
        f"port {port.host_port} of the host times out from outside; from the host itself it works",
        [
            Evidence("nft", outcome.place, outcome.kind + (f", {hits} packets" if hits is not None else ""), "accept"),
            Evidence("nft", found[1].place, f"sends it to {target}" if target != "?" else "looks up where to in a map"),
        ],
        severity=Severity.RISK if user and not hits else Severity.FAULT,
        cause=["a rule in DOCKER-USER, which the engine leaves to you"] if user else [],
        ruled_out={"PUB-04": "not reached", "NET-04": "the translation is there"},
        affects=[container.id],
        fix=_let_in(
            outcome.chain.name if outcome.chain else "",
            outcome.chain.owner if outcome.chain else "",
            view,
            address,
            port,
        ),
        verify=f"dockyard trace outside {container.name}:{port.port}",
    )


def _let_in(chain: str, owner: str, view: View, address: str, port: Published) -> Fix:
    if owner == "nft" or not chain:
        return Fix(f"accept {port.proto} to {address}:{port.port} before that rule")
    tool = "iptables-legacy" if owner == "iptables-legacy" else "iptables"
    rule = f"{chain} -i {view.uplink} -d {address} -p {port.proto} --dport {port.port} -j ACCEPT"
    return Fix(
        "let this port in, nothing else",
        [f"{tool} -I {rule}"],
        [f"{tool} -D {rule}"],
        "everyone outside can reach the port",
        machine=True,
    )


def _stale(container: Container, port: Published, place: str, target: str, wanted: str) -> Finding:
    return finding(
        "PUB-14",
        "a published port is sent to a wrong address",
        container.object,
        f"port {port.host_port} of the host does not reach {container.name}",
        [Evidence("nft", place, target, wanted)],
        affects=[container.id],
        cause=["a rule of an earlier container was left behind and comes first"],
        fix=Fix("delete that rule, or restart the container", [f"docker restart {container.name}"]),
    )


_ALLOCATED = re.compile(r"Bind for (\S+):(\d+) failed: port is already allocated")
_IN_USE = re.compile(r"(?:listen (tcp|udp)4? (\S*?):(\d+): bind: address already in use|failed to bind .*?:(\d+))")


def taken(view: View) -> Iterator[Finding]:
    """Containers that did not start because their host port is held: by a container (PUB-01) or a process (PUB-02)."""
    for container in view.containers:
        allocated, in_use = _ALLOCATED.search(container.error), _IN_USE.search(container.error)
        if container.running or not (allocated or in_use):
            continue
        number = int(allocated[2]) if allocated else int((in_use and (in_use[3] or in_use[4])) or 0)
        holder = next((c for c in view.running if any(p.host_port == number for p in c.published)), None)
        said = Evidence("api", f"GET /containers/{container.name}/json State.Error", container.error[:250])
        if holder is not None:
            owner = Evidence("api", f"NetworkSettings.Ports of {holder.name}", f"holds {number}")
            yield _held("PUB-01", container, number, [said, owner], f"stop {holder.name}, or publish another host port")
        elif owners := _owners(view, number):
            if "docker-proxy" not in owners[0]:  # a stray proxy is found by orphan_proxies
                owner = Evidence("process", f"owner of port {number}", owners[0], "nobody")
                yield _held("PUB-02", container, number, [said, owner], "stop it, or publish another host port")
        elif allocated:
            seen = Evidence("api", "GET /containers/json", f"no container publishes {number}")
            yield _held(
                "PUB-03", container, number, [said, seen], "restart the engine: its record of the port is stale"
            )


def _owners(view: View, number: int) -> list[str]:
    return [owner for key, owner in view.facts.port_owners.items() if key.endswith(f"/{number}")]


_HELD = {
    "PUB-01": "another container holds the host port",
    "PUB-02": "a process of the host holds the port",
    "PUB-03": "a port is held although no container uses it",
}


def _held(rule: str, container: Container, number: int, evidence: list[Evidence], fix: str) -> Finding:
    return finding(
        rule,
        _HELD[rule],
        container.object,
        f"{container.name} does not start: host port {number} is taken",
        evidence,
        affects=[container.id],
        fix=Fix(fix),
        verify=f"docker start {container.name}",
    )


_PROXY = re.compile(r"-container-ip (\S+)")


def orphan_proxies(view: View) -> Iterator[Finding]:
    known = {endpoint.get("IPAddress") for c in view.running for endpoint in c.networks.values()}
    waiting = [c for c in view.containers if c.error and not c.running]
    for key, owner in view.facts.port_owners.items():
        match = _PROXY.search(owner)
        if "docker-proxy" not in owner or match is None or match[1] in known:
            continue
        number = key.rpartition("/")[2]
        pid = re.search(r"pid (\d+)", owner)
        yield finding(
            "PUB-03",
            _HELD["PUB-03"],
            Object("port", number),
            f"port {number} answers for a container that is gone; no other can publish it",
            [Evidence("process", f"owner of port {number}", owner, "a running container's address")],
            affects=[c.id for c in waiting if f":{number}" in c.error],
            fix=Fix("end that proxy", [f"kill {pid[1]}"] if pid else []),
            verify=f"ss -ltnp 'sport = :{number}'",
        )


def discarded(view: View) -> Iterator[Finding]:
    """Ports asked for by a container that has the host's network: nothing is published, the program's own port counts."""
    for container in view.containers:
        asked = container.host_config.get("PortBindings") or {}
        if container.network_mode != "host" or not asked:
            continue
        yield finding(
            "NET-27",
            "published ports are ignored in host network mode",
            container.object,
            f"nothing answers on the ports that {container.name} publishes, only on those its program opens",
            [
                Evidence("api", "HostConfig.NetworkMode", "host", "a network of its own"),
                Evidence("api", "HostConfig.PortBindings", ", ".join(sorted(asked)), "none"),
            ],
            severity=Severity.RISK,
            affects=[container.id],
            fix=Fix("drop --network host and keep -p, or drop -p and use the program's own port"),
        )


def past_the_firewall(view: View) -> Iterator[Finding]:
    """The host's own filter lets nothing in that it does not name, and a published port is reachable all the same."""
    if not view.uplink or not view.uplink_address:
        return
    for container in view.running:
        for port in container.published:
            if port.host_ip not in ("0.0.0.0", "::", view.uplink_address):
                continue
            packet = Packet(OUTSIDE, view.uplink_address, port.proto, dport=port.host_port, iif=view.uplink, local=True)
            found, meant = translate(view.firewall, "prerouting", packet), walk(view.firewall, "input", packet)
            if found is None or found[0].kind != "dnat" or meant.kind not in ("drop", "reject"):
                continue
            yield finding(
                "PUB-08",
                "a published port is open although the host's firewall is closed",
                container.object,
                f"port {port.host_port} of {container.name} answers everybody; the input filter never sees those packets",
                [
                    Evidence("nft", meant.place, meant.kind, "would close it"),
                    Evidence("nft", found[1].place, "translates the address before the input hook"),
                ],
                severity=Severity.RISK,
                cause=["the address is translated before the input hook: such packets are forwarded (ufw, firewalld: the same)"],
                affects=[container.id],
                fix=Fix(f"publish it on an address that is meant (-p 127.0.0.1:{port.host_port}:{port.port}), or filter in DOCKER-USER"),
                verify=f"dockyard trace outside {container.name}:{port.port}",
            )
            break


_REFUSED = (r"connection refused", r"connection reset", r"recv failure", r"empty reply")
RULES = (
    Rule(
        "PUB-04",
        _LOOPBACK,
        "Publishing forwards to the container's address on the bridge. A program that binds 127.0.0.1 inside does not "
        "listen there.",
        not_listening,
        ("containers", "nets"),
        lookalikes=("PUB-05", "CMP-01"),
        messages=_REFUSED,
        decides="/proc/PID/net/tcp: 0100007F in state 0A",
    ),
    Rule(
        "PUB-05",
        _WRONG_PORT,
        "The number right of the colon in -p must be the one the program listens on.",
        lookalikes=("PUB-04",),
        messages=_REFUSED,
        decides="listening sockets in the container",
    ),
    Rule(
        "PUB-12",
        "a firewall drops connections to a published port",
        "The packet is translated first and then passes the forward hook, where DOCKER-USER and other tables decide.",
        dropped,
        ("containers", "networks", "firewall", "host_net"),
        messages=(r"timed? ?out",),
        decides="counters of DOCKER-USER and of other tables",
    ),
    Rule(
        "PUB-08",
        "a published port is open although the host's firewall is closed",
        "Published ports are translated in prerouting and forwarded; a filter of the input hook (ufw) does not meet them.",
        past_the_firewall,
        ("containers", "firewall", "host_net"),
        severity=Severity.RISK,
        messages=(r"\bufw\b",),
        decides="the DNAT rule, and what the input chain would do with the same packet",
    ),
    Rule(
        "NET-27",
        "published ports are ignored in host network mode",
        "In the host's network there is nothing to translate: the program's port is the host's.",
        discarded,
        ("containers",),
        severity=Severity.RISK,
        messages=(r"published ports are discarded when using host network mode",),
        decides="HostConfig.NetworkMode and PortBindings",
    ),
    Rule(
        "PUB-14",
        "a published port is sent to a wrong address",
        "An older rule for the same port comes first.",
        messages=_REFUSED,
        decides="the first DNAT rule for the port",
    ),
    Rule(
        "PUB-01",
        _HELD["PUB-01"],
        "One host address and port can have one owner.",
        taken,
        ("containers",),
        lookalikes=("PUB-02", "PUB-03"),
        messages=(r"port is already allocated",),
        decides="whose bindings contain the port",
    ),
    Rule(
        "PUB-02",
        _HELD["PUB-02"],
        "The engine binds the port to keep it, and the bind failed.",
        lookalikes=("PUB-01",),
        messages=(r"address already in use", r"failed to bind host port"),
        decides="the process that owns the listening socket",
    ),
    Rule(
        "PUB-03",
        _HELD["PUB-03"],
        "A docker-proxy or a record outlived its container.",
        orphan_proxies,
        ("containers", "ports"),
        lookalikes=("PUB-01",),
        messages=(r"port is already allocated",),
        decides="the address that the proxy serves against the endpoints",
    ),
)
