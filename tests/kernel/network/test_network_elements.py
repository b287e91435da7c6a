"""Elements that we pack ourselves are what nft makes of the same words; a failed transaction changes nothing."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket

import pytest

from dockyard.kernel import netlink_route as rt
from dockyard.kernel.netlink import NetlinkError, NetlinkSocket
from dockyard.kernel.netlink_nft import (
    NETLINK_NETFILTER,
    Redirect,
    SetElement,
    change_elements,
    make_redirects,
    pack_field,
    redirects,
)  # fmt: skip
from dockyard.model import PortBinding
from dockyard.network import Controller
from dockyard.network.firewall import Rules, packed
from dockyard.network.model import LinkRule, Published, Sandbox

pytestmark = pytest.mark.root
BOX = Sandbox(
    "c", "",
    (
        Published(80, "tcp", "0.0.0.0", 8080, "172.17.0.2", trusted=("eth0", "a-long-name-yes")),
        Published(53, "udp", "127.0.0.1", 5353, "172.17.0.2"), Published(9, "sctp", "0.0.0.0", 9999, "172.17.0.2"),
        Published(80, "tcp", "::", 8080, "fd00::2"), Published(81, "tcp", "fd00::1", 8081, "fd00::2", trusted=("*",)),
        Published(82, "tcp", "", 82, "10.1.1.2", direct=True),
    ),
    links=(LinkRule("172.17.0.3", "172.17.0.2", "tcp", 5432), LinkRule("fd00::3", "fd00::2", "udp", 53)),
)  # fmt: skip


def listed(host, table: str) -> list[str]:  # type: ignore[no-untyped-def]
    texts = [host.nft(f"list table {family} {table}").replace(table, "T") for family in ("ip", "ip6")]
    return [re.sub(r"log group \d+", "log group G", text) for text in texts]


def test_packed_elements_equal_those_of_nft(host) -> None:  # type: ignore[no-untyped-def]
    theirs, ours = Rules("theirs", guarded=True), Rules("ours", guarded=True)
    elements = ours.elements(BOX)
    host.nft(theirs.whole(elements) + ours.whole(()))
    bare = listed(host, "ours")
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        change_elements(netlink, "ours", [packed(item) for item in elements])
        assert listed(host, "ours") == listed(host, "theirs")
        change_elements(netlink, "ours", [packed(item) for item in elements])
        assert listed(host, "ours") == listed(host, "theirs"), "adding again changes nothing"
        for _ in range(2):
            change_elements(netlink, "ours", (), [packed(item) for item in elements])
            assert listed(host, "ours") == bare, "deleting can be repeated"
    host.nft(theirs.remove() + ours.remove())


def test_a_refused_transaction_changes_nothing(host) -> None:  # type: ignore[no-untyped-def]
    rules = Rules("ours")
    host.nft(rules.whole(()))
    bare = listed(host, "ours")
    good, bad = packed(rules.elements(BOX)[0]), SetElement(socket.AF_INET, "nobody", pack_field("inet_service", "80"))
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        with pytest.raises(NetlinkError) as caught:
            change_elements(netlink, "ours", [good, bad])
        assert caught.value.errno == errno.ENOENT
        assert listed(host, "ours") == bare
        change_elements(netlink, "ours", [good])
    assert listed(host, "ours") != bare
    host.nft(rules.remove())


def test_redirects_are_what_nft_says(host) -> None:  # type: ignore[no-untyped-def]
    rows = [Redirect("udp", "127.0.0.11", 53, 40001), Redirect("tcp", "127.0.0.11", 53, 40002)]
    words = "\n".join(
        f"ip daddr {row.address} {row.protocol} dport 53 {row.protocol} dport set {row.to}\n"
        f"ip saddr {row.address} {row.protocol} sport {row.to} {row.protocol} sport set 53"
        for row in rows
    )
    hook = "type filter hook ingress device lo priority 0;"
    host.nft(f"table netdev theirs {{\nchain ingress {{\n{hook}\n{words}\n}}\n}}")
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        assert redirects(netlink, "ours") == {}
        make_redirects(netlink, "ours", rows, anew=False)
        ours, theirs = (host.nft(f"list table netdev {name}").replace(name, "T") for name in ("ours", "theirs"))
        assert ours == theirs
        assert redirects(netlink, "ours") == {"udp": 40001, "tcp": 40002}
        make_redirects(netlink, "ours", rows[:1], anew=True)
        assert redirects(netlink, "ours") == {"udp": 40001}
    host.nft("delete table netdev ours\ndelete table netdev theirs")


async def test_many_descriptors_do_not_end_the_daemon(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(1200)]
    try:
        await controller.create_network({"Name": "far"})
        box = await start("a", "far", bindings={"80/tcp": [PortBinding(host_port="8080")]})
        with host.server(box.netns, "0.0.0.0", 80):
            assert host.fetch(host.outside, "198.51.100.2", 8080) == "198.51.100.1"
        await controller.forget(box.container)
        await controller.remove_network("far")
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


def test_thousands_of_ports_and_flows_at_once(host) -> None:  # type: ignore[no-untyped-def]
    """A range of ports is one transaction, and a busy UDP server's end forgets all of its flows."""
    rules = Rules("ours")
    host.nft(rules.whole(()))
    many = Sandbox("c", "", tuple(Published(port, "tcp", "0.0.0.0", port, "172.17.0.2") for port in range(1000, 9000)))
    elements = [packed(item) for item in rules.elements(many)]
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        change_elements(netlink, "ours", elements)
        assert listed(host, "ours")[0].count("172.17.0.2 . ") == 8000
        change_elements(netlink, "ours", (), elements)
        assert "172.17.0.2" not in listed(host, "ours")[0]
    host.nft(rules.remove())
    with NetlinkSocket() as netlink:
        netlink.batch([rt.remove_link(name=f"nobody{number}") for number in range(9000)])
        wrong = [*[rt.remove_link(name="nobody")] * 3000, rt.link_up("nobody"), *[rt.remove_link(name="nobody")] * 3000]
        with pytest.raises(NetlinkError, match="set link nobody up: No such device"):
            netlink.batch(wrong)
