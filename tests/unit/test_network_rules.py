"""The pure decisions of the network room: iptables' rules, DOCKER-USER, ports wanted, requests of any shape."""

from __future__ import annotations

import struct
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dockyard.errors import DockyardError, InvalidParameter
from dockyard.model import EndpointSettings, PortBinding
from dockyard.model.network import EndpointIPAMConfig
from dockyard.network import admission, coexist, creation, files, iptables, requests, routing
from dockyard.network.hostports import wanted
from dockyard.network.ipam import Ledger, choose_pool
from dockyard.network.model import Endpoint, Joined, Network, NetworkSettings, Published, Sandbox, Subnet

BRIDGE = "com.docker.network.bridge."


def bridge(name: str = "lan", **options: str) -> Network:
    return Network("a" * 64, name, "bridge", "", (Subnet("10.1.0.0/24", "10.1.0.1"),), {f"{BRIDGE}name": "br0", **options})


def rules(network: Network, *published: Published) -> list[str]:
    return iptables.rules("ip", [network], [Sandbox("c", "", published)], ["eth0"])["filter"]


# -- iptables ---------------------------------------------------------------------------------------------------------


def test_iptables_drops_what_is_not_published_last() -> None:
    found = rules(bridge(), Published(80, "tcp", "0.0.0.0", 8080, "10.1.0.2"))
    assert found.index("-A DOCKYARD-FORWARD -o br0 -m conntrack --ctstate DNAT -j ACCEPT") < found.index(
        "-A DOCKYARD-FORWARD -o br0 -j DROP"
    )


@pytest.mark.parametrize(
    ("mode", "rule"),
    [("routed", "-o br0 -p icmp -j ACCEPT"), ("nat-unprotected", "-o br0 -j ACCEPT")],
)
def test_iptables_gateway_modes(mode: str, rule: str) -> None:
    text = f"-A DOCKYARD-FORWARD {rule}"
    assert text in rules(bridge(**{f"{BRIDGE}gateway_mode_ipv4": mode}))
    assert text not in rules(bridge())


def test_iptables_document_declares_only_what_is_ours() -> None:
    wanted_rules = iptables.rules("ip", [bridge()], [], [])
    first = iptables.document("ip", "", wanted_rules)
    assert ":DOCKER-USER - [0:0]" in first
    assert first.index("-I FORWARD -j DOCKYARD-FORWARD") < first.index("-I FORWARD -j DOCKER-USER"), "the user's is put first at last"
    saved = "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKYARD-FORWARD\nCOMMIT\n"
    again = iptables.document("ip", saved, wanted_rules)
    assert ":DOCKER-USER" not in again, "declaring it would empty it"
    assert "-I FORWARD" not in again


def test_iptables_farewell_leaves_an_administrators_chain() -> None:
    saved = "*filter\n:DOCKER-USER - [0:0]\n:DOCKYARD-FORWARD - [0:0]\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKYARD-FORWARD\n"
    used = saved + "-A DOCKER-USER -s 10.0.0.0/8 -j DROP\n"
    assert "-X DOCKER-USER" in iptables.farewell("ip", saved + "COMMIT\n")
    assert "DOCKER-USER" not in iptables.farewell("ip", used + "COMMIT\n")


# -- other tables -----------------------------------------------------------------------------------------------------


def chain(name: str, policy: str = "") -> dict[str, Any]:
    return {"chain": {"name": name, **({"policy": policy} if policy else {})}}


def jump(handle: int, target: str, where: str = "FORWARD") -> dict[str, Any]:
    return {"rule": {"chain": where, "handle": handle, "expr": [{"counter": None}, {"jump": {"target": target}}]}}


def test_user_chain_is_made_once() -> None:
    assert coexist.user_chain("ip", []).splitlines()[-1] == "insert rule ip filter FORWARD counter jump DOCKER-USER"
    there = [chain("FORWARD", "accept"), chain("DOCKER-USER"), jump(5, "DOCKER-USER")]
    assert coexist.user_chain("ip", there) == ""


def test_user_chain_goes_only_if_nobody_uses_it() -> None:
    there = [chain("FORWARD", "accept"), chain("DOCKER-USER"), jump(5, "DOCKER-USER")]
    assert coexist.without_user_chain("ip", there).splitlines() == [
        "delete rule ip filter FORWARD handle 5", "delete chain ip filter DOCKER-USER", "delete table ip filter",
    ]  # fmt: skip
    used = [*there, {"rule": {"chain": "DOCKER-USER", "handle": 6, "expr": [{"drop": None}]}}]
    assert coexist.without_user_chain("ip", used) == ""
    others = [*there, chain("INPUT", "accept")]
    assert "delete table" not in coexist.without_user_chain("ip", others)


# -- ports ------------------------------------------------------------------------------------------------------------


def test_ranges_of_ports() -> None:
    rows = wanted((), {"90-91/udp": [PortBinding(host_port="9090-9091")], "80/tcp": [PortBinding(host_port="8000-8009")]}, False)
    assert rows == [
        (90, "udp", "", range(9090, 9091)), (91, "udp", "", range(9091, 9092)), (80, "tcp", "", range(8000, 8010)),
    ]  # fmt: skip
    assert wanted(("80/tcp",), {}, True) == [(80, "tcp", "", range(0))]
    assert wanted((), {"80/tcp": [PortBinding(host_port="0")]}, False) == [(80, "tcp", "", range(0))]


@pytest.mark.parametrize("text", ["x", "80-", "9-8", "70000", "-5"])
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid port specification"):
        wanted((), {"80/tcp": [PortBinding(host_port=text)]}, False)


# -- addresses --------------------------------------------------------------------------------------------------------


def test_there_are_31_default_pools_and_the_remedy_is_told() -> None:
    taken = [IPv4Network("10.0.0.0/8")]
    while len(taken) < 32:
        taken.append(choose_pool((), taken))
    assert (str(taken[1]), str(taken[16]), str(taken[31])) == ("172.17.0.0/16", "192.168.0.0/20", "192.168.240.0/20")
    with pytest.raises(DockyardError, match="all predefined address pools have been fully subnetted") as caught:
        choose_pool((), taken)
    assert "docker network prune" in caught.value.hint
    assert "default-address-pools" in caught.value.hint


PREFIXES = st.builds(lambda at, size: IPv4Network((at << 32 - size, size)), st.integers(0, 15), st.integers(4, 8))


@given(st.lists(PREFIXES, max_size=8), st.integers(4, 8))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_pool_overlaps_nothing_and_is_the_first_such(taken: list[IPv4Network], size: int) -> None:
    free = [pool for pool in IPv4Network("0.0.0.0/4").subnets(new_prefix=size) if not any(map(pool.overlaps, taken))]
    try:
        assert choose_pool([("0.0.0.0/4", size)], taken) == free[0]
    except DockyardError:
        assert not free


def test_ledger_gives_back_and_keeps_wishes_free() -> None:
    ledger, subnet = Ledger(), Subnet("10.1.0.0/29", "10.1.0.1", auxiliary={"router": "10.1.0.2"})
    waiting = Endpoint("w", "n", "c", "w", EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="10.1.0.3")))
    ledger.add(waiting)
    first = ledger.allocate("n", "lan", subnet, "")
    assert first == "10.1.0.4/29"
    ledger.add(Endpoint("x", "n", "c", "x", address=first))
    assert ledger.allocate("n", "lan", subnet, "") == "10.1.0.5/29"
    ledger.drop(Endpoint("x", "n", "c", "x", address=first))
    assert ledger.allocate("n", "lan", subnet, "") == first
    assert ledger.allocate("n", "lan", subnet, "10.1.0.3") == "10.1.0.3/29"
    with pytest.raises(DockyardError, match="Address already in use"):
        ledger.allocate("n", "lan", subnet, "10.1.0.2")


# -- routing ----------------------------------------------------------------------------------------------------------


def test_gateway_by_priority_then_name_never_internal() -> None:
    low, high = bridge("a"), bridge("b")
    inner = Network("c" * 64, "0", "bridge", "", low.subnets, internal=True)
    wish = EndpointSettings(gw_priority=1)
    pairs = [(inner, Endpoint("1", "", "", "")), (low, Endpoint("2", "", "", "")), (high, Endpoint("3", "", "", "", wish))]
    assert [network.name for network, _ in [routing.gateway(pairs)]] == ["b"]  # type: ignore[misc]
    assert [network.name for network, _ in [routing.gateway(pairs[:2])]] == ["a"]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("joined", "needed"),
    [(Joined("x"), True), (Joined("x", gateway="10.0.0.1"), False), (Joined("x", no_gateway_service=True), False)],
)
def test_who_needs_a_way_out(joined: Joined, needed: bool) -> None:
    remote = Network("a" * 64, "wires", "weave", "", (Subnet("10.1.0.0/24", "10.1.0.1"),))
    assert routing.needs_gateway_network([(remote, Endpoint("1", "", "", "", joined=joined))]) is needed
    assert not routing.needs_gateway_network([(remote, Endpoint("1", "", "", "", joined=joined)), (bridge(), Endpoint("2", "", "", ""))])


# -- requests ---------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("Driver", "Options", "Labels", "ConfigFrom", "EnableIPv6", "Internal", "ConfigOnly", "Ingress")
ROW = st.fixed_dictionaries({}, optional=dict.fromkeys(("Subnet", "Gateway", "IPRange", "AuxiliaryAddresses"), JSON))
IPAM = st.fixed_dictionaries({}, optional={"Driver": JSON, "Options": JSON, "Config": st.lists(ROW | JSON, max_size=2) | JSON})


@settings(deadline=None)
@given(st.fixed_dictionaries({"Name": st.just("n") | JSON}, optional=dict.fromkeys(KEYS, JSON) | {"IPAM": IPAM | JSON}))
def test_a_request_of_any_shape_is_refused_or_understood(body: dict[str, Any]) -> None:
    kind = "understood"
    try:
        creation.draft(requests.checked(body), [], NetworkSettings())
    except DockyardError as error:
        kind = error.kind
    assert kind in {"understood", "invalid parameter", "forbidden", "not found", "unavailable"}


def test_all_that_is_wrong_with_an_endpoint_is_told_at_once() -> None:
    wish = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="::1", link_local_ips=["x"]), mac_address="00:11")
    with pytest.raises(InvalidParameter) as caught:
        requests.check_endpoint(bridge(), wish)
    assert caught.value.message.splitlines() == [
        "invalid endpoint settings:", "invalid IPv4 address: ::1", "invalid link-local IP address: x",
        "invalid MAC address: 00:11",
    ]  # fmt: skip


def test_host_gateway_stands_for_every_address_given() -> None:
    text = files.hosts([], ["gate:host-gateway"], ["172.17.0.1", "fd00::1"])
    assert text.endswith("172.17.0.1\tgate\nfd00::1\tgate\n")


def folded(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.binary(max_size=99), st.sampled_from([6, 17]), st.booleans(), st.integers(0, 10))
def test_a_packet_that_is_put_back_has_its_checksum(tail: bytes, protocol: int, six: bool, options: int) -> None:
    """RFC 1071: the sum over pseudo-header and packet, checksum included, is all ones."""
    body = bytes(20) + tail
    if six:
        addresses, begin = bytes(range(32)), 40
        packet = b"\x60\0\0\0" + struct.pack("!HBB", len(body), protocol, 64) + addresses + body
    else:
        addresses, begin = b"\xc0\0\2\1\xc0\0\2\2", 20 + 4 * options
        head = struct.pack("!BBHIBBH", 0x45 + options, 0, begin + len(body), 0, 64, protocol, 0)
        packet = head + addresses + bytes(4 * options) + body
    made = admission.summed(packet)
    assert folded(addresses + struct.pack("!II", len(body), protocol) + made[begin:]) == 0xFFFF
    at = begin + (16 if protocol == 6 else 6)
    assert made[:at] + made[at + 2 :] == packet[:at] + packet[at + 2 :]
    assert made[at : at + 2] != b"\0\0", "which would mean: none"


@pytest.mark.parametrize("packet", [b"E" + bytes(30), b"\x60" + bytes(45), b"\x45\0\0\x1c" + b"\0\0\0\0\x40\x11" + bytes(12)])
def test_other_packets_are_put_back_as_they_are(packet: bytes) -> None:
    assert admission.summed(packet) == packet
