"""TLS over a socket with half close.

``ssl.SSLSocket.unwrap`` waits for the peer's close_notify and drops data that is still under way, so an attached stdin
could not be closed while output goes on. Here the TLS state machine works on memory buffers: ``close_write`` sends our
close_notify and reading goes on. Reader and writer may be two threads; a lock guards the state machine, never a wait.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

from dockyard.client.endpoint import Tls

RECORD = 16 * 1024 + 512


class TlsStream:
    def __init__(self, sock: socket.socket, context: ssl.SSLContext, hostname: str) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self.settimeout, self.fileno, self.close = sock.settimeout, sock.fileno, sock.close

    @classmethod
    def handshake(cls, sock: socket.socket, tls: Tls, hostname: str) -> TlsStream:
        """Shake hands as client. Raises ssl.SSLError and OSError."""
        stream = cls(sock, _context(tls), hostname)
        while True:
            try:
                stream._tls.do_handshake()
                stream._flush()
                return stream
            except ssl.SSLWantReadError:
                stream._flush()
                stream._feed()

    def recv(self, size: int) -> bytes:
        while True:
            with self._lock:
                try:
                    return self._tls.read(size)
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            self._flush()
            self._feed()

    def sendall(self, data: bytes) -> None:
        with self._lock:
            self._tls.write(data)
        self._flush()

    def close_write(self) -> None:
        # "Want read" is the good end: our close_notify is written, theirs is not in yet.
        with self._lock, contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def abort(self) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)

    def _flush(self) -> None:
        with self._send_lock:
            with self._lock:
                data = self._outgoing.read()
            if data:
                self.sock.sendall(data)

    def _feed(self) -> None:
        data = self.sock.recv(RECORD)
        with self._lock:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca:
        context.load_verify_locations(cafile=tls.ca)
    else:
        context.load_default_certs()
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key or None)
    return context
