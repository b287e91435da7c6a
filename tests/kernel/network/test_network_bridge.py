"""Containers on bridges of a throw-away host: who reaches whom, by which address, and what is left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dockyard.kernel.nft import NftError
from dockyard.model import EndpointSettings, PortBinding
from dockyard.network import Controller, NetworkSettings, Sandbox, SandboxSpec

pytestmark = pytest.mark.root
OUTSIDE, HOST = "198.51.100.1", "198.51.100.2"


def address(controller: Controller, sandbox: Sandbox, network: str = "bridge") -> str:
    return str(controller.settings_of(sandbox.container)["Networks"][network]["IPAddress"])


async def restored(controller: Controller) -> None:
    """Until the next repair of the firewall."""
    assert controller._watch is not None
    async with asyncio.timeout(5):
        await controller._watch.restored.wait()
    controller._watch.restored.clear()


async def test_published_port_is_reached_from_everywhere(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    ports = {"80/tcp": [PortBinding(host_port="8080")]}
    web = await start("a", bindings=ports)
    other = await start("b")
    await controller.create_network({"Name": "far"})
    far = await start("c", "far")
    with host.server(web.netns, "0.0.0.0", 80):
        assert host.fetch(host.outside, HOST, 8080) == OUTSIDE, "the client's address is kept"
        assert host.fetch(None, "127.0.0.1", 8080) == "172.17.0.1"
        assert host.fetch(None, HOST, 8080) == HOST
        assert host.fetch(web.netns, HOST, 8080) != "", "hairpin to itself"
        assert host.fetch(other.netns, HOST, 8080) != ""
        assert host.fetch(far.netns, HOST, 8080) != "", "from another network by the host's address"
        assert host.fetch(other.netns, address(controller, web), 80) == address(controller, other)
        assert host.fetch(far.netns, address(controller, web), 80, 0.3) == "", "networks are isolated"
    assert host.links()["docker0"].mtu == 1400
    assert controller.settings_of(web.container)["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]
    }


async def test_outside_is_reached_masqueraded_and_reaches_nothing_unpublished(  # type: ignore[no-untyped-def]
    host, controller: Controller, start
) -> None:
    box = await start("a")
    from ipaddress import IPv4Address, IPv4Network

    from dockyard.kernel import netlink_route as rt
    from dockyard.kernel.netlink import NetlinkSocket
    from dockyard.kernel.netns import entered

    with host.server(host.outside, OUTSIDE, 7000):
        assert host.fetch(box.netns, OUTSIDE, 7000) == HOST
    with entered(host.outside), NetlinkSocket() as netlink:
        wire = rt.link(netlink, "wire")
        assert wire
        netlink.batch([rt.add_route(IPv4Network("172.17.0.0/16"), oif=wire.index, gateway=IPv4Address(HOST))])
    with host.server(box.netns, "0.0.0.0", 80):
        assert host.fetch(host.outside, address(controller, box), 80, 0.3) == "", "a neighbour with a route gets nowhere"


async def test_failure_leaves_nothing(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    ports = {"80/tcp": [PortBinding(host_port="8080")]}
    await start("a", bindings=ports)
    with pytest.raises(Exception, match=r"Bind for 0.0.0.0:8080 failed: port is already allocated"):
        await start("b", bindings=ports)
    assert len(host.links()) == 4, "lo, eth0, the bridge and the first container's"
    assert not (host.run / "netns" / ("b" * 64)).exists()
    await controller.teardown("a" * 64)
    assert host.settled() == {"lo", "eth0", "docker0"}
    await controller.forget("b" * 64)
    await start("b", bindings=ports)


async def test_what_is_half_made_is_taken_back(host, controller: Controller, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A container that is given up while its interfaces are made."""
    ports = {"80/tcp": [PortBinding(host_port="8080")]}
    made = SandboxSpec("a" * 64, "a", "a", str(tmp_path / "a"), mode="bridge", bindings=ports)
    (tmp_path / "a").mkdir()
    await controller.connect(made.container_id, "a", "bridge", EndpointSettings())
    netns = (await controller.begin(made)).netns
    assert Path(netns).exists(), "a container can be made at once"
    assert (tmp_path / "a" / "resolv.conf").exists()
    await controller.forget(made.container_id)
    await controller.wired(made.container_id)
    assert host.settled() == {"lo", "eth0", "docker0"}
    assert "8080" not in host.nft("list table ip dockyard")
    assert not Path(netns).exists()


async def test_table_lost_is_made_again_by_recover(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    web = await start("a", bindings={"80/tcp": [PortBinding(host_port="8080")]})
    host.nft("flush ruleset")
    with pytest.raises(NftError):
        host.nft("list table ip dockyard")
    with host.server(web.netns, "0.0.0.0", 80):
        await controller.recover({web.container: 1}, dict(controller._core.specs))
        assert host.fetch(host.outside, HOST, 8080) == OUTSIDE


async def test_flush_by_another_program_is_healed(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    web = await start("a", bindings={"80/tcp": [PortBinding(host_port="8080")]})
    host.command("nft", "flush", "ruleset")
    await restored(controller)
    with host.server(web.netns, "0.0.0.0", 80):
        assert host.fetch(host.outside, HOST, 8080) == OUTSIDE


async def test_forward_policy_of_another_engine_is_passed(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    box = await start("a")
    host.command("iptables", "-P", "FORWARD", "DROP")
    with host.server(host.outside, OUTSIDE, 7000):
        await restored(controller)
        assert host.fetch(box.netns, OUTSIDE, 7000) == HOST
        host.command("iptables", "-A", "DOCKER-USER", "-d", OUTSIDE, "-j", "DROP")
        assert host.fetch(box.netns, OUTSIDE, 7000, 0.3) == "", "the administrator's rule has its say"
        listed = host.command("iptables", "-S", "FORWARD")
        assert "-A FORWARD -o docker0 -j ACCEPT" in listed
        host.command("iptables", "-P", "FORWARD", "ACCEPT")
        await restored(controller)
        assert "docker0" not in host.command("iptables", "-S")
        host.command("iptables", "-F", "DOCKER-USER")


def echoed(place: str, ended: threading.Event) -> Callable[[], None]:
    """A UDP server opened where this is called; what it returns serves until ``ended``."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((place, 7000))
    server.settimeout(0.1)

    def serve() -> None:
        with server:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    server.sendto(*server.recvfrom(100))

    return serve


def asking(target: tuple[str, int], ended: threading.Event, seen: list[str]) -> None:
    """Question after question, each from a new port; ``seen`` has "lost" for those that nobody answered."""
    while not ended.is_set():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.sendto(b"?", target)
            try:
                seen.append(client.recv(100).decode())
            except TimeoutError:
                seen.append("lost")


async def test_a_restart_of_the_daemon_loses_no_packet(host, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Each question is a new flow, so rules, masquerade and published port are needed at every instant."""
    ports = {"7000/udp": [PortBinding(host_port="8080")]}
    made = SandboxSpec("a" * 64, "a", "a", str(tmp_path / "a"), mode="bridge", bindings=ports)
    (tmp_path / "a").mkdir()
    controller = await Controller.open(host.root, host.run, NetworkSettings())
    await controller.recover({}, {})
    await controller.connect(made.container_id, "a", "bridge", EndpointSettings())
    netns = (await controller.setup(made)).netns
    asked, ended, out, back = threading.Event(), threading.Event(), list[str](), list[str]()
    serving = [host.inside(host.outside, lambda: echoed(OUTSIDE, ended)), host.inside(netns, lambda: echoed("0.0.0.0", ended))]
    asks = [
        lambda: host.inside(netns, lambda: asking((OUTSIDE, 7000), asked, out)),
        lambda: host.inside(host.outside, lambda: asking((HOST, 8080), asked, back)),
    ]
    servers, clients = ([threading.Thread(target=job) for job in jobs] for jobs in (serving, asks))
    for thread in servers + clients:
        thread.start()
    try:
        for _ in range(5):
            await controller.close()
            controller = await Controller.open(host.root, host.run, NetworkSettings())
            await controller.recover({made.container_id: 1}, {made.container_id: made})
    finally:
        for event, threads in ((asked, clients), (ended, servers)):  # the last question is answered, too
            event.set()
            for thread in threads:
                await asyncio.to_thread(thread.join)
        await controller.forget(made.container_id)
        await controller.uninstall()
        await controller.close()
    assert (set(out), set(back)) == ({"?"}, {"?"})


FIREWALLD = """
table inet firewalld {
 chain filter_FORWARD {
  type filter hook forward priority filter + 10; policy accept;
  ct state { established, related } accept
  ct status dnat accept
  jump filter_FORWARD_ZONES
  reject with icmpx admin-prohibited
 }
 chain filter_FORWARD_ZONES {
  iifname "eth0" goto filter_FWD_public
  goto filter_FWD_public
 }
 chain filter_FWD_public {
  oifname "eth0" accept
 }
 chain filter_FWD_trusted {
  accept
 }
}
"""
"""What firewalld 1.3.3 makes of its default zone with one interface, without the chains that are empty."""
PROGRAM = """#!/bin/sh
echo "$@" >> {log}
for word; do
  case $word in
  --add-interface=*) nft insert rule inet firewalld filter_FORWARD_ZONES iifname ${{word#*=}} goto filter_FWD_trusted;;
  esac
done
"""


async def test_firewalld_lets_containers_talk_also_after_a_reload(  # type: ignore[no-untyped-def]
    host, controller: Controller, start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """firewalld's table and its program, as it was seen at work (the real one: same answers, 1 s slower)."""
    log, program = tmp_path / "asked", tmp_path / "bin" / "firewall-cmd"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(log=log))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    a, b = await start("a"), await start("b")
    try:
        host.command("nft", FIREWALLD)
        await restored(controller)
        with host.server(a.netns, "0.0.0.0", 80):
            assert host.fetch(b.netns, address(controller, a), 80) == address(controller, b)
            host.command("nft", "delete table inet firewalld\n" + FIREWALLD)
            await restored(controller)
            assert host.fetch(b.netns, address(controller, a), 80) == address(controller, b)
        await controller.create_network({"Name": "far"})
        await controller.remove_network("far")
        host.command("nft", "add rule inet firewalld filter_FORWARD_ZONES iifname br-own goto filter_FWD_public")
        await controller.create_network({"Name": "own", "Options": {"com.docker.network.bridge.name": "br-own"}})
    finally:
        host.command("nft", "delete table inet firewalld")
    asked = log.read_text().splitlines()
    assert asked[:2] == ["--zone=trusted --add-interface=docker0"] * 2
    assert [line.split()[1].partition("=")[0] for line in asked[2:]] == ["--add-interface", "--remove-interface"]
    assert not any("br-own" in line for line in asked), "it has a zone by the administrator"
