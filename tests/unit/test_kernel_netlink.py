"""Messages that we pack by hand, read back by pyroute2: the oracle also for kinds of links that this kernel lacks."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from dockyard.kernel import netlink_route as rt
from dockyard.kernel.netlink import Message


def read(message: Message) -> Any:
    """The message as pyroute2 understands it."""
    head = struct.pack("=IHHII", len(message.body) + 16, message.kind, message.flags, 1, 0)
    found = ifinfmsg(head + message.body)
    found.decode()
    return found


def info(message: Message) -> tuple[str, Any]:
    nest = read(message).get_attr("IFLA_LINKINFO")
    return nest.get_attr("IFLA_INFO_KIND"), nest.get_attr("IFLA_INFO_DATA")


@pytest.mark.parametrize(("mode", "number"), [("l2", 0), ("l3", 1), ("l3s", 2)])
def test_ipvlan(mode: str, number: int) -> None:
    message = rt.add_ipvlan("eth0", parent=7, mode=mode, flag="vepa", mtu=1400, netns=9)
    kind, data = info(message)
    assert kind == "ipvlan"
    assert data.get_attr("IFLA_IPVLAN_MODE") == number
    found = read(message)
    assert (found.get_attr("IFLA_LINK"), found.get_attr("IFLA_MTU"), found.get_attr("IFLA_NET_NS_FD")) == (7, 1400, 9)


def test_macvlan() -> None:
    message = rt.add_macvlan("eth1", parent=3, mode="private", mtu=0, netns=5, mac="02:42:0a:00:00:02")
    kind, data = info(message)
    assert kind == "macvlan"
    assert data.get_attr("IFLA_MACVLAN_MODE") == "private"
    assert read(message).get_attr("IFLA_ADDRESS") == "02:42:0a:00:00:02"
    assert read(message).get_attr("IFLA_MTU") is None


def test_vlan() -> None:
    kind, data = info(rt.add_vlan("eth0.50", parent=2, tag=50))
    assert (kind, data.get_attr("IFLA_VLAN_ID")) == ("vlan", 50)


def test_veth_with_its_peer_in_another_namespace() -> None:
    message = rt.add_veth("veth1234567", mtu=1450, bridge=4, netns=8, peer="eth0", mac="02:42:0a:00:00:03")
    kind, data = info(message)
    peer = data.get_attr("VETH_INFO_PEER")
    assert kind == "veth"
    assert read(message).get_attr("IFLA_MASTER") == 4
    assert (peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_NET_NS_FD")) == ("eth0", 8)
    assert peer.get_attr("IFLA_ADDRESS") == "02:42:0a:00:00:03"


def test_bridge_keeps_its_mac() -> None:
    message = rt.add_bridge("docker0", mac="02:42:ac:11:00:01", mtu=1500, filtered=True)
    kind, data = info(message)
    assert kind == "bridge"
    assert read(message).get_attr("IFLA_ADDRESS") == "02:42:ac:11:00:01"
    assert data.get_attr("IFLA_BR_NF_CALL_IPTABLES") == 1
