"""Links between a container and its bridge, neighbours, and sizes: NET-10, NET-11, NET-12."""

from __future__ import annotations

from collections.abc import Iterator

from dockyard.doctor.facts import Link, NetNs
from dockyard.doctor.finding import Evidence, Finding, Fix, Object, Severity
from dockyard.doctor.firewall import Packet, walk
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import Container, Network, View

_BROKEN = "a container is cut off from its bridge"
_WRONG_MAC = "a wrong hardware address hides a neighbour"
_TOO_BIG = "packets of containers are bigger than the way out"


def broken_links(view: View) -> Iterator[Finding]:
    for network in view.bridges:
        bridge = view.host_link(network.bridge)
        members = view.members(network)
        if bridge is None or not bridge.up:
            if members:
                yield _bridge_finding(view, network, bridge)
            continue
        for container in members:
            yield from _broken_veth(view, container, network, bridge)


def _bridge_finding(view: View, network: Network, bridge: Link | None) -> Finding:
    up, down = f"ip link set {network.bridge} up", f"ip link set {network.bridge} down"
    return finding(
        "NET-10",
        _BROKEN,
        network.object,
        f"no container on {network.name} reaches anything",
        [Evidence("netlink", f"link {network.bridge}", "down" if bridge else "absent", "up")],
        cause=["a network manager or a person took the bridge down" if bridge else "the bridge was deleted"],
        affects=[network.id, *(container.id for container in view.members(network))],
        fix=Fix("bring it up", [up], [down], machine=True)
        if bridge
        else Fix("restart the engine, which makes the bridge again, then the containers", ["systemctl restart docker"]),
        verify=f"ip link show {network.bridge}",
    )


def own_link(net: NetNs, address: str) -> Link | None:
    """The container's link that carries ``address``."""
    index = next((item.link for item in net.addresses if item.address == address), 0)
    return next((link for link in net.links if link.index == index), None)


def _broken_veth(view: View, container: Container, network: Network, bridge: Link) -> Iterator[Finding]:
    net, address = view.net(container), view.address(container, network)
    if net is None or not address:
        return
    inner = own_link(net, address)
    if inner is None:
        yield _veth_finding(container, network, Evidence(
            "netlink", f"addresses in {container.name}", f"no link carries {address}", address), None)  # fmt: skip
        return
    outer = view.links_by_index.get(inner.peer) if inner.kind == "veth" else None
    if not inner.up:
        name = f"nsenter -t {_pid(view, container)} -n ip link set {inner.name}"
        fix = Fix("bring it up", [f"{name} up"], [f"{name} down"], machine=True)
        seen = Evidence("netlink", f"link {inner.name} in {container.name}", "down", "up")
        yield _veth_finding(container, network, seen, fix)
    elif inner.kind == "veth" and outer is None:
        seen = Evidence("netlink", f"host end of {inner.name} (index {inner.peer})", "absent", "a port of the bridge")
        yield _veth_finding(container, network, seen, None)
    elif outer is not None and outer.master != bridge.index:
        other = view.links_by_index.get(outer.master)
        undo = (
            f"ip link set {outer.name} nomaster" if other is None else f"ip link set {outer.name} master {other.name}"
        )
        fix = Fix("put it back", [f"ip link set {outer.name} master {bridge.name}"], [undo], machine=True)
        seen = Evidence("netlink", f"master of {outer.name}", other.name if other else "none", bridge.name)
        yield _veth_finding(container, network, seen, fix)
    elif outer is not None and not outer.up:
        fix = Fix("bring it up", [f"ip link set {outer.name} up"], [f"ip link set {outer.name} down"], machine=True)
        yield _veth_finding(container, network, Evidence("netlink", f"link {outer.name}", "down", "up"), fix)


def _pid(view: View, container: Container) -> int:
    process = view.process(container)
    return process.pid if process else 0


def _veth_finding(container: Container, network: Network, seen: Evidence, fix: Fix | None) -> Finding:
    return finding(
        "NET-10",
        _BROKEN,
        container.object,
        f"{container.name} reaches nothing on {network.name}, its neighbours do",
        [seen],
        cause=["a network manager, a script or a person changed the link after the engine had made it"],
        affects=[container.id],
        fix=fix or Fix("restart the container, which makes the link again", [f"docker restart {container.name}"]),
        verify=f"dockyard doctor container {container.name}",
    )


def wrong_neighbours(view: View) -> Iterator[Finding]:
    """Neighbour entries that contradict the hardware address of a running container, and twins."""
    for network in view.bridges:
        owners = {view.address(c, network): c for c in view.members(network) if view.address(c, network)}
        macs = {address: _mac(view, c, network) for address, c in owners.items()}
        yield from _twins(network, owners, macs)
        places = [("host", view.facts.host_net, 0)]
        places += [(c.name, view.net(c), _pid(view, c)) for c in owners.values()]
        for name, net, pid in places:
            for item in net.neighbours if net else []:
                wanted = macs.get(item.address, "")
                if wanted and item.mac and item.mac != wanted and item.state in ("permanent", "reachable", "stale"):
                    link = next((link.name for link in net.links if link.index == item.link), "?") if net else "?"
                    enter = f"nsenter -t {pid} -n " if pid else ""
                    yield finding(
                        "NET-12",
                        _WRONG_MAC,
                        owners[item.address].object,
                        f"{name} cannot reach {owners[item.address].name} ({item.address}), others can",
                        [
                            Evidence(
                                "netlink",
                                f"neighbour {item.address} on {link} of {name}",
                                f"{item.mac} ({item.state})",
                                wanted,
                            )
                        ],
                        affects=[owners[item.address].id],
                        fix=Fix(
                            "forget the entry",
                            [f"{enter}ip neigh del {item.address} dev {link}"],
                            [f"{enter}ip neigh replace {item.address} lladdr {item.mac} dev {link} nud permanent"],
                            machine=True,
                        ),
                        verify=f"{enter}ip neigh show {item.address}",
                    )


def _mac(view: View, container: Container, network: Network) -> str:
    """The address the link really has; the engine's record where the namespace was not read."""
    net = view.net(container)
    link = own_link(net, view.address(container, network)) if net else None
    return link.mac if link else str(container.networks[network.name].get("MacAddress") or "")


def _twins(network: Network, owners: dict[str, Container], macs: dict[str, str]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for address, mac in macs.items():
        if mac and mac in seen:
            one, two = owners[seen[mac]], owners[address]
            yield finding(
                "NET-12",
                "two containers have the same hardware address",
                two.object,
                f"{one.name} and {two.name} lose packets at random",
                [Evidence("netlink", f"hardware address on {network.name}", f"{mac} twice", "one owner")],
                affects=[one.id, two.id],
                fix=Fix("create one of them again without --mac-address"),
            )
        seen.setdefault(mac, address)


def too_big(view: View) -> Iterator[Finding]:
    """A smaller way out is harmless while path MTU discovery works, and a black hole when its ICMP is dropped."""
    uplink = view.host_link(view.uplink)
    if uplink is None or _clamped(view):
        return
    for network in view.bridges:
        bridge = view.host_link(network.bridge)
        members = view.members(network)
        if network.internal or bridge is None or not members:
            continue
        sizes = [
            link.mtu for c in members if (net := view.net(c)) and (link := own_link(net, view.address(c, network)))
        ]
        size = max(sizes or [bridge.mtu])
        if size <= uplink.mtu:
            continue
        notice = Packet(network.gateway or bridge.name, view.address(members[0], network), "icmp", oif=network.bridge)
        outcome = walk(view.firewall, "output", notice)
        lost = outcome.kind in ("drop", "reject")
        # Both ways: the SYN limits what comes in, the SYN+ACK what the container sends.
        clamps = [
            f"FORWARD -p tcp --tcp-flags SYN,RST SYN {side} {view.uplink} -j TCPMSS --clamp-mss-to-pmtu" for side in ("-o", "-i")
        ]
        seen = [Evidence("netlink", f"mtu of {network.bridge} / {view.uplink}", f"{size} / {uplink.mtu}", "not bigger")]
        if lost:
            seen.append(Evidence("nft", outcome.place, f"{outcome.kind} of ICMP to containers", "accept"))
        yield finding(
            "NET-11",
            _TOO_BIG,
            network.object,
            "small requests work, big answers and TLS hang"
            if lost
            else f"packets over {uplink.mtu} bytes from {network.name} need path MTU discovery to work everywhere",
            seen,
            severity=Severity.FAULT if lost else Severity.ADVICE,
            cause=["ICMP 'fragmentation needed' is dropped, so senders never learn the smaller size"] if lost else [],
            affects=[network.id, *(container.id for container in members)],
            fix=Fix(
                f"clamp TCP to the path, or give the network the option com.docker.network.driver.mtu={uplink.mtu}",
                [f"iptables -t mangle -A {clamp}" for clamp in clamps],
                [f"iptables -t mangle -D {clamp}" for clamp in clamps],
                machine=False,  # in the lab the clamp did not yet bring the upload back, so nobody applies it unasked
            ),
            verify=f"ip link show {view.uplink}; ip link show {network.bridge}",
        )


def _clamped(view: View) -> bool:
    return any("TCPMSS" in rule.text for chain in view.firewall.chains.values() for rule in chain.rules)


def host_conntrack(view: View) -> Iterator[Finding]:
    values = view.facts.host.sysctls
    count = int(values.get("net.netfilter.nf_conntrack_count", "0") or 0)
    most = int(values.get("net.netfilter.nf_conntrack_max", "0") or 0)
    line = next((line for line in reversed(view.facts.host.kernel_log) if "table full, dropping" in line), "")
    full = bool(most) and count >= 0.9 * most
    if full or (line and most and count >= 0.5 * most):
        seen = [Evidence("sysctl", "net.netfilter.nf_conntrack_count / _max", f"{count} / {most}", "below 90 %")]
        seen += [Evidence("log", "kernel log", line, "")] if line else []
        yield finding(
            "NET-20",
            "the connection tracking table is full",
            Object("host", "conntrack"),
            "new connections fail at random under load",
            seen,
            fix=Fix(
                "raise the maximum",
                [f"sysctl -w net.netfilter.nf_conntrack_max={most * 2}"],
                [f"sysctl -w net.netfilter.nf_conntrack_max={most}"],
                "about 320 bytes of memory each",
                machine=True,
            ),
            verify="sysctl net.netfilter.nf_conntrack_count",
        )


def neighbour_overflow(view: View) -> Iterator[Finding]:
    most = int(view.facts.host.sysctls.get("net.ipv4.neigh.default.gc_thresh3", "0") or 0)
    count = len(view.facts.host_net.neighbours) if view.facts.host_net else 0
    line = next((line for line in reversed(view.facts.host.kernel_log) if "table overflow" in line), "")
    if most and (count >= 0.9 * most or (line and count >= 0.5 * most)):
        yield finding(
            "NET-22",
            "the neighbour table overflows",
            Object("host", "neighbours"),
            "some peers are unreachable at random while many containers run",
            [Evidence("sysctl", "net.ipv4.neigh.default.gc_thresh3", f"{count} entries of {most}", "below 90 %")],
            fix=Fix(
                "raise the thresholds",
                [f"sysctl -w net.ipv4.neigh.default.gc_thresh3={most * 4}"],
                [f"sysctl -w net.ipv4.neigh.default.gc_thresh3={most}"],
                machine=True,
            ),
        )


RULES = (
    Rule(
        "NET-10",
        _BROKEN,
        "The engine makes a veth pair, puts the host end on the bridge and brings both up. Network managers that take "
        "over unknown links (NetworkManager, systemd-networkd, scripts) undo it.",
        broken_links,
        ("containers", "networks", "host_net", "nets"),
        causes=("NET-00", "DNS-04", "CMP-01", "CMP-10", "CTR-16"),
        messages=(r"no route to host", r"timed? ?out", r"network is unreachable"),
        decides="ip link: master and state of the host end of the container's veth",
    ),
    Rule(
        "NET-11",
        _TOO_BIG,
        "The bridge has MTU 1500 unless told otherwise, whatever the uplink has (VPN, cloud overlay). Senders learn "
        "the smaller size by ICMP; where that is dropped, big packets vanish.",
        too_big,
        ("networks", "host_net", "firewall", "nets"),
        lookalikes=("NET-03",),
        messages=(r"timed? ?out", r"TLS handshake timeout", r"unexpected EOF", r"connection reset"),
        decides="only this fault depends on size: ping -M do -s SIZE from the container",
    ),
    Rule(
        "NET-12",
        _WRONG_MAC,
        "Frames go to the hardware address in the neighbour table. A permanent entry or a twin sends them elsewhere.",
        wrong_neighbours,
        ("containers", "networks", "nets"),
        causes=("NET-00", "CMP-10", "CTR-16"),
        messages=(r"no route to host", r"timed? ?out"),
        decides="ip neigh against the container's link address",
    ),
    Rule(
        "NET-20",
        "the connection tracking table is full",
        "Every connection through NAT has an entry; when the table is full new ones are dropped.",
        host_conntrack,
        ("host",),
        messages=(r"table full, dropping packet", r"timed? ?out"),
        decides="nf_conntrack_count against nf_conntrack_max",
    ),
    Rule(
        "NET-22",
        "the neighbour table overflows",
        "Each container and bridge takes entries; beyond gc_thresh3 the kernel drops them.",
        neighbour_overflow,
        ("host", "host_net"),
        messages=(r"neighbou?r:? .*table overflow",),
        decides="entries against gc_thresh3",
    ),
)
