"""The name service at 127.0.0.11 of real sandboxes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import dnslib
import pytest

from dockyard.network import Controller

pytestmark = pytest.mark.root
OUTSIDE = "198.51.100.1"


def ask(host, netns: str, name: str, kind: str = "A", *, tcp: bool = False) -> tuple[int, list[str]]:  # type: ignore[no-untyped-def]
    """(rcode, answers) as a program in the container would see them."""
    def query() -> dnslib.DNSRecord:
        question = dnslib.DNSRecord.question(name, kind)
        if tcp:
            return dnslib.DNSRecord.parse(question.send("127.0.0.11", 53, tcp=True, timeout=3))
        return dnslib.DNSRecord.parse(question.send("127.0.0.11", 53, timeout=3))

    answer = host.inside(netns, query)
    return answer.header.rcode, sorted(str(row.rdata) for row in answer.rr)


@pytest.fixture
def outside_dns(host) -> Iterator[list[str]]:  # type: ignore[no-untyped-def]
    """A server on the outside that knows one name; the list is who asked."""
    seen: list[str] = []

    def opened() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((OUTSIDE, 53))
        return made

    door = host.inside(host.outside, opened)

    def serve() -> None:
        while True:
            try:
                data, client = door.recvfrom(2000)
            except OSError:
                return
            if not data:
                return
            seen.append(client[0])
            reply = dnslib.DNSRecord.parse(data).reply()
            reply.add_answer(dnslib.RR("example.org", rdata=dnslib.A("203.0.113.9"), ttl=5))
            door.sendto(reply.pack(), client)

    thread = threading.Thread(target=serve)
    thread.start()
    yield seen

    def stop() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (OUTSIDE, 53))

    host.inside(host.outside, stop)
    thread.join(5)
    door.close()


async def test_names_addresses_and_strangers(host, controller: Controller, outside_dns: list[str], start, tmp_path) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "far"})
    await controller.create_network({"Name": "shut", "Internal": True})
    a = await start("a", "far", dns=(OUTSIDE,))
    b = await start("b", "far")
    c = await start("c", "shut", dns=(OUTSIDE,))
    address = controller.settings_of(b.container)["Networks"]["far"]["IPAddress"]

    def own_server() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", 53))
        return made

    with host.inside(a.netns, own_server):  # a name server in the container keeps its port
        assert await asyncio.to_thread(ask, host, a.netns, "b") == (0, [address])
        assert await asyncio.to_thread(ask, host, a.netns, "B.far") == (0, [address])
        assert await asyncio.to_thread(ask, host, a.netns, "b", tcp=True) == (0, [address])
        assert await asyncio.to_thread(ask, host, a.netns, "b", "AAAA") == (0, [])
        back = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
        assert await asyncio.to_thread(ask, host, a.netns, back, "PTR") == (0, ["b.far."])
        assert await asyncio.to_thread(ask, host, a.netns, "example.org") == (0, ["203.0.113.9"])
    assert outside_dns == ["198.51.100.2"]
    assert (await asyncio.to_thread(ask, host, c.netns, "example.org"))[0] == dnslib.RCODE.SERVFAIL
    assert len(outside_dns) == 1, "nothing leaves an internal network"
    assert (tmp_path / "a" / "resolv.conf").read_text().splitlines()[1] == "nameserver 127.0.0.11"
    await controller.teardown(b.container)
    assert (await asyncio.to_thread(ask, host, c.netns, "b"))[0] == dnslib.RCODE.SERVFAIL
