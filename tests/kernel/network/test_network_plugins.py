"""Drivers in other processes: libnetwork's remote network and IPAM protocols, with test programs at the other end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dockyard.errors import InvalidParameter, NotFound, System
from dockyard.kernel import netlink_route as rt
from dockyard.kernel.netlink import NetlinkSocket
from dockyard.model import EndpointSettings, PortBinding
from dockyard.network import Controller
from dockyard.testing import netplugins as plugin

pytestmark = pytest.mark.root


@pytest.fixture
def driver(host) -> Iterator[Any]:  # type: ignore[no-untyped-def]
    made = plugin.Driver(host.run / "plugins" / "wires.sock", host.own)
    yield made
    made.close()


@pytest.fixture
def addresses(host) -> Iterator[Any]:  # type: ignore[no-untyped-def]
    made = plugin.Addresses(host.run / "hidden" / "numbers.sock")
    (host.run / "specs").mkdir(parents=True, exist_ok=True)
    spec = {"Name": "numbers", "Addr": f"unix://{host.run}/hidden/numbers.sock"}
    (host.run / "specs" / "numbers.json").write_text(json.dumps(spec))
    yield made
    made.close()


def facts() -> tuple[set[str], list[str]]:
    """Names of links and destinations of routes, of the namespace that it runs in."""
    with NetlinkSocket() as netlink:
        names = {link.name for link in rt.links(netlink)}
        routes = [f"{route.destination or 'default'} {route.gateway or ''}".strip() for route in rt.routes(netlink)]
        return names, sorted(routes)


async def test_whole_life_with_a_remote_driver(host, driver, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({
        "Name": "wired", "Driver": "wires", "Options": {"colour": "red"}, "IPAM": {"Config": [{"Subnet": "10.44.0.0/24"}]},
    })  # fmt: skip
    told = driver.asked("CreateNetwork")
    assert told["Options"]["com.docker.network.generic"] == {"colour": "red"}
    assert told["IPv4Data"] == [
        {"AddressSpace": "LocalDefault", "Pool": "10.44.0.0/24", "Gateway": "10.44.0.1/24", "AuxAddresses": {}}
    ]
    a = await start("a", "wired", exposed=("80/tcp",), wish=EndpointSettings(driver_opts={"speed": "high"}))
    b = await start("b", "wired")
    told = driver.asked("CreateEndpoint")
    assert told["Interface"] == {"Address": "10.44.0.3/24", "AddressIPv6": "", "MacAddress": ""}
    first = next(request for name, request in driver.calls if name.endswith("CreateEndpoint"))
    assert first["Options"]["com.docker.network.endpoint.exposedports"] == [{"Proto": 6, "Port": 80}]
    assert first["Options"]["speed"] == "high"
    assert driver.asked("Join")["SandboxKey"] == b.netns
    names, routes = host.inside(a.netns, facts)
    assert names == {"lo", "plug0"}
    assert routes == ["10.44.0.0/24", "192.0.2.0/24", "default 10.44.0.1"]
    place = controller.settings_of(a.container)["Networks"]["wired"]
    assert (place["IPAddress"], place["Gateway"]) == ("10.44.0.2", "10.44.0.1")
    assert place["MacAddress"].startswith("02:aa:")
    with host.server(a.netns, "0.0.0.0", 80):
        assert host.fetch(b.netns, "10.44.0.2", 80) == "10.44.0.3"
    driver.calls.clear()
    await controller.forget(a.container)
    assert driver.methods() == ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"]
    await controller.forget(b.container)
    await controller.remove_network("wired")
    assert driver.methods()[-1] == "DeleteNetwork"
    assert not any(name.startswith(("p", "h", "c")) for name in host.links())


async def test_container_without_a_way_out_gets_one(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    driver = plugin.Driver(host.run / "plugins" / "island.sock", host.own, gateway=False)
    try:
        await controller.create_network({"Name": "island", "Driver": "island"})
        await controller.create_network({"Name": "mainland"})
        a = await start("a", "island", bindings={"80/tcp": [PortBinding(host_port="8080")]})
        names, _ = host.inside(a.netns, facts)
        assert names == {"lo", "plug0", "eth0"}
        with host.server(host.outside, "198.51.100.1", 7000):
            assert host.fetch(a.netns, "198.51.100.1", 7000) == "198.51.100.2"
        with host.server(a.netns, "0.0.0.0", 80):
            assert host.fetch(host.outside, "198.51.100.2", 8080) == "198.51.100.1"
        assert list(controller.settings_of(a.container)["Networks"]) == ["island"]
        b = await start("b", "mainland")
        assert host.inside(b.netns, facts)[0] == {"lo", "eth0"}
        for box in (a, b):
            await controller.forget(box.container)
        for name in ("island", "mainland"):
            await controller.remove_network(name)
    finally:
        driver.close()


async def test_live_disconnect_gives_the_interface_back(host, driver, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "wired", "Driver": "wires", "IPAM": {"Config": [{"Subnet": "10.44.0.0/24"}]}})
    box = await start("a")
    spec = controller._core.specs[box.container]
    await controller.connect(box.container, "a", "wired", EndpointSettings(), spec)
    assert host.inside(box.netns, facts)[0] == {"lo", "eth0", "plug0"}
    seen: list[set[str]] = []
    leave = driver.Leave
    driver.Leave = lambda request: (seen.append(host.inside(host.own, facts)[0]), leave(request))[1]
    await controller.disconnect(box.container, "wired")
    assert any(name.startswith("c") for name in seen[0]), "the plugin finds its interface on the host again"
    assert host.inside(box.netns, facts)[0] == {"lo", "eth0"}
    await controller.remove_network("wired")


async def test_wrong_answers_are_told_and_undone(host, driver, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "wired", "Driver": "wires"})
    driver.wrong["NetworkDriver.Join"] = {"Err": "no free port on the switch"}
    with pytest.raises(System, match=r"plugin wires: NetworkDriver.Join: no free port on the switch"):
        await start("a", "wired")
    assert driver.methods()[-1] == "DeleteEndpoint"
    driver.wrong["NetworkDriver.Join"] = {"InterfaceName": {"SrcName": "../../etc"}}
    with pytest.raises(System, match="cannot read its answer"):
        await start("b", "wired")
    driver.wrong = {"NetworkDriver.CreateEndpoint": {"Interface": {"Address": "1.2.3.4/8"}}}
    with pytest.raises(System, match="it changed Address"):
        await start("c", "wired")
    driver.wrong.clear()
    for name in "abc":
        await controller.forget((name * 64)[:64])
    assert controller._records.sandboxes == {}
    await controller.remove_network("wired")


async def test_remote_ipam(host, addresses, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    network, _ = await controller.create_network({"Name": "counted", "IPAM": {"Driver": "numbers", "Options": {"rack": "7"}}})
    assert addresses.asked("RequestPool") == {
        "AddressSpace": "near", "Pool": "", "SubPool": "", "Options": {"rack": "7"}, "V6": False,
    }  # fmt: skip
    assert controller.document(network)["IPAM"] == {
        "Driver": "numbers", "Options": {"rack": "7"}, "Config": [{"Subnet": "10.99.1.0/24", "Gateway": "10.99.1.1"}],
    }  # fmt: skip
    box = await start("a", "counted")
    assert controller.settings_of(box.container)["Networks"]["counted"]["IPAddress"] == "10.99.1.50"
    addresses.given.clear()
    await controller.recover({box.container: 1}, dict(controller._core.specs))
    assert addresses.given == {"10.99.1.1", "10.99.1.50"}, "held addresses are asked for again (RequiresRequestReplay)"
    await controller.forget(box.container)
    await controller.remove_network("counted")
    assert addresses.given == set()
    assert addresses.methods()[-1] == "ReleasePool"


async def test_unknown_and_unfit_plugins(host, addresses, controller: Controller) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NotFound, match="could not find plugin weave in v1 plugin registry: plugin not found"):
        await controller.create_network({"Name": "x", "Driver": "weave"})
    with pytest.raises(NotFound, match="could not find plugin"):
        await controller.create_network({"Name": "x", "Driver": "../../tmp/evil"})
    with pytest.raises(InvalidParameter, match='does not implement the requested driver type "NetworkDriver"'):
        await controller.create_network({"Name": "x", "Driver": "numbers"})
    assert {network.name for network in controller.networks()} == {"bridge", "host", "none"}


async def test_after_a_crash_the_plugin_is_told(host, driver, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "wired", "Driver": "wires"})
    await start("a", "wired")
    driver.calls.clear()
    await controller.recover({}, {})
    assert driver.methods() == ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"]
    await controller.forget("a" * 64)
    await controller.remove_network("wired")
