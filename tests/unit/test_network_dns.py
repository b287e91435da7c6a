"""DNS messages that we pack ourselves, against dnslib as oracle; and who is called what."""

import socket

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.model import EndpointSettings
from dockyard.network import dnswire
from dockyard.network.directory import Directory
from dockyard.network.model import Endpoint, Network
from dockyard.network.names import KNOWN_QUESTIONS, NameService, Upstream


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


class OneName:
    """A book with one name, whose addresses the test changes; counts how often it is opened."""

    def __init__(self) -> None:
        self.rows: dict[str, list[str]] = {"web": ["10.1.0.2"]}
        self.opened = 0
        self.number = object()

    def edition(self) -> object:
        return self.number

    def addresses(self, container: str, name: str) -> list[str] | None:
        self.opened += 1
        return self.rows.get(name)

    def owner(self, container: str, address: str) -> str | None:
        return "web.far" if address == "10.1.0.2" else None

    def upstreams(self, container: str) -> list[Upstream]:
        return []

    def keeps(self, container: str, name: str) -> bool:
        return name == "kept"

    async def dial(self, container: str, upstream: Upstream, kind: socket.SocketKind) -> socket.socket:
        raise OSError


def query(name: str, kind: str = "A", number: int = 7) -> bytes:
    record = dnslib.DNSRecord.question(name, kind)
    record.header.id = number
    return bytes(record.pack())


def told(service: NameService, data: bytes, container: str = "c") -> dnslib.DNSRecord:
    answer = service.answer(container, data)
    assert answer is not None
    return dnslib.DNSRecord.parse(answer)


def test_a_question_asked_again_is_answered_without_the_book_until_something_changes() -> None:
    book = OneName()
    service = NameService(book)
    for number in (1, 2, 3):
        read = told(service, query("Web", number=number))
        assert (read.header.id, str(read.q.qname), [str(row.rdata) for row in read.rr]) == (number, "Web.", ["10.1.0.2"])
    assert book.opened == 1
    assert told(service, query("web")).q.qname == "web.", "another spelling is another question"
    book.rows, book.number = {"web": ["10.1.0.9"]}, object()
    assert [str(row.rdata) for row in told(service, query("Web")).rr] == ["10.1.0.9"]
    book.rows, book.number = {}, object()
    assert service.answer("c", query("Web")) is None


def test_kept_answers_are_of_one_container_and_bounded() -> None:
    book = OneName()
    service = NameService(book)
    told(service, query("web"))
    told(service, query("web"), "other")
    assert book.opened == 2
    book.rows = {f"n{number}": ["10.1.0.2"] for number in range(2 * KNOWN_QUESTIONS)}
    for name in book.rows:
        told(service, query(name))
    assert len(service._known["c"]) == KNOWN_QUESTIONS
    service.drop("c")
    assert "c" not in service._known


def test_every_address_comes_first_now_and_then() -> None:
    book = OneName()
    book.rows = {"web": ["10.1.0.2", "10.1.0.3", "10.1.0.4"]}
    service = NameService(book)
    answers = [[str(row.rdata) for row in told(service, query("web")).rr] for _ in range(200)]
    assert {rows[0] for rows in answers} == set(book.rows["web"])
    assert all(sorted(rows) == book.rows["web"] for rows in answers)


@given(st.binary(max_size=60), st.sampled_from(["web", "kept", "far", "2.0.1.10.in-addr.arpa"]), st.integers(1, 300))
def test_no_packet_is_answered_otherwise_when_it_comes_again(tail: bytes, name: str, kind: int) -> None:
    service = NameService(OneName())
    record = dnslib.DNSRecord(q=dnslib.DNSQuestion(name, kind))
    for data in (bytes(record.pack()) + tail, tail):
        first = service.answer("c", data)
        assert service.answer("c", b"\xab\xcd" + data[2:]) == (None if first is None else b"\xab\xcd" + first[2:])


@pytest.mark.parametrize("kind", ["SRV", "MX", "TXT"])
def test_types_that_docker_has_no_records_of(kind: str) -> None:
    """Of a name of ours an empty answer, so that it never leaks; ``_http._tcp.web`` is nobody's name here, as dockerd
    fills its table of services from nowhere: it is forwarded."""
    service = NameService(OneName())
    read = told(service, query("web", kind))
    assert (read.header.rcode, read.rr) == (0, [])
    assert service.answer("c", query("_http._tcp.web", kind)) is None
