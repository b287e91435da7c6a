"""Options of networks and endpoints, each by what a packet does: gateway modes, direct access, sysctls, ports that move."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dockyard.errors import DockyardError, InvalidParameter
from dockyard.kernel import netlink_route as rt
from dockyard.kernel import sysctl
from dockyard.kernel.netlink import NetlinkSocket
from dockyard.kernel.netns import entered
from dockyard.model import EndpointSettings, PortBinding
from dockyard.model.network import EndpointIPAMConfig
from dockyard.network import Controller, NetworkSettings, hostfiles

pytestmark = pytest.mark.root
OUTSIDE, HOST = "198.51.100.1", "198.51.100.2"
OUTSIDE6, HOST6 = "2001:db8::1", "2001:db8::2"
WEB = {"80/tcp": [PortBinding(host_port="8080")]}
BRIDGE = "com.docker.network.bridge."


def outside(host, *words: str) -> None:  # type: ignore[no-untyped-def]
    with entered(host.outside):
        host.command(*words)


def network(subnet: str, **options: str) -> dict[str, Any]:
    return {"Name": "lan", "IPAM": {"Config": [{"Subnet": subnet}]}, "Options": options}


def links() -> set[str]:
    with NetlinkSocket() as netlink:
        return {link.name for link in rt.links(netlink)}


@pytest.fixture
def ipv6_uplink(host) -> None:  # type: ignore[no-untyped-def]
    for where, name in ((host.own, "eth0"), (host.outside, "wire")):
        with entered(where):  # no detection of duplicates: neighbours of a router with a tentative address wait seconds
            sysctl.write(f"net.ipv6.conf.{name}.accept_dad", "0")
            sysctl.write(f"net.ipv6.conf.{name}.disable_ipv6", "1")
            sysctl.write(f"net.ipv6.conf.{name}.disable_ipv6", "0")
    host.command("ip", "addr", "add", f"{HOST6}/64", "dev", "eth0", "nodad")
    host.command("ip", "-6", "route", "add", "default", "via", OUTSIDE6)
    outside(host, "ip", "addr", "add", f"{OUTSIDE6}/64", "dev", "wire", "nodad")


async def test_ipv6_with_nat(host, controller: Controller, start, ipv6_uplink: None) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "six", "EnableIPv6": True})
    web = await start("a", "six", bindings=WEB)
    with host.server(host.outside, OUTSIDE6, 7000), host.server(web.netns, "::", 80):
        assert host.fetch(web.netns, OUTSIDE6, 7000) == HOST6, "masqueraded"
        assert host.fetch(host.outside, HOST6, 8080) == OUTSIDE6, "the client's address is kept"


async def test_ipv6_routed_beside_nat(host, controller: Controller, start, ipv6_uplink: None) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({
        "Name": "lan", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "2001:db8:5::/64"}]},
        "Options": {f"{BRIDGE}gateway_mode_ipv6": "routed"},
    })  # fmt: skip
    web = await start("a", "lan", bindings=WEB)
    outside(host, "ip", "-6", "route", "add", "2001:db8:5::/64", "via", HOST6)
    with host.server(host.outside, OUTSIDE6, 7000), host.server(web.netns, "::", 80):
        assert host.fetch(web.netns, OUTSIDE6, 7000) == "2001:db8:5::2", "not translated"
        assert host.fetch(host.outside, "2001:db8:5::2", 80) == OUTSIDE6
        assert host.fetch(host.outside, HOST6, 8080, 0.3) == "", "published at the container itself, not at the host"
    with host.server(web.netns, "0.0.0.0", 80):
        assert host.fetch(host.outside, HOST, 8080) == OUTSIDE, "IPv4 is translated as ever"


async def test_ipv6_only_network(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "six", "EnableIPv4": False, "EnableIPv6": True})
    web, other = await start("a", "six"), await start("b", "six")
    place = controller.settings_of(web.container)["Networks"]["six"]
    assert place["IPAddress"] == ""
    with host.server(web.netns, "::", 80):
        assert host.fetch(other.netns, place["GlobalIPv6Address"], 80) != ""


@pytest.mark.parametrize(
    ("options", "port80", "port81"),
    [
        ({}, False, False),
        ({f"{BRIDGE}gateway_mode_ipv4": "nat-unprotected"}, True, True),
        ({f"{BRIDGE}gateway_mode_ipv4": "routed"}, True, False),
        ({f"{BRIDGE}trusted_host_interfaces": "eth0"}, True, False),
        ({f"{BRIDGE}trusted_host_interfaces": "eth7"}, False, False),
    ],
)
async def test_who_reaches_a_container_directly(  # type: ignore[no-untyped-def]
    host, controller: Controller, start, options: dict[str, str], port80: bool, port81: bool
) -> None:
    await controller.create_network(network("10.77.0.0/24", **options))
    web = await start("a", "lan", bindings=WEB)
    outside(host, "ip", "route", "add", "10.77.0.0/24", "via", HOST)
    with host.server(web.netns, "0.0.0.0", 80), host.server(web.netns, "0.0.0.0", 81):
        assert (host.fetch(host.outside, "10.77.0.2", 80, 2 if port80 else 0.3) == OUTSIDE) is port80
        assert (host.fetch(host.outside, "10.77.0.2", 81, 2 if port81 else 0.3) == OUTSIDE) is port81


@pytest.mark.parametrize("settings", [NetworkSettings(allow_direct_routing=True, bridge_accept_fwmark="0x10/0x10")])
async def test_direct_routing_and_marked_packets(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    web = await start("a", bindings=WEB)
    outside(host, "ip", "route", "add", "172.17.0.0/16", "via", HOST)
    host.nft(
        "table ip marks {\nchain pre {\ntype filter hook prerouting priority -150;\ntcp dport 82 meta mark set 0x30\n}\n}"
    )
    with (
        host.server(web.netns, "0.0.0.0", 80),
        host.server(web.netns, "0.0.0.0", 81),
        host.server(web.netns, "0.0.0.0", 82),
    ):
        assert host.fetch(host.outside, "172.17.0.2", 80) == OUTSIDE
        assert host.fetch(host.outside, "172.17.0.2", 81, 0.3) == ""
        assert host.fetch(host.outside, "172.17.0.2", 82) == OUTSIDE
    host.nft("delete table ip marks")


async def test_isolated_bridge_has_no_address(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    body = network("10.77.0.0/24", **{f"{BRIDGE}gateway_mode_ipv4": "isolated", f"{BRIDGE}name": "quiet0"})
    made, _ = await controller.create_network({**body, "Internal": True})
    assert controller.document(made)["IPAM"]["Config"] == [{"Subnet": "10.77.0.0/24"}]
    web, other = await start("a", "lan"), await start("b", "lan")
    assert controller.settings_of(web.container)["Networks"]["lan"]["IPAddress"] == "10.77.0.1"
    with host.server(web.netns, "0.0.0.0", 80):
        assert host.fetch(other.netns, "10.77.0.1", 80) == "10.77.0.2"
        assert host.fetch(None, "10.77.0.1", 80, 0.3) == ""


async def test_source_address_of_what_goes_out(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    host.command("ip", "addr", "add", "198.51.100.9/24", "dev", "eth0")
    await controller.create_network(network("10.77.0.0/24", **{"com.docker.network.host_ipv4": "198.51.100.9"}))
    box = await start("a", "lan")
    with host.server(host.outside, OUTSIDE, 7000):
        assert host.fetch(box.netns, OUTSIDE, 7000) == "198.51.100.9"


async def test_host_binding_address(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network(network("10.77.0.0/24", **{f"{BRIDGE}host_binding_ipv4": "127.0.0.1"}))
    web = await start("a", "lan", bindings=WEB)
    with host.server(web.netns, "0.0.0.0", 80):
        assert host.fetch(None, "127.0.0.1", 8080) != ""
        assert host.fetch(host.outside, HOST, 8080, 0.3) == ""


async def test_ranges_random_ports_and_protocols(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    sysctl.write("net.ipv4.ip_local_port_range", "50000 50010")
    bindings = {
        "80/tcp": [PortBinding(host_port="8080-8082")], "90-92/tcp": [PortBinding(host_port="9090-9092")],
        "53/udp": [PortBinding(host_ip="127.0.0.1")], "9/sctp": [PortBinding(host_port="9999")],
    }  # fmt: skip
    one = await start("a", bindings=bindings | {"90-92/tcp": []})
    two = await start(
        "b",
        bindings={"80/tcp": [PortBinding(host_port="8080-8082")], "90-92/tcp": [PortBinding(host_port="9090-9092")]},
    )
    ports = controller.settings_of(one.container)["Ports"]
    assert ports["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": "8080"}
    assert 50000 <= int(ports["53/udp"][0]["HostPort"]) <= 50010
    assert ports["9/sctp"][0]["HostPort"] == "9999"
    other = controller.settings_of(two.container)["Ports"]
    assert other["80/tcp"][0]["HostPort"] == "8081", "the next of the range that is free"
    assert [other[f"{port}/tcp"][0]["HostPort"] for port in (90, 91, 92)] == ["9090", "9091", "9092"]
    with pytest.raises(DockyardError, match="port is already allocated"):
        await start("c", bindings={"9/sctp": [PortBinding(host_port="9999")]})
    await controller.forget("c" * 64)


async def test_taken_port_names_who_has_it(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await start("a", bindings=WEB)
    with pytest.raises(DockyardError) as caught:
        await start("b", bindings=WEB)
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in caught.value.message
    assert "container a publishes it" in caught.value.hint
    await controller.forget("b" * 64)
    with host.server(None, "0.0.0.0", 8090), pytest.raises(DockyardError, match="address already in use") as caught:
        await start("c", bindings={"80/tcp": [PortBinding(host_port="8090")]})
    assert "sport = :8090" in caught.value.hint
    await controller.forget("c" * 64)
    with pytest.raises(InvalidParameter, match=r"203.0.113.5 is no address of this host"):
        await start("d", bindings={"80/tcp": [PortBinding(host_ip="203.0.113.5", host_port="8091")]})
    await controller.forget("d" * 64)


async def test_ports_follow_the_gateway_endpoint(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "shut", "Internal": True})
    await controller.create_network(network("10.77.0.0/24"))
    web = await start("a", "shut", bindings=WEB)
    spec = controller._core.specs[web.container]
    assert controller.settings_of(web.container)["Ports"] == {}
    with host.server(web.netns, "0.0.0.0", 80):
        await controller.connect(web.container, "a", "lan", EndpointSettings(), spec)
        assert host.fetch(host.outside, HOST, 8080) == OUTSIDE
        await controller.connect(web.container, "a", "bridge", EndpointSettings(gw_priority=7), spec)
        assert host.fetch(host.outside, HOST, 8080) == OUTSIDE
        await controller.disconnect(web.container, "bridge")
        await controller.disconnect(web.container, "lan")
        assert host.fetch(host.outside, HOST, 8080, 0.3) == ""
    await start("b", bindings=WEB)


async def test_hosts_keeps_what_the_container_added(host, controller: Controller, start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network(network("10.77.0.0/24"))
    box = await start("a", extra_hosts=("db:10.9.9.9", "gate:host-gateway"))
    hosts = tmp_path / "a" / "hosts"
    assert "10.9.9.9\tdb\n172.17.0.1\tgate\n172.17.0.2\ta\n" in hosts.read_text()
    with hosts.open("a") as added:
        added.write("192.0.2.9 mine\n")
    spec = controller._core.specs[box.container]
    await controller.connect(box.container, "a", "lan", EndpointSettings(), spec)
    assert hosts.read_text().endswith("172.17.0.2\ta\n10.77.0.2\ta\n192.0.2.9 mine\n")
    await controller.disconnect(box.container, "lan")
    assert hosts.read_text().endswith("172.17.0.2\ta\n192.0.2.9 mine\n")
    await controller.teardown(box.container)
    await controller.setup(spec)
    assert "mine" not in hosts.read_text(), "a start makes it anew, as in Docker"


async def test_endpoint_sysctls_interface_name_and_mac(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    wish = EndpointSettings(mac_address="02:42:00:00:00:99", driver_opts={
        "com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.arp_ignore=2",
        "com.docker.network.endpoint.ifname": "lan7",
    })  # fmt: skip
    box = await start("a", wish=wish)

    def look() -> tuple[set[str], str | None, str]:
        with NetlinkSocket() as netlink:
            link = rt.link(netlink, "lan7")
        return links(), sysctl.read("net.ipv4.conf.lan7.log_martians"), link.mac if link else ""

    assert host.inside(box.netns, look) == ({"lo", "lan7"}, "1", "02:42:00:00:00:99")
    bad = EndpointSettings(driver_opts={"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.no_such=1"})
    with pytest.raises(DockyardError, match=r"cannot set sysctl net.ipv4.conf.eth0.no_such=1 of interface eth0"):
        await start("b", wish=bad)
    await controller.forget("b" * 64)


async def test_static_address_is_held_while_its_container_runs(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network(network("10.77.0.0/29"))
    wish = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="10.77.0.2"))
    old = await start("a", "lan", wish=wish)
    await controller.connect("b" * 64, "b", "lan", wish)
    with pytest.raises(DockyardError, match="Address already in use"):
        await controller.setup(_spec(controller, "b", host.run / "b"))
    assert controller.settings_of((await start("c", "lan")).container)["Networks"]["lan"]["IPAddress"] == "10.77.0.3"
    await controller.forget(old.container)
    assert controller.settings_of((await start("d", "lan")).container)["Networks"]["lan"]["IPAddress"] == "10.77.0.4", (
        "b waits for .2"
    )
    box = await controller.setup(_spec(controller, "b", host.run / "b"))
    assert controller.settings_of(box.container)["Networks"]["lan"]["IPAddress"] == "10.77.0.2"
    for name in ("e", "f"):
        await start(name, "lan")
    with pytest.raises(
        DockyardError, match=r"no available IPv4 addresses on this network's address pools: lan \(10.77.0.0/29\)"
    ):
        await start("g", "lan")
    await controller.forget("g" * 64)


def _spec(controller: Controller, name: str, where: Path) -> Any:
    from dockyard.network import SandboxSpec

    where.mkdir(parents=True, exist_ok=True)
    return SandboxSpec((name * 64)[:64], name, name, str(where), mode="lan")


async def test_macvlan_on_a_vlan(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    try:
        host.command("ip", "link", "add", "link", "eth0", "name", "probe0", "type", "vlan", "id", "9")
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no VLAN interfaces")
    host.command("ip", "link", "del", "probe0")
    vlan = {"Driver": "macvlan", "Options": {"parent": "eth0.50"}, "IPAM": {"Config": [{"Subnet": "10.50.0.0/24"}]}}
    await controller.create_network({"Name": "fifty", **vlan})
    vlan["IPAM"] = {"Config": [{"Subnet": "10.51.0.0/24"}]}
    await controller.create_network({"Name": "fifty2", **vlan})
    box = await start("b", "fifty2")
    await controller.remove_network("fifty")
    assert "eth0.50" in host.links(), "another network uses it"
    assert host.inside(box.netns, links) == {"lo", "eth0"}
    await controller.forget(box.container)
    await controller.remove_network("fifty2")
    assert "eth0.50" not in host.links()


async def test_internal_macvlan_leads_nowhere(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "nowhere", "Driver": "macvlan", "Internal": True})
    one, two = await start("c", "nowhere"), await start("d", "nowhere")
    address = controller.settings_of(one.container)["Networks"]["nowhere"]["IPAddress"]
    with host.server(one.netns, "0.0.0.0", 80):
        assert host.fetch(two.netns, address, 80) != ""


async def test_null_ipam_gives_no_addresses(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    body = {"Name": "dhcp", "Driver": "macvlan", "Options": {"parent": "eth0"}, "IPAM": {"Driver": "null"}}
    await controller.create_network(body)
    box = await start("a", "dhcp")
    place = controller.settings_of(box.container)["Networks"]["dhcp"]
    assert (place["IPAddress"], place["MacAddress"][:6]) == ("", "02:42:")
    assert host.inside(box.netns, links) == {"lo", "eth0"}


async def test_overlap_names_the_clash_and_routes_are_warned_of(host, controller: Controller) -> None:  # type: ignore[no-untyped-def]
    host.command("ip", "route", "add", "10.8.0.0/16", "via", OUTSIDE)
    _, warning = await controller.create_network(network("10.8.3.0/24"))
    assert "overlaps the host's route to 10.8.0.0/16" in warning
    with pytest.raises(DockyardError, match=r"10.8.0.0/20 and 10.8.3.0/24 of network lan") as caught:
        await controller.create_network({**network("10.8.0.0/20"), "Name": "two"})
    assert "docker network rm lan" in caught.value.hint
    host.command("ip", "route", "add", "172.18.0.0/15", "via", OUTSIDE)
    made, _ = await controller.create_network({"Name": "auto"})
    assert made.subnets[0].subnet == "172.20.0.0/16", "clear of the host's routes"


async def test_resolv_conf_follows_the_host_until_somebody_edits_it(  # type: ignore[no-untyped-def]
    host, controller: Controller, start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "resolv.conf"
    monkeypatch.setattr(hostfiles, "RESOLV_CONF", conf)
    conf.write_text("nameserver 192.0.2.1\nsearch lab\n")
    box = await start("a")
    inside = tmp_path / "a" / "resolv.conf"
    assert "nameserver 192.0.2.1" in inside.read_text()
    spec = controller._core.specs[box.container]
    conf.write_text("nameserver 192.0.2.2\n")
    await controller.teardown(box.container)
    await controller.setup(spec)
    assert "nameserver 192.0.2.2" in inside.read_text()
    inside.write_text("nameserver 192.0.2.77\n")
    await controller.teardown(box.container)
    await controller.setup(spec)
    assert inside.read_text() == "nameserver 192.0.2.77\n"
    conf.write_text("nameserver 127.0.0.1\n")
    await start("b")
    assert "nameserver 127.0.0.11" in (tmp_path / "b" / "resolv.conf").read_text(), (
        "the host's loopback server through us"
    )
