"""The name service at 127.0.0.11 of real sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import dnslib
import msgspec
import pytest

from dockyard.network import Controller, hostfiles
from dockyard.network.directory import Directory

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


@contextlib.contextmanager
def name_server(host, where: int, address: str, rcode: int = 0, *, tcp: bool = False) -> Iterator[list[str]]:  # type: ignore[no-untyped-def]
    """Answers every question with its own address, or with ``rcode``; the list is what was asked."""
    seen: list[str] = []
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM

    def opened() -> socket.socket:
        made = socket.socket(socket.AF_INET, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, 53))
        if tcp:
            made.listen()
        return made

    def answer(data: bytes) -> bytes:
        query = dnslib.DNSRecord.parse(data)
        seen.append(str(query.q.qname))
        reply = query.reply()
        reply.header.rcode = rcode
        if not rcode:
            reply.add_answer(dnslib.RR(query.q.qname, rdata=dnslib.A(address), ttl=5))
        return bytes(reply.pack())

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                if tcp:
                    client, _ = door.accept()
                    with client:
                        size = int.from_bytes(client.recv(2), "big")
                        told = answer(client.recv(size))
                        client.sendall(len(told).to_bytes(2, "big") + told)
                else:
                    data, sender = door.recvfrom(2000)
                    if not data:
                        return
                    door.sendto(answer(data), sender)

    door = host.inside(where, opened)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        with contextlib.suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
        if not tcp:
            host.inside(where, lambda: _nudge(address))
        thread.join(5)
        door.close()


def _nudge(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"", (address, 53))


async def test_other_servers_are_asked_in_their_order(host, controller: Controller, start, monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "far"})
    second = "198.51.100.3"
    host.inside(host.outside, lambda: host.command("ip", "addr", "add", f"{second}/24", "dev", "wire"))
    a = await start("a", "far", dns=(OUTSIDE, second), dns_options=("ndots:1",))
    with name_server(host, host.outside, OUTSIDE, dnslib.RCODE.REFUSED) as refuser, name_server(host, host.outside, second) as server:
        assert await asyncio.to_thread(ask, host, a.netns, "example.org") == (0, [second]), "the first refuses"
        assert await asyncio.to_thread(ask, host, a.netns, "nobody") == (dnslib.RCODE.NXDOMAIN, []), "ndots keeps short names here"
        assert (refuser, server) == (["example.org."], ["example.org."])
    with name_server(host, host.outside, OUTSIDE, tcp=True):
        assert await asyncio.to_thread(ask, host, a.netns, "example.org", tcp=True) == (0, [OUTSIDE])
    conf = tmp_path / "resolv.conf"
    monkeypatch.setattr(hostfiles, "RESOLV_CONF", conf)
    conf.write_text("nameserver 127.0.0.1\n")
    b = await start("b", "far")
    with name_server(host, host.own, "127.0.0.1"):
        assert await asyncio.to_thread(ask, host, b.netns, "example.org") == (0, ["127.0.0.1"]), "from the host, as only it can"


async def test_addresses_that_do_not_fit_are_asked_for_by_tcp(host, controller: Controller, start) -> None:  # type: ignore[no-untyped-def]
    await controller.create_network({"Name": "far"})
    a = await start("a", "far")
    rows = controller._records.of(a.container)
    many = [
        msgspec.structs.replace(rows[0], id=f"e{n}", container=f"{n:064x}", address=f"10.9.0.{n}/16", names=("many",))
        for n in range(60)
    ]
    directory = Directory(controller._records.networks, [*rows, *many], {item.container for item in (*rows, *many)})
    controller._records._directory = directory
    short = await asyncio.to_thread(ask, host, a.netns, "many")
    whole = await asyncio.to_thread(ask, host, a.netns, "many", tcp=True)
    assert (len(short[1]), len(whole[1])) == (30, 60)
