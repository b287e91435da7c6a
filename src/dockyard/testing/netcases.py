"""Requests about networks and what Docker answers: the table that both engines are asked (``test_network_cases``).

``status`` and ``told`` are today's Docker (29, from its sources) and ours. ``old`` is what Debian's dockerd 20.10 says
where it differs, and why; a difference that is in nobody's row fails the test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
BRIDGE = "com.docker.network.bridge."
LATER = "checked since Docker 25"
BY_DRIVER = "found by the driver then, and reported as an internal error"
NEWER = "what it is about did not exist then"


@dataclass(frozen=True)
class Case:
    what: str
    body: Json
    status: int
    told: str = ""
    old: int = 0
    """Status of dockerd 20.10, if it is another."""
    because: str = ""
    path: str = "/networks/create"


def network(**more: Any) -> Json:
    return {"Name": "case", **more}


def pool(subnet: str, **more: Any) -> Json:
    return network(IPAM={"Config": [{"Subnet": subnet, **more}]})


def option(name: str, value: str, **more: Any) -> Json:
    return network(Options={name: value}, **more)


CASES = (
    Case("a name is needed", {"Name": ""}, 400, "invalid network name: name is empty", old=500, because=LATER),
    Case("a name of spaces", {"Name": "  "}, 400, "name is empty", old=500, because=LATER),
    Case("predefined names", {"Name": "host"}, 403, "operation is not permitted on predefined host network"),
    Case("a name twice", {"Name": "base", "CheckDuplicate": True}, 409, "network with name base already exists"),
    Case("a second host network", network(Driver="host"), 403, 'only one instance of "host" network is allowed'),
    Case("a second null network", network(Driver="null"), 403, 'only one instance of "null" network is allowed'),
    Case("a driver that nobody has", network(Driver="weave"), 404, "plugin"),
    Case(
        "overlay without swarm",
        network(Driver="overlay"),
        503,
        "This node is not a swarm manager",
        old=500,
        because=BY_DRIVER,
    ),
    Case("no subnet at all", pool("not-a-subnet"), 400, "invalid CIDR address: not-a-subnet", old=500, because=LATER),
    Case("a subnet without prefix", pool("10.1.2.0"), 400, "invalid CIDR address: 10.1.2.0", old=500, because=LATER),
    Case("a prefix too long", pool("10.1.2.0/33"), 400, "invalid CIDR address: 10.1.2.0/33", old=500, because=LATER),
    Case(
        "host bits in a subnet",
        pool("10.1.2.3/24"),
        400,
        "invalid subnet 10.1.2.3/24: it should be 10.1.2.0/24",
        old=0,
        because=LATER,
    ),
    Case("a gateway elsewhere", pool("10.1.2.0/24", Gateway="10.9.9.9"), 400, "10.9.9.9", old=500, because=LATER),
    Case(
        "a gateway that is none",
        pool("10.1.2.0/24", Gateway="door"),
        400,
        "invalid gateway address: door",
        old=500,
        because=LATER,
    ),
    Case("a range elsewhere", pool("10.1.2.0/24", IPRange="10.3.0.0/25"), 400, "10.3.0.0/25", old=0, because=LATER),
    Case(
        "an auxiliary address elsewhere",
        pool("10.1.2.0/24", AuxiliaryAddresses={"r": "10.9.9.9"}),
        400,
        "10.9.9.9",
        old=403,
        because=LATER,
    ),
    Case(
        "a gateway without subnet",
        network(IPAM={"Config": [{"Gateway": "10.1.2.1"}]}),
        400,
        "subnet",
        old=500,
        because=LATER,
    ),
    Case("a subnet that another has", pool("10.20.30.0/25"), 403, "Pool overlaps with other one on this address space"),
    Case("an unknown IPAM driver", network(IPAM={"Driver": "infoblox"}), 404, "infoblox"),
    Case(
        "neither family",
        network(EnableIPv4=False, EnableIPv6=False),
        400,
        "IPv4 or IPv6 must be enabled",
        old=0,
        because=NEWER,
    ),
    Case("icc that is no truth", option(f"{BRIDGE}enable_icc", "maybe"), 400, "enable_icc", old=500, because=BY_DRIVER),
    Case(
        "MTU that is no number", option("com.docker.network.driver.mtu", "big"), 400, "mtu", old=500, because=BY_DRIVER
    ),
    Case("an unknown gateway mode", option(f"{BRIDGE}gateway_mode_ipv4", "magic"), 400, "magic", old=0, because=NEWER),
    Case(
        "isolated but not internal",
        option(f"{BRIDGE}gateway_mode_ipv4", "isolated"),
        400,
        "gateway mode 'isolated' can only be used for an internal network",
        old=0,
        because=NEWER,
    ),
    Case(
        "a bridge name too long",
        option(f"{BRIDGE}name", "a-bridge-name-of-many-letters"),
        400,
        "invalid interface name",
        old=500,
        because=BY_DRIVER,
    ),
    Case("a bridge that another has", option(f"{BRIDGE}name", "casebase0"), 403, "same bridge name"),
    Case("options of the wrong type", network(Options={"a": 5}), 400, ""),
    Case(
        "configuration of a network that is none",
        network(ConfigFrom={"Network": "base"}),
        400,
        "not a configuration only",
        old=404,
        because=LATER,
    ),
    Case("configuration of nobody", network(ConfigFrom={"Network": "nobody"}), 404, "nobody"),
    Case(
        "macvlan on the loopback",
        network(Driver="macvlan", Options={"parent": "lo"}),
        400,
        "loopback",
        old=500,
        because=BY_DRIVER,
    ),
    Case(
        "macvlan on nothing",
        network(Driver="macvlan", Options={"parent": "gone0"}),
        400,
        "gone0",
        old=500,
        because=BY_DRIVER,
    ),
    Case(
        "macvlan in a mode of nobody",
        network(Driver="macvlan", Options={"macvlan_mode": "warp"}),
        400,
        "warp",
        old=500,
        because=BY_DRIVER,
    ),
    Case(
        "remove a predefined one",
        {},
        403,
        "bridge is a pre-defined network and cannot be removed",
        path="DELETE /networks/bridge",
    ),
    Case("remove nobody", {}, 404, "nobody not found", path="DELETE /networks/nobody"),
    Case("look at nobody", {}, 404, "nobody not found", path="GET /networks/nobody"),
    Case("connect nobody", {"Container": "nobody"}, 404, "nobody", path="/networks/base/connect"),
    Case("connect to nobody", {"Container": "box"}, 404, "nobody not found", path="/networks/nobody/connect"),
    Case(
        "disconnect who is not there",
        {"Container": "box"},
        403,
        "is not connected to",
        path="/networks/base/disconnect",
        old=500,
        because=BY_DRIVER,
    ),
    Case(
        "connect a running container to host",
        {"Container": "box"},
        400,
        "container cannot be disconnected from host network or connected to host network",
        path="/networks/host/connect",
    ),
    Case("connect twice", {"Container": "box"}, 403, "already exists in network", path="/networks/bridge/connect"),
    Case(
        "an address of another subnet",
        {"Container": "box", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "9.9.9.9"}}},
        400,
        "no configured subnet",
        path="/networks/base/connect",
        old=500,
        because=LATER,
    ),
    Case(
        "an address that is none",
        {"Container": "box", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "nine"}}},
        400,
        "invalid IPv4 address: nine",
        path="/networks/base/connect",
        old=500,
        because=LATER,
    ),
    Case(
        "an address in a network that chose its own",
        {"Container": "box", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "172.19.0.9"}}},
        400,
        "user specified IP address is supported only when connecting to networks with user configured subnets",
        path="/networks/auto/connect",
    ),
    Case(
        "the gateway's address",
        {"Container": "box", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.20.30.1"}}},
        403,
        "Address already in use",
        path="/networks/base/connect",
    ),
    Case(
        "an interface sysctl that is none",
        {
            "Container": "box",
            "EndpointConfig": {"DriverOpts": {"com.docker.network.endpoint.sysctls": "kernel.panic=1"}},
        },
        400,
        "unrecognised network interface sysctl",
        path="/networks/base/connect",
        old=0,
        because=NEWER,
    ),
)
