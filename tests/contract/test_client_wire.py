"""The client against a tiny server that answers with prepared bytes: bodies, errors, reuse, hijack, TLS half close."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockyard.client import Client, Endpoint, Tls, parse_host
from dockyard.errors import Conflict, DockyardError, Forbidden, NotModified, System, Unavailable

Handler = Callable[[bytes, socket.socket], None]
PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Serves each connection in a thread; ``handler`` gets every request head."""

    def __init__(self, listener: socket.socket, handler: Handler) -> None:
        self.listener, self.handler, self.requests, self.connections = listener, handler, [b""][:0], 0
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            buffer = b""
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = sock.recv(65536)
                    if not data:
                        return
                    buffer += data
                head, buffer = buffer.split(b"\r\n\r\n", 1)
                self.requests.append(head)
                try:
                    self.handler(head, sock)
                except OSError:
                    return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Handler], tuple[Client, Server]]]:
    opened: list[tuple[Client, Server]] = []

    def start(handler: Handler) -> tuple[Client, Server]:
        listener = socket.socket(socket.AF_UNIX)
        path = tmp_path / f"{len(opened)}.sock"
        listener.bind(str(path))
        listener.listen()
        opened.append((Client(f"unix://{path}", timeout=5), Server(listener, handler)))
        return opened[-1]

    yield start
    for client, server in opened:
        client.close()
        server.close()


def _answering(answer: bytes) -> Handler:
    def handler(head: bytes, sock: socket.socket) -> None:
        sock.sendall(PING if b"_ping" in head else answer)

    return handler


def _json(status: str, value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status.encode(),
        len(body),
        body,
    )


def test_negotiates_once_and_reuses_the_connection(serve: Callable[[Handler], tuple[Client, Server]]) -> None:
    client, server = serve(_answering(_json("200 OK", {"Containers": 3})))
    assert client.request("GET", "/info", {"filters": {"a": ["b"]}, "all": True, "n": None}) == {"Containers": 3}
    client.request("GET", "/info")
    assert client.version == "1.44"
    first = [head.split(b"\r\n")[0] for head in server.requests]
    assert first[0].startswith(b"HEAD /_ping ")
    assert first[1] == b"GET /v1.44/info?filters=%7B%22a%22%3A%5B%22b%22%5D%7D&all=1 HTTP/1.1"
    assert server.connections == 1


def test_a_document_declared_as_text_is_read_all_the_same(serve: Callable[[Handler], tuple[Client, Server]]) -> None:
    for body, wanted in ((b'{"Titles": []}', {"Titles": []}), (b"OK", "OK"), (b"[not json", "[not json")):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
        client, _ = serve(_answering(head + body))
        assert client.request("GET", "/containers/x/top") == wanted


def test_abort_ends_a_reader_in_another_thread(serve: Callable[[Handler], tuple[Client, Server]]) -> None:
    def handler(head: bytes, sock: socket.socket) -> None:
        sock.sendall(PING if b"_ping" in head else b"HTTP/1.1 101 UPGRADED\r\n\r\n")

    client, _ = serve(handler)
    with client.hijack("/containers/x/attach") as stream:
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append(stream.recv()))
        reader.start()
        stream.abort()
        reader.join(10)
        assert not reader.is_alive()
    assert read == [b""]


@pytest.mark.parametrize(
    ("status", "kind"),
    [("409 Conflict", Conflict), ("304 Not Modified", NotModified), ("403 Forbidden", Forbidden), ("500 Oops", System)],
)
def test_status_becomes_kind_with_the_daemons_sentence(
    serve: Callable[[Handler], tuple[Client, Server]], status: str, kind: type[DockyardError]
) -> None:
    answer = _json(status, {"message": "the daemon says no"}) if "304" not in status else b"HTTP/1.1 304 N\r\n\r\n"
    client, _ = serve(_answering(answer))
    with pytest.raises(kind) as caught:
        client.request("POST", "/containers/x/start")
    assert caught.value.evidence["status"] == int(status[:3])
    assert "304" in status or str(caught.value) == "the daemon says no"


@pytest.mark.parametrize(("hint", "kept"), [("docker ps", "docker ps"), ("x" * 9999, "x" * 500), (None, "None"), ([], "[]")])
def test_the_hint_of_a_dockyard_engine_comes_along(
    serve: Callable[[Handler], tuple[Client, Server]], hint: object, kept: str
) -> None:
    client, _ = serve(_answering(_json("404 Not Found", {"message": "no", "hint": hint})))
    with pytest.raises(DockyardError) as told:
        client.request("GET", "/x")
    assert told.value.hint == kept



@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02F",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n",
        _json("200 OK", 1)[:-1] + b"{",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000,
    ],
)
def test_nonsense_is_reported_never_hung_on(serve: Callable[[Handler], tuple[Client, Server]], answer: bytes) -> None:
    client, _ = serve(_answering(answer))
    with pytest.raises(System, match="cannot read the answer of"):
        client.request("GET", "/info")


def test_a_silent_daemon_ends_in_the_given_time(serve: Callable[[Handler], tuple[Client, Server]]) -> None:
    client, _ = serve(lambda head, sock: None)
    with pytest.raises(Unavailable, match="no answer from"):
        client.ping(timeout=0.05)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="Is the docker daemon running"):
        Client(f"unix://{tmp_path}/none.sock").ping()


def test_an_idle_connection_closed_by_the_daemon_is_replaced(
    serve: Callable[[Handler], tuple[Client, Server]],
) -> None:
    def handler(head: bytes, sock: socket.socket) -> None:
        sock.sendall(PING)
        sock.shutdown(socket.SHUT_RDWR)

    client, server = serve(handler)
    assert [client.ping().api_version for _ in range(3)] == ["1.44"] * 3
    assert server.connections == 3


def test_upload_answered_early(serve: Callable[[Handler], tuple[Client, Server]]) -> None:
    def handler(head: bytes, sock: socket.socket) -> None:
        if b"_ping" in head:
            return sock.sendall(PING)
        sock.sendall(_json("400 Bad", {"message": "no such Dockerfile"}))
        sock.shutdown(socket.SHUT_RD)
        raise OSError

    client, _ = serve(handler)
    with pytest.raises(DockyardError, match="no such Dockerfile"):
        client.request("POST", "/build", body=iter([b"x" * 65536] * 64))


def test_hijack_half_closes(serve: Callable[[Handler], tuple[Client, Server]]) -> None:
    client, _ = serve(_echo)
    with client.hijack("/containers/x/attach", {"stream": True}) as attached:
        attached.send(b"some input")
        attached.close_write()
        assert b"".join(frame.data for frame in attached.frames(tty=True)) == b"first|some input"


def _echo(head: bytes, sock: socket.socket) -> None:
    if b"_ping" in head:
        return sock.sendall(PING)
    sock.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst|")
    body = b""
    while data := sock.recv(100):
        body += data
    sock.sendall(body)
    raise OSError  # end of this connection


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, cert.pem and key.pem of a self-signed 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "engine")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    directory = tmp_path_factory.mktemp("tls")
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (directory / "ca.pem").write_bytes(pem)
    (directory / "cert.pem").write_bytes(pem)
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory


@pytest.fixture
def tls_endpoint(authority: Path) -> Iterator[Endpoint]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as secure:
                    buffer = b""
                    while True:
                        while b"\r\n\r\n" not in buffer:
                            data = secure.recv(65536)
                            if not data:
                                raise OSError
                            buffer += data
                        head, buffer = buffer.split(b"\r\n\r\n", 1)
                        _echo(head, secure)
            except OSError:
                sock.close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield parse_host(f"tcp://127.0.0.1:{listener.getsockname()[1]}", Tls(str(authority / "ca.pem")))
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_tls_half_close_keeps_the_output(tls_endpoint: Endpoint) -> None:
    client = Client(tls_endpoint, version="1.44", timeout=5)
    with client.hijack("/containers/x/attach") as attached:
        attached.send(b"secret")
        attached.close_write()
        assert b"".join(iter(attached.recv, b"")) == b"first|secret"


def test_tls_of_a_stranger_is_refused(tls_endpoint: Endpoint) -> None:
    stranger = parse_host(tls_endpoint.host, Tls())
    with pytest.raises(Unavailable, match="cannot speak TLS"):
        Client(stranger, timeout=5).ping()
