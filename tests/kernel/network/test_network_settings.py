"""The daemon's flags about networks, each seen from a packet's or an administrator's side."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dockyard.errors import DockyardError, InvalidParameter
from dockyard.kernel import sysctl
from dockyard.model import EndpointSettings, PortBinding
from dockyard.network import Controller, NetworkSettings, SandboxSpec

pytestmark = pytest.mark.root
OUTSIDE, HOST = "198.51.100.1", "198.51.100.2"
WEB = {"80/tcp": [PortBinding(host_port="8080")]}
BRIDGE = "com.docker.network.bridge."


def place(controller: Controller, name: str, network: str = "bridge") -> dict[str, Any]:
    return dict(controller.settings_of((name * 64)[:64])["Networks"][network])


def spec(name: str, where: Path, **more: Any) -> SandboxSpec:
    where.mkdir(parents=True, exist_ok=True)
    return SandboxSpec((name * 64)[:64], name, name, str(where), **more)


def refused(host, where: Any, address: str, port: int) -> bool:  # type: ignore[no-untyped-def]
    """Whether a connection is answered at once by a reset."""

    def call() -> bool:
        try:
            socket.create_connection((address, port), 2).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False

    return bool(call() if where is None else host.inside(where, call))


@pytest.mark.parametrize(
    "settings",
    [NetworkSettings(bip="10.9.0.1/16", fixed_cidr="10.9.3.0/24", default_gateway="10.9.0.254", mtu=1300, ip_masq=False)],
)
async def test_default_bridge_by_flags(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await start("a")
    assert place(controller, "a")["IPAddress"] == "10.9.3.0"
    assert place(controller, "a")["Gateway"] == "10.9.0.254"
    assert host.links()["docker0"].mtu == 1300
    document = controller.document(controller.network("bridge"))
    assert document["IPAM"]["Config"][0] == {
        "Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1", "IPRange": "10.9.3.0/24",
        "AuxiliaryAddresses": {"DefaultGatewayIPv4": "10.9.0.254"},
    }  # fmt: skip
    assert document["Options"][f"{BRIDGE}enable_ip_masquerade"] == "false"
    assert "masked" in host.nft("list table ip dockyard")
    assert "docker0" not in host.nft("list set ip dockyard masked")


@pytest.mark.parametrize("settings", [NetworkSettings(ipv6=True, bip6="fd99::1/64", fixed_cidr_v6="fd99::80/121")])
async def test_ipv6_on_the_default_bridge(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    web = await start("a", bindings=WEB)
    assert place(controller, "a")["GlobalIPv6Address"] == "fd99::80"
    assert place(controller, "a")["IPv6Gateway"] == "fd99::1"
    assert sysctl.read("net.ipv6.conf.all.forwarding") == "1"
    await controller._sandboxes._publishing._proxy.settled()
    with host.server(web.netns, "::", 80):
        assert host.fetch(None, "fd99::1", 8080) != ""
        assert host.fetch(None, "::1", 8080) == "fd99::1", "by the proxy: the kernel cannot translate ::1"


async def test_ipv6_clients_of_an_ipv4_container(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    web = await start("a", bindings={**WEB, "53/udp": [PortBinding(host_port="5353")]})
    proxy = controller._sandboxes._publishing._proxy
    assert proxy
    await proxy.settled()
    with host.server(web.netns, "0.0.0.0", 80):
        assert host.fetch(None, "::1", 8080) == "172.17.0.1"
        assert host.fetch(None, "127.0.0.1", 8080) == "172.17.0.1"
    server = host.inside(web.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with server, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        server.bind(("0.0.0.0", 53))
        server.settimeout(5)
        client.settimeout(5)
        client.sendto(b"who", ("::1", 5353))
        data, peer = await asyncio.to_thread(server.recvfrom, 100)
        server.sendto(data + b" me", peer)
        assert await asyncio.to_thread(client.recv, 100) == b"who me"
    await controller.forget(web.container)
    assert refused(host, None, "::1", 8080)
    await start("b", bindings=WEB)


async def test_proxied_ports_outlive_the_daemon_and_end_with_the_container(host, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first = await Controller.open(host.root, host.run, NetworkSettings())
    await first.recover({}, {})
    made = spec("a", tmp_path / "a", bindings=WEB)
    await first.connect(made.container_id, "a", "bridge", EndpointSettings())
    box = await first.setup(made)
    await first._sandboxes._publishing._proxy.settled()  # type: ignore[union-attr]
    await first.close()
    with host.server(box.netns, "0.0.0.0", 80):
        assert host.fetch(None, "::1", 8080) == "172.17.0.1", "without any daemon"
        second = await Controller.open(host.root, host.run, NetworkSettings())
        await second.recover({made.container_id: 1}, {made.container_id: made})
        await second._sandboxes._publishing._proxy.settled()  # type: ignore[union-attr]
        assert host.fetch(None, "::1", 8080) == "172.17.0.1"
    await second.close()
    helper = await Controller.open(host.root, host.run, NetworkSettings())  # as the exit helper does: without recover
    await helper.forget(made.container_id)
    assert refused(host, None, "::1", 8080)
    await helper.uninstall()
    await helper.close()


async def test_proxy_ends_with_the_engines_directory(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await start("a", bindings=WEB)
    await controller._sandboxes._publishing._proxy.settled()  # type: ignore[union-attr]
    control = host.run / "port-proxy"

    def processes() -> list[str]:
        found = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if str(control).encode() in _read(path)]
        return [pid for pid in found if int(pid) != os.getpid()]

    (pid,) = processes()
    descriptor = os.pidfd_open(int(pid))
    control.unlink()
    assert select.select([descriptor], [], [], 30)[0], "it looks around every ten seconds"
    os.close(descriptor)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def test_neighbours_are_told_of_a_new_holder(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "lan", "Options": {"com.docker.network.container_iface_prefix": "lan"}})
    other = await start("b", "lan")
    box = await start("a", "lan", wish=EndpointSettings(mac_address="02:42:00:00:00:01"))
    address = place(controller, "a", "lan")["IPAddress"]

    def neighbour() -> str:
        return str(host.command("ip", "neigh", "show", address))

    with host.server(box.netns, "0.0.0.0", 80):
        assert host.fetch(other.netns, address, 80) != ""
        assert "dev lan0 lladdr 02:42:00:00:00:01" in host.inside(other.netns, neighbour)
    await controller.forget(box.container)
    box = await start("c", "lan", wish=EndpointSettings(mac_address="02:42:00:00:00:02"))
    assert place(controller, "c", "lan")["IPAddress"] == address
    with host.server(box.netns, "0.0.0.0", 80):
        assert host.fetch(other.netns, address, 80, 1.0) != "", "no neighbour asks the old one first"


@pytest.mark.parametrize("settings", [NetworkSettings(userland_proxy=False, ipv6=True)])
async def test_without_userland_proxy(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    web = await start("a", bindings=WEB)
    with host.server(web.netns, "::", 80), host.server(web.netns, "0.0.0.0", 80):
        assert host.fetch(None, "127.0.0.1", 8080) == "172.17.0.1"
        assert host.fetch(web.netns, HOST, 8080) == "172.17.0.1", "hairpin"
        assert refused(host, None, "::1", 8080), "clients go on to 127.0.0.1 at once"
        assert host.fetch(host.outside, HOST, 8080) == OUTSIDE
    assert not (host.run / "port-proxy").exists()


@pytest.mark.parametrize("settings", [NetworkSettings(iptables=False, ip_forward=False)])
async def test_iptables_false_makes_no_rules_and_publishes_by_process(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    web = await start("a", bindings=WEB)
    proxy = controller._sandboxes._publishing._proxy
    assert proxy
    await proxy.settled()
    assert host.nft("list tables") == ""
    with host.server(web.netns, "0.0.0.0", 80):
        assert host.fetch(host.outside, HOST, 8080) == "172.17.0.1"
        assert host.fetch(None, "127.0.0.1", 8080) == "172.17.0.1"
    assert sysctl.read("net.ipv4.ip_forward") == "0"


async def test_iptables_false_does_not_open_the_host(host) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DockyardError, match="IPv4 forwarding is disabled: check your host's firewalling"):
        await Controller.open(host.root, host.run, NetworkSettings(iptables=False))


async def test_switching_forwarding_on_does_not_make_a_router_of_the_host(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    assert sysctl.read("net.ipv4.ip_forward") == "1"
    assert '"eth0"' in host.nft("list set ip dockyard uplinks")
    with host.server(host.outside, OUTSIDE, 7000):
        box = await start("a")
        assert host.fetch(box.netns, OUTSIDE, 7000) == HOST


async def test_iptables_back_end(host, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    controller = await Controller.open(host.root, host.run, NetworkSettings(firewall_backend="iptables"))
    made = {name: spec(name, tmp_path / name, mode=mode, bindings=ports) for name, mode, ports in (
        ("a", "bridge", WEB), ("b", "far", {}), ("c", "shut", {}))}  # fmt: skip
    heard: list[tuple[str, dict[str, Any]]] = []
    controller.listen(lambda action, attributes: heard.append((action, attributes)))
    try:
        await controller.recover({}, {})
        host.command("iptables", "-I", "DOCKER-USER", "-d", "203.0.113.7", "-j", "DROP")
        await controller.create_network({"Name": "far"})
        await controller.create_network({"Name": "shut", "Internal": True})
        for name, item in made.items():
            await controller.connect(item.container_id, name, item.mode, EndpointSettings())
        web, far, shut = [await controller.setup(item) for item in made.values()]
        address = place(controller, "a")["IPAddress"]
        with host.server(web.netns, "0.0.0.0", 80), host.server(host.outside, OUTSIDE, 7000):
            assert host.fetch(host.outside, HOST, 8080) == OUTSIDE
            assert host.fetch(None, "127.0.0.1", 8080) == "172.17.0.1"
            assert host.fetch(web.netns, HOST, 8080) != "", "hairpin"
            assert host.fetch(far.netns, HOST, 8080) != ""
            assert host.fetch(far.netns, address, 80, 0.3) == "", "networks are isolated"
            assert host.fetch(far.netns, OUTSIDE, 7000) == HOST, "masqueraded"
            assert host.fetch(shut.netns, OUTSIDE, 7000, 0.3) == ""
        assert "table ip dockyard" not in host.nft("list tables")
        assert "-A DOCKER-USER -d 203.0.113.7/32 -j DROP" in host.command("iptables", "-S")
        await controller.forget(web.container)
        assert "8080" not in host.command("iptables-save")
        host.command("iptables", "-t", "nat", "-F")
        assert controller._watch
        async with asyncio.timeout(10):
            await controller._watch.restored.wait()
        assert heard == [("firewall-restored", {"by": "iptables"})], "told once, and not of what was our own doing"
        assert "-j DOCKYARD" in host.command("iptables-save", "-t", "nat")
        host.command("iptables", "-F", "DOCKER-USER")
        for item in made.values():
            await controller.forget(item.container_id)
        for name in ("far", "shut"):
            await controller.remove_network(name)
        await controller.uninstall()
        assert "DOCK" not in host.command("iptables-save") + host.command("ip6tables-save")
    finally:
        await controller.close()
        host.nft("flush ruleset")  # tables of iptables itself stay


async def test_administrators_own_bridge_is_left_as_it_is(host, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    settings = NetworkSettings(bridge="lan0")
    with pytest.raises(InvalidParameter, match="bridge device with non default name lan0 must be created manually"):
        await Controller.open(host.root, host.run, settings)
    host.command("ip", "link", "add", "lan0", "type", "bridge")
    host.command("ip", "addr", "add", "10.200.0.7/24", "dev", "lan0")
    controller = await Controller.open(host.root, host.run, settings)
    try:
        await controller.recover({}, {})
        made = spec("a", tmp_path / "a", bindings=WEB)
        await controller.connect(made.container_id, "a", "bridge", EndpointSettings())
        box = await controller.setup(made)
        assert (place(controller, "a")["IPAddress"], place(controller, "a")["Gateway"]) == ("10.200.0.1", "10.200.0.7")
        with host.server(box.netns, "0.0.0.0", 80):
            assert host.fetch(host.outside, HOST, 8080) == OUTSIDE
        await controller.forget(made.container_id)
        await controller.uninstall()
    finally:
        await controller.close()
    assert "lan0" in host.settled()
    host.command("ip", "link", "del", "lan0")


async def test_default_bridge_follows_changed_flags(host, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first = await Controller.open(host.root, host.run, NetworkSettings())
    await first.recover({}, {})
    number = first.network("bridge").id
    made = spec("a", tmp_path / "a")
    await first.connect(made.container_id, "a", "bridge", EndpointSettings())
    await first.setup(made)
    await first.close()
    changed = NetworkSettings(bip="10.3.0.1/24", icc=False)
    second = await Controller.open(host.root, host.run, changed)
    await second.recover({made.container_id: 1}, {made.container_id: made})
    assert second.network("bridge").subnets[0].subnet == "172.17.0.0/16", "not under a running container"
    await second.teardown(made.container_id)
    await second.close()
    third = await Controller.open(host.root, host.run, changed)
    try:
        await third.recover({}, {})
        assert third.network("bridge").id == number
        assert third.network("bridge").subnets[0].gateway == "10.3.0.1"
        await third.setup(made)
        assert place(third, "a")["IPAddress"] == "10.3.0.2"
        await third.forget(made.container_id)
        await third.uninstall()
    finally:
        await third.close()


async def test_table_of_an_engine_that_is_gone_is_taken_over(host, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first = await Controller.open(tmp_path / "first", host.run, NetworkSettings())
    await first.recover({}, {})
    made = spec("a", tmp_path / "a", bindings=WEB)
    await first.connect(made.container_id, "a", "bridge", EndpointSettings())
    await first.setup(made)
    await first.close()
    assert "8080" in host.nft("list table ip dockyard")
    beside = await Controller.open(host.root, tmp_path / "run2", NetworkSettings())
    assert beside._records.meta("table").startswith("dockyard_"), "the first one may come back"
    await beside.close()
    shutil.rmtree(host.root)
    shutil.rmtree(tmp_path / "first")
    second = await Controller.open(host.root, host.run, NetworkSettings())
    await second.recover({}, {})
    assert second._records.meta("table") == "dockyard"
    assert "8080" not in host.nft("list table ip dockyard")
    await second.uninstall()
    await second.close()
    host.command("ip", "link", "del", "docker0")


async def test_default_bridge_evades_an_engine_that_came_first(host) -> None:  # type: ignore[no-untyped-def]
    first = await Controller.open(host.root, host.run, NetworkSettings())
    await first.recover({}, {})
    number = first.network("bridge").id
    await first.uninstall()
    await first.close()
    host.command("ip", "link", "add", "docker0", "type", "bridge")
    host.command("ip", "link", "set", "docker0", "up")
    host.command("ip", "addr", "add", "172.17.5.1/16", "dev", "docker0")
    second = await Controller.open(host.root, host.run, NetworkSettings())
    await second.recover({}, {})
    made = second.network("bridge")
    assert (made.id, made.bridge, made.subnets[0].subnet) == (number, "dockyard0", "172.18.0.0/16")
    assert "172.17.0.1" not in host.command("ip", "addr", "show", "docker0")
    await second.uninstall()
    await second.close()
    host.command("ip", "link", "del", "docker0")


async def test_no_default_bridge(host) -> None:  # type: ignore[no-untyped-def]
    controller = await Controller.open(host.root, host.run, NetworkSettings(bridge="none"))
    await controller.recover({}, {})
    assert {network.name for network in controller.networks()} == {"host", "none"}
    await controller.uninstall()
    await controller.close()


async def test_two_engines_in_one_namespace(host, controller: Controller, start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = await Controller.open(tmp_path / "other", tmp_path / "otherrun", NetworkSettings())
    try:
        await other.recover({}, {})
        assert other.network("bridge").bridge == "dockyard0"
        web = await start("a", bindings=WEB)
        made = spec("b", tmp_path / "b", bindings={"80/tcp": [PortBinding(host_port="8081")]})
        await other.connect(made.container_id, "b", "bridge", EndpointSettings())
        box = await other.setup(made)
        await controller.recover({web.container: 1}, dict(controller._core.specs))
        with host.server(web.netns, "0.0.0.0", 80), host.server(box.netns, "0.0.0.0", 80):
            assert host.fetch(host.outside, HOST, 8080) == OUTSIDE
            assert host.fetch(host.outside, HOST, 8081) == OUTSIDE
            assert host.fetch(box.netns, HOST, 8080) != ""
            assert host.fetch(box.netns, place(controller, "a")["IPAddress"], 80, 0.3) == "", "isolated from each other"
        clash = spec("c", tmp_path / "c", bindings=WEB)
        await other.connect(clash.container_id, "c", "bridge", EndpointSettings())
        with pytest.raises(DockyardError, match=r"failed to bind host port 0.0.0.0:8080/tcp: address already in use"):
            await other.setup(clash)
        await other.forget(made.container_id)
        await other.uninstall()
    finally:
        await other.close()


@pytest.mark.parametrize("settings", [NetworkSettings(default_address_pools=(("10.64.0.0/16", 24), ("fd64::/48", 64)),
                                                      default_network_opts={"bridge": {"com.docker.network.driver.mtu": "1300"}})])  # fmt: skip
async def test_small_pools_and_default_options(host, controller: Controller) -> None:  # type: ignore[no-untyped-def]
    one, _ = await controller.create_network({"Name": "one", "EnableIPv6": True})
    assert [item.subnet for item in one.subnets] == ["10.64.1.0/24", "fd64::/64"]
    assert host.links()[one.bridge].mtu == 1300


async def test_events_tell_of_a_restored_firewall(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    heard: list[tuple[str, dict[str, Any]]] = []
    controller.listen(lambda action, attributes: heard.append((action, attributes)))
    host.command("nft", "flush", "ruleset")
    assert controller._watch
    async with asyncio.timeout(10):
        await controller._watch.restored.wait()
    assert heard == [("firewall-restored", {"by": "nft"})]


@pytest.mark.parametrize("settings", [NetworkSettings(allow_direct_routing=True, bridge_accept_fwmark="0x4/0x4")])
async def test_settings_survive_the_exit_helpers_file(settings: NetworkSettings) -> None:
    assert msgspec.json.decode(msgspec.json.encode(settings), type=NetworkSettings) == settings
