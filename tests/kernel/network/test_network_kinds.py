"""Kinds of networks on a throw-away host: IPv6, internal, no icc with links, routed, guarded ports, macvlan."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from dockyard.kernel import netlink_route as rt
from dockyard.kernel.netlink import NetlinkSocket
from dockyard.kernel.netns import entered
from dockyard.model import EndpointSettings, PortBinding
from dockyard.model.network import EndpointIPAMConfig
from dockyard.network import Controller, NetworkSettings

pytestmark = pytest.mark.root
OUTSIDE, HOST = "198.51.100.1", "198.51.100.2"
BRIDGE = "com.docker.network.bridge."


def endpoint(controller: Controller, container: str, network: str) -> dict:  # type: ignore[type-arg]
    return dict(controller.settings_of((container * 64)[:64])["Networks"][network])


def route_from_outside(host, subnet: str) -> None:  # type: ignore[no-untyped-def]
    with entered(host.outside), NetlinkSocket() as netlink:
        wire = rt.link(netlink, "wire")
        assert wire
        netlink.batch([rt.add_route(IPv4Network(subnet), oif=wire.index, gateway=IPv4Address(HOST))])


async def test_ipv6_network(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "six", "EnableIPv6": True})
    web = await start("a", "six", bindings={"80/tcp": [PortBinding(host_port="8080")]})
    other = await start("b", "six")
    place = endpoint(controller, "a", "six")
    assert place["GlobalIPv6Address"].startswith("fd")
    assert place["GlobalIPv6PrefixLen"] == 64
    with host.server(web.netns, "::", 80):
        assert host.fetch(other.netns, place["GlobalIPv6Address"], 80) == endpoint(controller, "b", "six")["GlobalIPv6Address"]
        assert host.fetch(other.netns, endpoint(controller, "b", "six")["IPv6Gateway"], 8080) != ""
        assert host.fetch(None, place["IPv6Gateway"], 8080) != ""
    assert [row["HostIp"] for row in controller.settings_of(web.container)["Ports"]["80/tcp"]] == ["0.0.0.0", "::"]


async def test_internal_network_has_no_way_out_or_in(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "shut", "Internal": True})
    await controller.create_network({"Name": "open"})
    a, b = await start("a", "shut"), await start("b", "shut")
    c = await start("c", "open")
    with host.server(host.outside, OUTSIDE, 7000), host.server(a.netns, "0.0.0.0", 80):
        assert host.fetch(a.netns, OUTSIDE, 7000, 0.3) == ""
        assert host.fetch(b.netns, endpoint(controller, "a", "shut")["IPAddress"], 80) != ""
        assert host.fetch(c.netns, endpoint(controller, "a", "shut")["IPAddress"], 80, 0.3) == ""
    assert endpoint(controller, "a", "shut")["Gateway"] == ""


@pytest.mark.parametrize("settings", [NetworkSettings(icc=False)])
async def test_without_icc_only_links_talk(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    db = await start("a", exposed=("5432/tcp",))
    app = await start("b", links=((db.container, "db"),))
    stranger = await start("c")
    address = endpoint(controller, "a", "bridge")["IPAddress"]
    with host.server(db.netns, "0.0.0.0", 5432), host.server(db.netns, "0.0.0.0", 22):
        assert host.fetch(app.netns, address, 5432) != ""
        assert host.fetch(app.netns, address, 22, 0.3) == ""
        assert host.fetch(stranger.netns, address, 5432, 0.3) == ""


async def test_routed_network_is_reached_at_the_containers_address(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({
        "Name": "lan", "Options": {f"{BRIDGE}gateway_mode_ipv4": "routed"},
        "IPAM": {"Config": [{"Subnet": "10.77.0.0/24"}]},
    })  # fmt: skip
    web = await start("a", "lan", bindings={"80/tcp": [PortBinding()]})
    route_from_outside(host, "10.77.0.0/24")
    with host.server(web.netns, "0.0.0.0", 80), host.server(web.netns, "0.0.0.0", 81):
        assert host.fetch(host.outside, "10.77.0.2", 80) == OUTSIDE
        assert host.fetch(host.outside, "10.77.0.2", 81, 0.3) == ""
    with host.server(host.outside, OUTSIDE, 7000):
        assert host.fetch(web.netns, OUTSIDE, 7000) == "10.77.0.2", "not translated"


GUARDED = [NetworkSettings(respect_host_firewall=True)]
POLICY = """
table inet fw {
 chain input {
  type filter hook input priority 0; policy drop;
  ct state established accept
  meta l4proto { tcp, udp } th dport { 7070, 8080 } accept
  meta l4proto ipv6-icmp accept
 }
}
"""
FIRST = 0.6
"""Seconds; a SYN that was lost is sent again after 1 s."""


@pytest.fixture
def rules(host) -> Iterator[Callable[[str], object]]:  # type: ignore[no-untyped-def]
    """Makes tables of the administrator's, which go with the test."""
    yield host.nft
    host.nft("flush ruleset")


@pytest.mark.parametrize("settings", GUARDED)
async def test_guarded_ports_follow_the_hosts_input_policy(host, controller: Controller, start, rules) -> None:  # type: ignore[no-untyped-def]
    ports = {"80/tcp": [PortBinding(host_port="8080")], "81/tcp": [PortBinding(host_port="8081")]}
    web = await start("a", bindings=ports)
    rules(POLICY)

    async def fetch(where: int | None, port: int, timeout: float = FIRST) -> str:
        return str(await asyncio.to_thread(host.fetch, where, HOST, port, timeout))  # the daemon works meanwhile

    with host.server(web.netns, "0.0.0.0", 80), host.server(web.netns, "0.0.0.0", 81):
        assert await fetch(host.outside, 8081, 1.5) == ""
        assert await fetch(host.outside, 8080) == OUTSIDE, "at the first SYN, with the client's own address"
        assert await fetch(None, 8081) == HOST
        rules("delete table inet fw")
        assert await fetch(host.outside, 8081) == OUTSIDE


@pytest.mark.parametrize("settings", GUARDED)
async def test_rules_see_the_first_packet_of_a_guarded_port_as_the_wire_brought_it(host, controller: Controller, start, rules) -> None:  # type: ignore[no-untyped-def]
    web = await start("a", bindings={"80/tcp": [PortBinding(host_port="8080")], "81/tcp": [PortBinding(host_port="7070")]})
    rules(POLICY + """
table ip user {
 chain forward {
  type filter hook forward priority -10;
  ct state established,related accept
  iifname "eth0" tcp dport 81 drop
 }
}
""")
    with host.server(web.netns, "0.0.0.0", 80), host.server(web.netns, "0.0.0.0", 81):
        assert await asyncio.to_thread(host.fetch, host.outside, HOST, 7070, 2.5) == "", "new connections are judged in forward"
        assert await asyncio.to_thread(host.fetch, host.outside, HOST, 8080, FIRST) == OUTSIDE


@pytest.mark.parametrize("settings", GUARDED)
async def test_no_datagram_to_a_guarded_port_is_lost(host, controller: Controller, start, rules) -> None:  # type: ignore[no-untyped-def]
    web = await start("a", bindings={"80/udp": [PortBinding(host_port="8080")]})
    rules(POLICY)

    def opened() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", 80))
        made.settimeout(2)
        return made

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"once", (HOST, 8080))

    with host.inside(web.netns, opened) as server:
        host.inside(host.outside, send)
        data, peer = await asyncio.to_thread(server.recvfrom, 100)
    assert (data, peer[0]) == (b"once", OUTSIDE)


@pytest.mark.parametrize("settings", GUARDED)
async def test_a_server_of_the_hosts_own_beside_a_guarded_port(host, controller: Controller, start, rules) -> None:  # type: ignore[no-untyped-def]
    """A port published at one address is the host's own at another."""
    await start("a", bindings={"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8080")]})
    with host.server(None, HOST, 8080):
        assert await asyncio.to_thread(host.fetch, host.outside, HOST, 8080, FIRST) == OUTSIDE


async def test_macvlan_is_a_neighbour_on_the_wire(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    config = {"Subnet": "198.51.100.0/24", "Gateway": OUTSIDE, "AuxiliaryAddresses": {"host": HOST}}
    await controller.create_network({
        "Name": "wire", "Driver": "macvlan", "Options": {"parent": "eth0"}, "IPAM": {"Config": [config]},
    })  # fmt: skip
    box = await start("a", "wire")
    assert endpoint(controller, "a", "wire")["IPAddress"] == "198.51.100.3"
    with host.server(host.outside, OUTSIDE, 7000):
        assert host.fetch(box.netns, OUTSIDE, 7000) == "198.51.100.3"


async def test_live_connect_and_disconnect_move_the_default_route(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "far", "IPAM": {"Config": [{"Subnet": "10.5.0.0/24"}]}})
    box = await start("a")
    spec = controller._core.specs[box.container]
    wish = EndpointSettings(gw_priority=5, ipam_config=EndpointIPAMConfig(ipv4_address="10.5.0.9"), aliases=["www"])
    await controller.connect(box.container, "a", "far", wish, spec)
    other = await start("b", "far")
    with host.server(box.netns, "0.0.0.0", 80):
        assert host.fetch(other.netns, "10.5.0.9", 80) == "10.5.0.2"

    def door() -> list[str]:
        with NetlinkSocket() as netlink:
            return [str(route.gateway) for route in rt.routes(netlink) if route.destination is None]

    assert host.inside(box.netns, door) == ["10.5.0.1"]
    assert controller._records.directory().addresses(other.container, "www") == ["10.5.0.9"]
    await controller.disconnect(box.container, "far")
    assert host.inside(box.netns, door) == ["172.17.0.1"]
    with host.server(host.outside, OUTSIDE, 7000):
        assert host.fetch(box.netns, OUTSIDE, 7000) == HOST


async def test_udp_flow_follows_the_port_to_its_new_owner(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    ports = {"53/udp": [PortBinding(host_port="5353")]}

    def bound(netns: str) -> socket.socket:
        made = host.inside(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.bind(("0.0.0.0", 53))
        made.settimeout(1)
        return made

    client = host.inside(host.outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.connect((HOST, 5353))
    with client:
        one = await start("a", bindings=ports)
        with bound(one.netns) as server:
            client.send(b"to one")
            assert server.recv(10) == b"to one"
        await controller.forget(one.container)
        await start("c")
        two = await start("b", bindings=ports)
        with bound(two.netns) as server:
            client.send(b"to two")
            assert server.recv(10) == b"to two"


