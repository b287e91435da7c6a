"""The static walk: name, source namespace, route, bridge, filters, translation, listener, way back. Pure.

The order is that of the kernel (nft(8) hooks, ip-route(8)): output or prerouting, routing, forward or input,
postrouting; bridged frames pass the IP hooks only while bridge-nf-call-iptables is 1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from dockyard.doctor.facts import NetNs, Route
from dockyard.doctor.faults.dns.resolvers import EMBEDDED
from dockyard.doctor.faults.net.forwarding import nameservers
from dockyard.doctor.faults.net.links import own_link
from dockyard.doctor.faults.ports.published import listening
from dockyard.doctor.finding import Fix
from dockyard.doctor.firewall import Packet, translate, walk
from dockyard.doctor.trace.model import LOST, NOTE, OK, UNKNOWN, Flow, Path, Step
from dockyard.doctor.view import OUTSIDE, Container, Network, View
from dockyard.errors import InvalidParameter

HOST, ELSEWHERE = "host", "outside"


def parse_flow(source: str, target: str) -> Flow:
    """``target`` is NAME[:PORT][/PROTO]. Raises InvalidParameter."""
    name, _, proto = target.partition("/")
    host, colon, port = name.rpartition(":")
    if not colon:
        host, port = name, "0"
    if not port.isdigit() or int(port) > 65535 or not host:
        raise InvalidParameter(f"cannot read target {target!r}: it is NAME[:PORT][/tcp|/udp]")
    if proto not in ("", "tcp", "udp", "icmp"):
        raise InvalidParameter(f"cannot trace protocol {proto!r}: tcp, udp and icmp can be")
    return Flow(source, host, proto or "tcp", int(port))


def walk_flow(view: View, flow: Flow) -> Path:
    """Walk until the packet is lost or has arrived and its answer is back."""
    steps: list[Step] = []
    walker = _Walker(view, flow)
    for step in walker.run():
        steps.append(step)
        if step.verdict == LOST:
            break
    return Path(walker.flow, steps)


def find(view: View, name: str) -> Container | None:
    exact = [c for c in view.containers if c.name == name or (len(name) > 5 and c.id.startswith(name))]
    by_service = [c for c in view.containers if c.labels.get("com.docker.compose.service") == name]
    return next(iter(exact or by_service), None)


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def route_to(net: NetNs, address: str) -> Route | None:
    """Longest prefix, then smallest metric, of the main table."""
    ip = ipaddress.ip_address(address)
    fitting = [
        route
        for route in net.routes
        if route.table in (254, 255) and ":" not in route.destination and ip in ipaddress.ip_network(route.destination)
    ]
    return max(fitting, key=lambda r: (ipaddress.ip_network(r.destination).prefixlen, -r.metric), default=None)


class _Walker:
    def __init__(self, view: View, flow: Flow) -> None:
        self.view, self.flow = view, flow
        self.source = None if flow.source in (HOST, ELSEWHERE) else find(view, flow.source)
        self.target = None if is_address(flow.target) else find(view, flow.target)
        self.via: Network | None = None  # the network over which the source sends

    def run(self) -> Iterator[Step]:
        if self.flow.source not in (HOST, ELSEWHERE) and self.source is None:
            yield Step("source", LOST, f"no container {self.flow.source}", "CTR-00")
            return
        if self.source is not None:
            yield from self._source()
        yield from self._resolve()
        if not self.flow.address:
            return
        if self.source is not None:
            yield from self._leave()
        yield from self._host()
        yield from self._arrive()

    def _with(self, **changes: object) -> None:
        from msgspec.structs import replace

        self.flow = replace(self.flow, **changes)

    # Name ---------------------------------------------------------------------------------------------------------

    def _resolve(self) -> Iterator[Step]:
        name = self.flow.target
        if is_address(name):
            self._with(address=name)
            self.target = self.target or self._owner(name)
        elif name == HOST:
            self._with(address=self._host_address())
            yield Step("name", OK, f"host is {self.flow.address}")
        elif self.target is not None:
            yield from self._container_name(self.target)
        else:
            yield from self._outside_name(name)

    def _owner(self, address: str) -> Container | None:
        owners = (c for c in self.view.running for e in c.networks.values() if e.get("IPAddress") == address)
        return next(owners, None)

    def _host_address(self) -> str:
        network = self._networks(self.source)[:1] if self.source else []
        return (network[0].gateway if network else "") or self.view.uplink_address or "127.0.0.1"

    def _networks(self, container: Container | None) -> list[Network]:
        return [n for n in self.view.networks if container is not None and n.name in container.networks]

    def _container_name(self, target: Container) -> Iterator[Step]:
        if not target.running:
            yield Step("name", LOST, f"{target.name} is not running ({target.state.get('Status')})", "CMP-10",
                       fix=Fix("start it", [f"docker start {target.name}"]))  # fmt: skip
            return
        if self.source is None:
            network = next(iter(self._networks(target)), None)
            if self.flow.source == ELSEWHERE:
                yield from self._published(target)
                return
            self._with(address=self.view.address(target, network) if network else "")
            yield Step("name", OK, f"{target.name} is {self.flow.address} (from the host, by address)")
            return
        if target.id == self.source.id:
            self._with(address="127.0.0.1")
            yield Step("name", OK, "itself")
            return
        shared = [network for network in self._networks(self.source) if network.name in target.networks]
        if not shared:
            ours, theirs = ", ".join(self.source.networks) or "none", ", ".join(target.networks) or "none"
            first = next(iter(target.networks), "NETWORK")
            fix = Fix("connect one to the other's network", [f"docker network connect {first} {self.source.name}"])
            yield Step("name", LOST, f"no common network: {self.source.name} on {ours}, {target.name} on {theirs}",
                       "NET-15", fix=fix)  # fmt: skip
            return
        named = [network for network in shared if network.name != "bridge"]
        address = self.view.address(target, (named or shared)[0])
        if not named:
            fix = Fix("put both on a network of their own", ["docker network create app"])
            yield Step("name", LOST, f"the default bridge has no names; {target.name} is {address}", "DNS-05", fix=fix)
            return
        self._with(address=address)
        net = self.view.net(self.source)
        if net is not None and EMBEDDED not in nameservers(net.resolv_conf):
            yield Step("name", LOST, f"{EMBEDDED} is not in resolv.conf of {self.source.name}", "DNS-01")
            return
        yield Step("name", OK, f"{target.name} is {address} on {named[0].name} ({EMBEDDED} knows it)")

    def _published(self, target: Container) -> Iterator[Step]:
        wanted = [
            p for p in target.published if self.flow.port in (0, p.host_port, p.port) and p.proto == self.flow.proto
        ]
        if not wanted:
            fix = Fix("publish it: docker run -p HOSTPORT:PORT")
            yield Step("publish", LOST, f"{target.name} publishes no port {self.flow.port or ''}", "PUB-05", fix=fix)
            return
        port = wanted[0]
        if port.host_ip.startswith("127."):
            fix = Fix(f"publish on an address of the host: -p ADDRESS:{port.host_port}:{port.port}")
            yield Step(
                "publish", LOST, f"published on {port.host_ip} only: by choice not for others", "PUB-07", fix=fix
            )
            return
        self._with(address=self.view.uplink_address or port.host_ip, port=port.host_port)
        yield Step("publish", OK, f"{port.host_ip}:{port.host_port} is published to {port.port}")

    def _outside_name(self, name: str) -> Iterator[Step]:
        net = self.view.net(self.source) if self.source else None
        servers = nameservers(net.resolv_conf if net else self.view.facts.host.resolv_conf)
        if not servers:
            yield Step("name", LOST, "no name server", "DNS-04")
        elif all(server.startswith("127.") and server != EMBEDDED for server in servers) and self.source:
            yield Step("name", LOST, f"name server {servers[0]} is the container's own loopback", "DNS-01")
        else:
            yield Step("name", OK, f"{name} is asked of {servers[0]}")
            self._with(address=OUTSIDE)

    # Source --------------------------------------------------------------------------------------------------------

    def _source(self) -> Iterator[Step]:
        assert self.source is not None
        source = self.source
        if not source.running:
            yield Step("source", LOST, f"{source.name} is not running", "CMP-10")
        elif self.view.net(source) is None:
            yield Step("source", UNKNOWN, "its namespace could not be read")
        else:
            process = self.view.process(source)
            yield Step("source", OK, f"{source.name}, pid {process.pid if process else '?'}, network namespace read")

    def _leave(self) -> Iterator[Step]:
        assert self.source is not None
        net, address = self.view.net(self.source), self.flow.address
        if net is None or address.startswith("127."):
            return
        route = route_to(net, address)
        if route is None:
            internal = any(network.internal for network in self._networks(self.source))
            detail = "no route: its networks are internal" if internal else "no route"
            fix = Fix("connect it to a network with a way out") if internal else None
            yield Step("route", LOST, f"{detail} to {address} in {self.source.name}", "NET-15", fix=fix)
            return
        link = next((link for link in net.links if link.index == route.link), None)
        hop = route.gateway or address
        yield Step("route", OK, f"{route.destination} by {link.name if link else '?'}, next hop {hop}")
        own = {a.address for a in net.addresses if link and a.link == link.index}
        self.via = next((n for n in self._networks(self.source) if self.view.address(self.source, n) in own), None)
        yield from self._neighbour(net, hop)
        yield from self._veth(net)

    def _neighbour(self, net: NetNs, hop: str) -> Iterator[Step]:
        owner = self._owner(hop)
        entry = next((n for n in net.neighbours if n.address == hop and n.mac), None)
        if entry is None:
            return
        wanted = ""
        if owner is not None and (other := self.view.net(owner)) and (link := own_link(other, hop)):
            wanted = link.mac
        elif self.via and (bridge := self.view.host_link(self.via.bridge)) and hop == self.via.gateway:
            wanted = bridge.mac
        if wanted and entry.mac != wanted:
            name = self.source.name if self.source else ""
            fix = Fix("forget the entry", [f"ip neigh del {hop} dev eth0   # in the namespace of {name}"])
            yield Step(
                "neighbour", LOST, f"{hop} is at {entry.mac} ({entry.state}), really at {wanted}", "NET-12", fix=fix
            )
        else:
            yield Step("neighbour", OK, f"{hop} is at {entry.mac} ({entry.state})")

    def _veth(self, net: NetNs) -> Iterator[Step]:
        if self.via is None or not self.via.bridge or self.source is None:
            return
        from dockyard.doctor.faults.net.links import broken_links

        broken = [f for f in broken_links(self.view) if self.source.id in f.affects or self.via.id in f.affects]
        if broken:
            seen = broken[0].evidence[0]
            yield Step("link", LOST, f"{seen.locator}: {seen.observed}, expected {seen.expected}", "NET-10",
                       fix=broken[0].fix)  # fmt: skip
        else:
            yield Step("link", OK, f"veth of {self.source.name} is a port of {self.via.bridge}, all up")

    # Host ----------------------------------------------------------------------------------------------------------

    def _packet(self) -> Packet:
        flow, view = self.flow, self.view
        source = view.address(self.source, self.via) if self.source and self.via else ""
        iif = self.via.bridge if self.via else view.uplink if flow.source == ELSEWHERE else ""
        if not source:
            source = OUTSIDE if flow.source == ELSEWHERE else view.uplink_address or "127.0.0.1"
        local = flow.address in view.host_addresses
        return Packet(source, flow.address, flow.proto, dport=flow.port, iif=iif, local=local)

    def _host(self) -> Iterator[Step]:
        net = self.view.facts.host_net
        if net is None or self.flow.address.startswith("127.") or (self.source and self.via is None):
            return
        packet = self._packet()
        hook = "output" if self.flow.source == HOST else "prerouting"
        found = translate(self.view.firewall, hook, packet)
        if found is not None and found[0].kind in ("dnat", "redirect") and found[0].target not in ("", "?"):
            address, _, port = found[0].target.rpartition(":")
            yield Step("translation", OK, f"{hook}: to {found[0].target}", rule=found[1].place)
            packet = packet.with_(destination=address, dport=int(port or packet.dport), local=False, dnat=True)
            self._with(address=address, port=packet.dport)
            self.target = self.target or self._owner(address)
        if packet.local:
            yield from self._input(packet)
            return
        if hook == "output":
            yield from self._filter("output", packet, "from the host")
            return
        yield from self._forward(net, packet)

    def _input(self, packet: Packet) -> Iterator[Step]:
        yield from self._filter("input", packet, "into the host", "NET-23")
        sockets = [i for i in (self.view.facts.host_net.listeners if self.view.facts.host_net else [])
                   if i.port == packet.dport and i.proto.rstrip("6") == packet.proto]  # fmt: skip
        if packet.dport and packet.proto in ("tcp", "udp"):
            fits = [i for i in sockets if i.address in ("0.0.0.0", "::", packet.destination)]
            owner = self.view.facts.port_owners.get(f"{packet.proto}/0.0.0.0/{packet.dport}", "")
            if fits:
                yield Step("listener", OK, f"{fits[0].address}:{packet.dport} {owner}".strip())
            else:
                where = f"only on {sockets[0].address}" if sockets else "nobody"
                yield Step("listener", LOST, f"port {packet.dport} of the host: {where} listens", "PUB-02")

    def _forward(self, net: NetNs, packet: Packet) -> Iterator[Step]:
        route = route_to(net, packet.destination)
        oif = self.view.links_by_index[route.link].name if route and route.link in self.view.links_by_index else ""
        if route is None or not oif:
            yield Step("route", LOST, f"the host has no route to {packet.destination}", "NET-08")
            return
        packet = packet.with_(oif=oif)
        bridged = oif == packet.iif
        if bridged:
            filtered = net.sysctls.get("net.bridge.bridge-nf-call-iptables") == "1"
            yield Step("bridge", OK, f"within {oif}" + (", frames pass the IP filter" if filtered else ""))
            if not filtered:
                return
        elif net.sysctls.get("net.ipv4.ip_forward") != "1" or (
            net.sysctls.get(f"net.ipv4.conf.{packet.iif}.forwarding") == "0"
        ):
            name = "net.ipv4.ip_forward" if net.sysctls.get("net.ipv4.ip_forward") != "1" else (
                f"net.ipv4.conf.{packet.iif}.forwarding")  # fmt: skip
            yield Step("forwarding", LOST, f"{name} = 0", "NET-01", fix=Fix("switch it on", [f"sysctl -w {name}=1"]))
            return
        else:
            yield Step(
                "route", OK, f"host: {route.destination} by {oif}" + (f" via {route.gateway}" if route.gateway else "")
            )
        yield from self._filter("forward", packet, f"{packet.iif} to {oif}", "NET-16" if bridged else "NET-03")
        if not bridged and self.via and oif == self.view.uplink and self.via.masquerade:
            yield from self._masquerade(packet)
        reply = Packet(packet.destination, packet.source, packet.proto, packet.dport, packet.sport, oif, packet.iif,
                       "established")  # fmt: skip
        yield from self._filter("forward", reply, f"the answer, {oif} to {packet.iif}", "NET-03")

    def _masquerade(self, packet: Packet) -> Iterator[Step]:
        found = translate(self.view.firewall, "postrouting", packet.with_(iif=""))
        if found is None:
            yield Step(
                "translation", LOST, f"{packet.source} leaves with its private address: no masquerade rule", "NET-05"
            )
        else:
            yield Step("translation", OK, f"source becomes the address of {packet.oif}", rule=found[1].place)

    def _filter(self, hook: str, packet: Packet, way: str, code: str = "NET-03") -> Iterator[Step]:
        outcome = walk(self.view.firewall, hook, packet)
        if outcome.kind in ("drop", "reject"):
            if packet.proto == "udp" and packet.dport == 53:
                code = "DNS-03"
            if outcome.chain is not None and outcome.chain.name.startswith("DOCKER-ISOLATION"):
                code = "NET-15"
            yield Step(hook, LOST, f"{way}: {outcome.kind}", code, rule=outcome.place)
        elif outcome.kind == "perhaps":
            yield Step(hook, UNKNOWN, f"{way}: a rule that is not understood could drop it", rule=outcome.place)
        else:
            yield Step(hook, OK, f"{way}: accept", rule=outcome.place if outcome.rule else "")

    # Target --------------------------------------------------------------------------------------------------------

    def _arrive(self) -> Iterator[Step]:
        target = self.target
        if target is None or self.flow.proto not in ("tcp", "udp"):
            if target is None and self.flow.address and self.flow.address not in self.view.host_addresses:
                yield Step("outside", NOTE, f"{self.flow.address} is beyond this host: only a probe can tell")
            return
        net = self.view.net(target)
        if net is None or not self.flow.port:
            return
        sockets = [item for item in listening(net, self.flow.proto) if item.port == self.flow.port]
        local = [item for item in sockets if item.address.startswith("127.") or item.address == "::1"]
        if not sockets:
            others = sorted({item.port for item in listening(net, self.flow.proto)})
            yield Step("listener", LOST, f"nothing in {target.name} listens on {self.flow.port} (listening: {others})",
                       "PUB-05")  # fmt: skip
        elif len(local) == len(sockets) and not self.flow.address.startswith("127."):
            yield Step("listener", LOST, f"{target.name} listens on {local[0].address}:{self.flow.port} only", "PUB-04",
                       fix=Fix("let it listen on 0.0.0.0 in the container"))  # fmt: skip
        else:
            yield Step("listener", OK, f"{target.name} listens on {sockets[0].address}:{self.flow.port}")
