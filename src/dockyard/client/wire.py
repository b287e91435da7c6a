"""One HTTP/1.1 connection: open it, send a request, read a head and a body. No pooling and no Docker knowledge here.

Own code instead of http.client: that module costs 20 ms of import (it pulls in email), gives no access to the socket
after an upgrade, and buffers past it. What is needed is small: Content-Length, chunked and until-close bodies
(RFC 9112 sections 6 and 7), early answers to uploads, and half close.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Protocol

from dockyard.client.endpoint import Endpoint, Tls
from dockyard.client.errors import BAD_ANSWER, CANNOT_CONNECT, CONNECTION_LOST, PERMISSION_DENIED, TIMED_OUT, TLS_FAILED
from dockyard.errors import DockyardError

CONNECT_TIMEOUT = 10.0
MAX_HEAD = 64 * 1024  # dockerd's own limit for request headers is 1 MiB; its answers are below 1 KiB
MAX_CHUNK_LINE = 4096
READ_SIZE = 64 * 1024


class Stream(Protocol):
    """A byte stream with half close: a socket, or TLS over one."""

    def recv(self, size: int) -> bytes: ...
    def sendall(self, data: bytes) -> None: ...
    def close_write(self) -> None: ...
    def abort(self) -> None: ...
    def settimeout(self, seconds: float | None) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class PlainStream:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.recv, self.sendall = sock.recv, sock.sendall
        self.settimeout, self.fileno, self.close = sock.settimeout, sock.fileno, sock.close

    def close_write(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)


class Head:
    """Status line and headers of an answer; header names are lower case."""

    def __init__(self, status: int, reason: str, headers: dict[str, str]) -> None:
        self.status, self.reason, self.headers = status, reason, headers


class Wire:
    """A connection and what has been read ahead on it. Used by one thread at a time."""

    def __init__(self, endpoint: Endpoint, stream: Stream) -> None:
        self.endpoint, self.stream, self.buffer = endpoint, stream, bytearray()
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.stream.close()

    def send(self, data: bytes) -> None:
        try:
            self.stream.sendall(data)
        except TimeoutError:
            raise self._timeout("sending") from None
        except OSError as error:
            raise CONNECTION_LOST(host=self.endpoint, cause=error) from None

    def send_chunks(self, chunks: Iterable[bytes]) -> None:
        """Send a chunked body. A daemon that answers early and closes is not an error here: its answer says why."""
        try:
            for chunk in chunks:
                if chunk:
                    self.stream.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.stream.sendall(b"0\r\n\r\n")
        except TimeoutError:
            raise self._timeout("sending") from None
        except (BrokenPipeError, ConnectionResetError):
            return

    def fill(self) -> bool:
        """Read more into the buffer; False at the end of the stream."""
        data = self.receive(READ_SIZE)
        self.buffer += data
        return bool(data)

    def receive(self, size: int) -> bytes:
        try:
            return self.stream.recv(size)
        except TimeoutError:
            raise self._timeout("reading") from None
        except OSError as error:
            raise CONNECTION_LOST(host=self.endpoint, cause=error) from None

    def _timeout(self, what: str) -> DockyardError:
        sock = getattr(self.stream, "sock", None)
        return TIMED_OUT(host=self.endpoint, seconds=sock.gettimeout() if sock else "?", what=what)

    def read_head(self) -> Head:
        """Read one answer head, skipping 100 Continue. Raises BAD_ANSWER, CONNECTION_LOST, TIMED_OUT."""
        while True:
            head = self._one_head()
            if head.status != 100:
                return head

    def _one_head(self) -> Head:
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > MAX_HEAD:
                raise BAD_ANSWER(host=self.endpoint, cause=f"its header is longer than {MAX_HEAD} bytes")
            if self.buffer and self.buffer[:5] != b"HTTP/"[: len(self.buffer)]:
                raise BAD_ANSWER(host=self.endpoint, cause=_foreign(bytes(self.buffer[:8])))
            if not self.fill():
                raise CONNECTION_LOST(host=self.endpoint, cause="it closed the connection before answering")
        lines = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        del self.buffer[: end + 4]
        fields = lines[0].split(" ", 2)
        if not fields[0].startswith("HTTP/1.") or len(fields) < 2 or not fields[1].isdigit():
            raise BAD_ANSWER(host=self.endpoint, cause=f"status line {lines[0][:80]!r}")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return Head(int(fields[1]), fields[2] if len(fields) > 2 else "", headers)

    def take(self, size: int) -> bytes:
        """Up to ``size`` bytes, buffered ones first; empty at the end of the stream."""
        if not self.buffer:
            return self.receive(size)
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def read_line(self) -> bytes:
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > MAX_CHUNK_LINE:
                raise BAD_ANSWER(host=self.endpoint, cause="broken chunked body")
            if not self.fill():  # its process ended, most likely
                raise CONNECTION_LOST(host=self.endpoint, cause="it ended in the middle of an answer")
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line.rstrip(b"\r")

    def body(self, head: Head) -> Iterator[bytes]:
        """The pieces of the body that ``head`` announces. Raises BAD_ANSWER when it is cut short."""
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
        elif "content-length" in head.headers:
            length = head.headers["content-length"]
            if not length.isdigit():
                raise BAD_ANSWER(host=self.endpoint, cause=f"Content-Length {length[:40]!r}")
            yield from self._exactly(int(length))
        else:
            while data := self.take(READ_SIZE):
                yield data
            self.close()

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left:
            data = self.take(min(left, READ_SIZE))
            if not data:
                raise BAD_ANSWER(host=self.endpoint, cause=f"the body ended {left} bytes early")
            left -= len(data)
            yield data

    def _chunked(self) -> Iterator[bytes]:
        while True:
            line = self.read_line().split(b";", 1)[0].strip()
            try:
                size = int(line, 16)
            except ValueError:
                raise BAD_ANSWER(host=self.endpoint, cause=f"chunk size {line[:40]!r}") from None
            if size == 0:
                while self.read_line():
                    pass
                return
            yield from self._exactly(size)
            self.read_line()


def _foreign(start: bytes) -> str:
    if start[:2] == b"\x15\x03":
        return "it answered with a TLS alert, so it wants TLS (DOCKER_TLS_VERIFY, DOCKER_CERT_PATH)"
    return f"it does not speak HTTP (first bytes {start!r})"


def connect(endpoint: Endpoint, timeout: float) -> Wire:
    """Open a connection. Raises CANNOT_CONNECT, PERMISSION_DENIED, TIMED_OUT, TLS_FAILED."""
    limit = min(timeout, CONNECT_TIMEOUT)
    try:
        if endpoint.scheme == "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(limit)
                sock.connect(endpoint.path)
            except BaseException:
                sock.close()
                raise
        else:
            sock = socket.create_connection((endpoint.hostname, endpoint.port), limit)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except PermissionError:
        raise PERMISSION_DENIED(host=endpoint) from None
    except TimeoutError:
        raise TIMED_OUT(host=endpoint, seconds=limit, what="connecting") from None
    except OSError as error:
        raise CANNOT_CONNECT(host=endpoint, cause=error.strerror or str(error)) from None
    stream: Stream = PlainStream(sock)
    if endpoint.tls is not None:
        stream = _with_tls(endpoint, endpoint.tls, sock)
    stream.settimeout(timeout)
    return Wire(endpoint, stream)


def _with_tls(endpoint: Endpoint, tls: Tls, sock: socket.socket) -> Stream:
    from dockyard.client.tls import TlsStream  # ssl costs 15 ms of import, paid only by those who use it

    try:
        return TlsStream.handshake(sock, tls, endpoint.hostname)
    except OSError as error:  # ssl.SSLError and FileNotFoundError of a key file are OSErrors
        sock.close()
        raise TLS_FAILED(host=endpoint, cause=error) from None
