"""DNS messages that we pack ourselves, against dnslib as oracle; and who is called what."""

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.model import EndpointSettings
from dockyard.network import dnswire
from dockyard.network.directory import Directory
from dockyard.network.model import Endpoint, Network


@pytest.mark.parametrize("kind", ["A", "AAAA", "MX", "PTR"])
def test_question_is_read_as_dnslib_wrote_it(kind: str) -> None:
    asked = dnswire.question(bytes(dnslib.DNSRecord.question("Web.Far", kind).pack()))
    assert asked is not None
    assert (asked.name, asked.kind) == ("web.far", getattr(dnslib.QTYPE, kind))


def test_answer_is_what_dnslib_reads() -> None:
    asked = dnswire.question(bytes(dnslib.DNSRecord.question("WEB").pack()))
    assert asked
    packed = dnswire.reply(asked, [dnswire.address("172.18.0.2"), dnswire.address("172.18.0.3")], limit=512)
    read = dnslib.DNSRecord.parse(packed)
    assert [str(row.rdata) for row in read.rr] == ["172.18.0.2", "172.18.0.3"]
    assert str(read.q.qname) == "WEB."
    assert (read.header.qr, read.header.ra, read.header.tc) == (1, 1, 0)


def test_too_long_for_udp_is_marked() -> None:
    asked = dnswire.question(bytes(dnslib.DNSRecord.question("web").pack()))
    assert asked
    packed = dnswire.reply(asked, [dnswire.address(f"10.0.0.{n}") for n in range(100)], limit=asked.size)
    read = dnslib.DNSRecord.parse(packed)
    assert read.header.tc == 1
    assert len(packed) <= 512
    assert len(read.rr) == 30


def test_edns_size_is_respected() -> None:
    query = dnslib.DNSRecord.question("web")
    query.add_ar(dnslib.EDNS0(udp_len=1232))
    asked = dnswire.question(bytes(query.pack()))
    assert asked
    assert asked.size == 1232


def test_pointers() -> None:
    assert dnswire.reversed_address("2.0.18.172.in-addr.arpa") == "172.18.0.2"
    assert dnswire.reversed_address("x.in-addr.arpa") is None
    assert dnswire.reversed_address("web") is None
    name = "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
    assert dnswire.reversed_address(name) == "2001:db8::567:89ab"
    asked = dnswire.question(bytes(dnslib.DNSRecord.question("2.0.18.172.in-addr.arpa", "PTR").pack()))
    assert asked
    read = dnslib.DNSRecord.parse(dnswire.reply(asked, [dnswire.pointer("web.far")], limit=512))
    assert str(read.rr[0].rdata) == "web.far."


@given(st.binary(max_size=80))
def test_no_packet_breaks_the_reader(data: bytes) -> None:
    dnswire.question(data)
    dnswire.refusal(data, dnswire.FORMERR)


def test_directory_follows_mobys_order() -> None:
    far, near = Network("1", "far", "bridge", ""), Network("2", "near", "bridge", "")

    def endpoint(network: Network, name: str, address: str, *names: str, links: list[str] | None = None) -> Endpoint:
        wish = EndpointSettings(links=links)
        return Endpoint(name + network.id, network.id, name, name, wish, address, names=(name, *names))

    rows = [
        endpoint(far, "web", "10.1.0.2/16", "www"),
        endpoint(far, "web2", "10.1.0.3/16", "www"),
        endpoint(near, "db", "10.2.0.2/16"),
        endpoint(far, "me", "10.1.0.9/16", links=["web:database"]),
        endpoint(near, "me", "10.2.0.9/16"),
        endpoint(far, "dead", "10.1.0.7/16"),
    ]
    book = Directory({"1": far, "2": near}, rows, {"web", "web2", "db", "me"})
    assert book.addresses("me", "www") == ["10.1.0.2", "10.1.0.3"]
    assert book.addresses("me", "db.near") == ["10.2.0.2"]
    assert book.addresses("me", "db.far") is None
    assert book.addresses("me", "database") == ["10.1.0.2"]
    assert book.addresses("web", "db") is None
    assert book.addresses("me", "dead") is None
    assert book.owner("me", "10.2.0.2") == "db.near"
    assert book.owner("web", "10.2.0.2") is None
