"""Why packets of containers do not get out, although links and routes are in order: forwarding, filters, masquerade.

NET-01, NET-03, NET-04, NET-05 and DNS-03 show the same symptom (time out). They are told apart by walking a modelled
packet through the rule sets that were read: which hook loses it, and whose rule that is.
"""

from __future__ import annotations

from collections.abc import Iterator

from dockyard.doctor.finding import Evidence, Finding, Fix, Object, Severity
from dockyard.doctor.firewall import Outcome, Packet, translate, walk
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import Network, View, example

_TITLES = {
    "NET-01": "the kernel does not forward packets",
    "NET-03": "a firewall drops what containers send outside",
    "NET-04": "the engine's firewall rules are gone",
    "NET-05": "outgoing packets keep their private source address",
    "DNS-03": "DNS queries of containers are dropped",
    "NET-14": "traffic between containers of one network is filtered",
    "NET-23": "the host's firewall drops what containers send to it",
}
RESTART = "restart the engine, which writes its rules again (containers stop unless live-restore is on)"


def _wants_out(view: View) -> list[Network]:
    """Networks that must reach the outside: those in use, or all when none is."""
    found = [network for network in view.bridges if not network.internal]
    return [network for network in found if view.members(network)] or found


def _ids(view: View, network: Network) -> list[str]:
    return [network.id, *(container.id for container in view.members(network))]


def forwarding_off(view: View) -> Iterator[Finding]:
    net = view.facts.host_net
    if net is None or not _wants_out(view):
        return
    value = net.sysctls.get("net.ipv4.ip_forward")
    if value == "0":
        yield finding(
            "NET-01",
            _TITLES["NET-01"],
            Object("host", "net.ipv4.ip_forward"),
            "containers reach each other on one bridge, and nothing outside",
            [Evidence("sysctl", "net.ipv4.ip_forward", "0", "1")],
            cause=["something wrote 0 after the engine had started (sysctl --system, a hardening script)"],
            affects=[key for network in _wants_out(view) for key in _ids(view, network)],
            fix=Fix(
                "switch forwarding on",
                ["sysctl -w net.ipv4.ip_forward=1"],
                ["sysctl -w net.ipv4.ip_forward=0"],
                "the host routes between all its networks; keep FORWARD rules",
                machine=True,
            ),
            verify="sysctl net.ipv4.ip_forward",
        )
        return
    for network in _wants_out(view):
        name = f"net.ipv4.conf.{network.bridge}.forwarding"
        if net.sysctls.get(name) == "0":
            yield finding(
                "NET-01",
                _TITLES["NET-01"],
                network.object,
                f"containers on {network.name} reach nothing outside their network",
                [Evidence("sysctl", name, "0", "1")],
                affects=_ids(view, network),
                ruled_out={"NET-03": "not reached"},
                fix=Fix("switch it on for this bridge", [f"sysctl -w {name}=1"], [f"sysctl -w {name}=0"], machine=True),
                verify=f"sysctl {name}",
            )


def engine_rules_gone(view: View) -> Iterator[Finding]:
    if not (view.is_docker and view.manages_iptables) or not _wants_out(view):
        return
    chains = view.firewall.named("nat", "DOCKER")
    tables = {chain.table for chain in view.firewall.chains.values()}
    if chains or "docker-bridges" in tables:
        return
    published = [container for container in view.running if container.published]
    yield finding(
        "NET-04",
        _TITLES["NET-04"],
        Object("engine", "firewall rules"),
        "containers reach nothing outside; published ports are dead; new ports fail with "
        '"No chain/target/match by that name"',
        [
            Evidence(
                "nft", "iptables-save -t nat (both back ends)", "no chain DOCKER", "chain DOCKER, and jumps to it"
            ),
            Evidence("api", "GET /networks", f"{len(_wants_out(view))} networks need it", ""),
        ],
        cause=["the rules were flushed after the engine started (firewall reload, iptables -F, nft flush ruleset)"],
        affects=[key for network in _wants_out(view) for key in _ids(view, network)] + [c.id for c in published],
        fix=Fix(RESTART, ["systemctl restart docker"], risk="running containers stop unless live-restore is on"),
        verify="iptables-save -t nat | grep 'DOCKER'",
    )


def masquerade_missing(view: View) -> Iterator[Finding]:
    if not view.uplink or not view.manages_iptables:
        return
    for network in _wants_out(view):
        if not network.masquerade:
            continue
        packet = view.outbound(network, iif="")
        if translate(view.firewall, "postrouting", packet) is not None:
            continue
        subnet = network.subnets[0]
        command = f"iptables -t nat {{}} POSTROUTING -s {subnet} ! -o {network.bridge} -j MASQUERADE"
        yield finding(
            "NET-05",
            _TITLES["NET-05"],
            network.object,
            f"containers on {network.name} reach their gateway, not the internet; others see {subnet} as source",
            [
                Evidence(
                    "nft",
                    f"postrouting of {packet.source} to {packet.destination} out of {view.uplink}",
                    "no rule translates it",
                    f"masquerade for {subnet} ! -o {network.bridge}",
                )
            ],
            cause=["the masquerade rule of this network was deleted"],
            ruled_out={"NET-01": "forwarding is on"} if _forwards(view) else {},
            affects=_ids(view, network),
            fix=Fix("put the rule back", [command.format("-A")], [command.format("-D")], machine=True),
            verify="iptables-save -t nat | grep MASQUERADE",
        )


def _forwards(view: View) -> bool:
    return view.facts.host_net is not None and view.facts.host_net.sysctls.get("net.ipv4.ip_forward") == "1"


def forward_dropped(view: View) -> Iterator[Finding]:
    """New connections out, and the replies coming back, must both pass the forward hook."""
    if not view.uplink:
        return
    for network in _wants_out(view):
        packet = view.outbound(network)
        there = walk(view.firewall, "forward", packet)
        reply = Packet(packet.destination, packet.source, "tcp", 443, 40000, view.uplink, network.bridge, "established")
        back = walk(view.firewall, "forward", reply)
        for outcome, way, direction in ((there, packet, "out"), (back, reply, "back in")):
            if outcome.kind in ("drop", "reject"):
                yield _dropped("NET-03", view, network, outcome, way, direction)
                break


def _dropped(rule: str, view: View, network: Network, outcome: Outcome, packet: Packet, way: str) -> Finding:
    chosen = outcome.chain is not None and outcome.chain.name == "DOCKER-USER"
    hits = _hits(outcome)
    return finding(
        rule,
        _TITLES[rule],
        network.object,
        f"containers on {network.name}: packets {way} time out"
        if outcome.kind == "drop"
        else f"containers on {network.name}: packets {way} are refused",
        [
            Evidence(
                "nft",
                outcome.place,
                f"{outcome.kind}, {hits} packets so far" if hits is not None else outcome.kind,
                "accept",
            ),
            Evidence(
                "nft",
                f"forward hook for {packet.source} to {packet.destination} {packet.proto}/{packet.dport}",
                f"{packet.iif} to {packet.oif} ends there",
                "",
            ),
        ],
        severity=Severity.RISK if chosen and not hits else Severity.FAULT,
        cause=[
            "a rule in DOCKER-USER, which the engine leaves to you"
            if chosen
            else "a policy or rule that is not the engine's comes to the packet"
        ],
        ruled_out={"NET-01": "forwarding is on"} if _forwards(view) else {},
        affects=_ids(view, network),
        fix=_accept_fix(view, network, outcome),
        verify=f"iptables -vnL FORWARD | grep {network.bridge}",
    )


def _hits(outcome: Outcome) -> int | None:
    if outcome.rule is not None:
        return outcome.rule.packets
    return outcome.chain.policy_packets if outcome.chain else None


def _accept_fix(view: View, network: Network, outcome: Outcome) -> Fix:
    """The narrowest rule that lets this network out, in the chain that the engine leaves to the administrator."""
    if outcome.chain is not None and outcome.chain.name == "DOCKER-USER" and outcome.rule is not None:
        text = outcome.rule.text
        return Fix(
            "remove that rule if it was not meant",
            [f"iptables {text.replace('-A', '-D', 1)}"],
            [f"iptables {text.replace('-A', '-I', 1)}"],
            "it may be there on purpose",
        )
    if outcome.chain is not None and outcome.chain.owner == "nft":
        handle = f" handle {outcome.rule.handle}" if outcome.rule else ""
        return Fix(
            f"let {network.bridge} pass in that table before the drop",
            [
                f"nft insert rule {outcome.chain.family} {outcome.chain.table} {outcome.chain.name} "
                f'iifname "{network.bridge}" accept',
                f"nft insert rule {outcome.chain.family} {outcome.chain.table} {outcome.chain.name} "
                f'oifname "{network.bridge}" ct state established,related accept',
            ],
            risk=f"the drop{handle} stays for everything else",
        )
    if outcome.rule is not None and outcome.chain is not None:
        chain = outcome.chain.name  # above the rule that drops
    else:
        chain = "DOCKER-USER" if view.firewall.named("filter", "DOCKER-USER") else "FORWARD"
    out = f"{chain} -i {network.bridge} -o {view.uplink} -j ACCEPT"
    back = f"{chain} -i {view.uplink} -o {network.bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    return Fix(
        "let this network out, and the answers in",
        [f"iptables -I {out}", f"iptables -I {back}"],
        [f"iptables -D {out}", f"iptables -D {back}"],
        "only established connections come in",
        machine=True,
    )


def nameservers(text: str | None) -> list[str]:
    """IPv4 nameservers of a resolv.conf."""
    found = (line.split() for line in (text or "").splitlines())
    return [words[1] for words in found if len(words) > 1 and words[0] == "nameserver" and ":" not in words[1]]


def dns_dropped(view: View) -> Iterator[Finding]:
    servers = [server for server in nameservers(view.facts.host.resolv_conf) if not server.startswith("127.")]
    for network in _wants_out(view):
        other = view.outbound(network)
        for server in servers:
            query = other.with_(destination=server, proto="udp", dport=53)
            if server in view.host_addresses:
                outcome = walk(view.firewall, "input", query.with_(oif="", local=True))
            elif walk(view.firewall, "forward", other).passes:
                outcome = walk(view.firewall, "forward", query)
            else:
                continue  # everything is dropped: NET-03
            if outcome.kind not in ("drop", "reject"):
                continue
            base = _dropped("DNS-03", view, network, outcome, query, "to the name server")
            from msgspec.structs import replace

            yield replace(
                base,
                symptom=f"names do not resolve in containers on {network.name}: {server} never gets their queries",
                ruled_out=[],
                fix=_dns_fix(network, server, outcome),
                verify=f"dockyard trace {network.name} {server}:53/udp",
            )
            break


def _dns_fix(network: Network, server: str, outcome: Outcome) -> Fix:
    chain = outcome.chain.name if outcome.chain else "FORWARD"
    if outcome.chain is None or outcome.chain.owner == "nft":
        return Fix(f"accept udp and tcp port 53 from {network.subnets[0]} to {server} before that rule")
    rules = [f"{chain} -s {network.subnets[0]} -d {server} -p {proto} --dport 53 -j ACCEPT" for proto in ("udp", "tcp")]
    tool = "iptables-legacy" if outcome.chain.owner == "iptables-legacy" else "iptables"
    return Fix(
        "accept DNS from this network to its name server only",
        [f"{tool} -I {rule}" for rule in rules],
        [f"{tool} -D {rule}" for rule in rules],
        machine=True,
    )


def same_bridge_dropped(view: View) -> Iterator[Finding]:
    net = view.facts.host_net
    if net is None or net.sysctls.get("net.bridge.bridge-nf-call-iptables") != "1":
        return
    for network in view.bridges:
        if not network.icc or len(view.members(network)) < 2:
            continue
        one, two = (view.address(container, network) for container in view.members(network)[:2])
        if not (one and two):
            continue
        packet = Packet(one, two, "tcp", dport=80, iif=network.bridge, oif=network.bridge)
        outcome = walk(view.firewall, "forward", packet)
        if outcome.kind not in ("drop", "reject"):
            continue
        yield finding(
            "NET-14",
            _TITLES["NET-14"],
            network.object,
            f"containers on {network.name} time out to each other although inter-container communication is on",
            [
                Evidence("nft", outcome.place, outcome.kind, f"accept {network.bridge} to {network.bridge}"),
                Evidence("sysctl", "net.bridge.bridge-nf-call-iptables", "1 (bridged frames pass iptables)", ""),
            ],
            affects=_ids(view, network),
            fix=_same_bridge_fix(network, outcome),
            verify=f"dockyard trace {view.members(network)[0].name} {view.members(network)[1].name}",
        )


def _same_bridge_fix(network: Network, outcome: Outcome) -> Fix:
    rule = f"-i {network.bridge} -o {network.bridge} -j ACCEPT"
    if outcome.chain is None or outcome.chain.owner == "nft":
        return Fix(f"accept {network.bridge} to {network.bridge} before that rule")
    tool = "iptables-legacy" if outcome.chain.owner == "iptables-legacy" else "iptables"
    return Fix(
        "accept traffic within this bridge",
        [f"{tool} -I {outcome.chain.name} {rule}"],
        [f"{tool} -D {outcome.chain.name} {rule}"],
        machine=True,
    )


def host_input_dropped(view: View) -> Iterator[Finding]:
    """Services of the host that listen where containers could reach them, behind a filter that stops containers."""
    net = view.facts.host_net
    if net is None:
        return
    for network in view.bridges:
        if not network.gateway or not view.members(network):
            continue
        ports = sorted(
            {
                item.port
                for item in net.listeners
                if item.proto == "tcp" and item.address in ("0.0.0.0", network.gateway)
            }
        )
        for port in ports:
            packet = Packet(example(network), network.gateway, "tcp", dport=port, iif=network.bridge, local=True)
            outcome = walk(view.firewall, "input", packet)
            if outcome.kind not in ("drop", "reject"):
                continue
            owner = view.facts.port_owners.get(f"tcp/0.0.0.0/{port}", "a host process")
            published = "docker-proxy" in owner
            accept = f"INPUT -i {network.bridge} -p tcp --dport {port} -j ACCEPT"
            nft = outcome.chain is not None and outcome.chain.owner == "nft"
            yield finding(
                "PUB-10" if published else "NET-23",
                "containers cannot use the host's published port" if published else _TITLES["NET-23"],
                network.object,
                f"containers on {network.name} time out to {network.gateway}:{port} ({owner})",
                [Evidence("nft", outcome.place, f"{outcome.kind}, {_hits(outcome)} packets so far", "accept")],
                severity=Severity.RISK,
                affects=_ids(view, network),
                cause=["packets from a container to the host pass INPUT, not FORWARD: engine rules do not help there"],
                fix=Fix(
                    "accept this port from this bridge only",
                    [] if nft else [f"iptables -I {accept}"],
                    [] if nft else [f"iptables -D {accept}"],
                    machine=not nft,
                ),
                verify=f"dockyard trace {view.members(network)[0].name} {network.gateway}:{port}",
            )
            break


_TIMEOUT = (r"timed? ?out", r"i/o timeout", r"no route to host", r"network is unreachable")
RULES = (
    Rule(
        "NET-01",
        _TITLES["NET-01"],
        "Containers live behind bridges; the host routes between them and the outside only while net.ipv4.ip_forward "
        "is 1. The engine sets it once at start; sysctl --system or a hardening tool can set it back.",
        forwarding_off,
        ("networks", "host_net"),
        causes=("DNS-03", "DNS-04", "NET-00", "CMP-01", "IMG-11"),
        lookalikes=("NET-03", "NET-05"),
        messages=_TIMEOUT,
        decides="sysctl net.ipv4.ip_forward",
    ),
    Rule(
        "NET-04",
        _TITLES["NET-04"],
        "The engine writes its chains when it starts and when a container starts; a firewall reload or flush removes "
        "them and nobody tells the engine.",
        engine_rules_gone,
        ("networks", "firewall"),
        causes=("NET-03", "NET-05", "NET-00", "PUB-12", "PUB-14", "DNS-03", "NET-14"),
        messages=(r"No chain/target/match by that name", *_TIMEOUT),
        decides="iptables-save -t nat | grep DOCKER",
    ),
    Rule(
        "NET-03",
        _TITLES["NET-03"],
        "Every base chain of the forward hook must let a packet pass: an accept of the engine does not overrule a "
        "drop of another table. The evidence names the chain, rule and its packet counter.",
        forward_dropped,
        ("networks", "firewall", "host_net"),
        causes=("DNS-03", "NET-00", "PUB-12", "NET-14"),
        lookalikes=("NET-01", "NET-05"),
        messages=_TIMEOUT,
        decides="iptables -vnL FORWARD (policy and counters)",
    ),
    Rule(
        "NET-05",
        _TITLES["NET-05"],
        "Addresses of a bridge network mean nothing outside; without masquerade the answers never come back.",
        masquerade_missing,
        ("networks", "firewall", "host_net"),
        causes=("NET-00", "DNS-04"),
        lookalikes=("NET-01", "NET-03"),
        messages=_TIMEOUT,
        decides="iptables-save -t nat | grep MASQUERADE",
    ),
    Rule(
        "DNS-03",
        _TITLES["DNS-03"],
        "Other traffic passes and port 53 does not: a rule stops queries from the bridge to the name server.",
        dns_dropped,
        ("networks", "firewall", "host"),
        causes=("NET-00", "DNS-04"),
        messages=(r"no such host", r"temporary failure in name resolution", r"could not resolve", r"bad address"),
        decides="the same query from the host answers, from the container's namespace not; the drop counter rises",
    ),
    Rule(
        "NET-14",
        _TITLES["NET-14"],
        "With br_netfilter, frames inside one bridge pass the IP filter too, so a drop for forwarded packets can cut "
        "neighbours off.",
        same_bridge_dropped,
        ("networks", "firewall", "host_net"),
        causes=("NET-00", "CMP-10", "CTR-16"),
        messages=_TIMEOUT,
        decides="the forward hook for bridge to bridge",
    ),
    Rule(
        "NET-23",
        _TITLES["NET-23"],
        "A container that calls the host's own address comes in through INPUT, where host firewalls drop bridges.",
        host_input_dropped,
        ("networks", "firewall", "host_net"),
        severity=Severity.RISK,
        messages=_TIMEOUT,
        decides="the input hook for the bridge",
    ),
    Rule(
        "PUB-10",
        "containers cannot use the host's published port",
        "From inside, a published port is reached through docker-proxy and INPUT. Use the container's name on a "
        "shared network instead, or accept the port from the bridge.",
        messages=_TIMEOUT,
        decides="the input hook for the bridge",
    ),
)
