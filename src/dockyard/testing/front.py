"""A front before a real HTTP server that misbehaves on order: cuts, lies, refuses. Also a forward proxy.

::

    with front("127.0.0.1:5000") as it:
        it.faults.append(Fault(match="/blobs/", cut_after=1000))     # used up by its first match
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

STOP_LIMIT = 10.0
UPSTREAM_LIMIT = 30.0
CHUNK = 65536
_HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "proxy-authorization", "host"})


@dataclass
class Fault:
    """What happens to the next ``times`` requests whose target contains ``match``."""

    match: str
    method: str = "GET"
    times: int = 1
    skip: int = 0
    """So many matching requests pass unharmed first."""
    status: int = 0
    """Answer this instead of asking the upstream, with ``headers`` and ``body``."""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int = -1
    """Close the connection after so many bytes of the body."""
    ignore_range: bool = False
    corrupt: bool = False
    """Flip the last byte of the body."""


@dataclass
class Front:
    host: str
    upstream: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """(method, target, headers with lower-case names)."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, target: str, headers: dict[str, str]) -> Fault | None:
        with self._lock:
            self.seen.append((method, target, headers))
            for fault in self.faults:
                if not fault.times or fault.match not in target or fault.method != method:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                return fault
        return None

    def requests(self, part: str) -> list[dict[str, str]]:
        """Headers of the requests whose target contains ``part``."""
        return [headers for _, target, headers in self.seen if part in target]


@contextlib.contextmanager
def front(upstream: str) -> Iterator[Front]:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    listener.daemon_threads = True
    it = Front(f"127.0.0.1:{listener.server_address[1]}", upstream)
    listener.front = it  # type: ignore[attr-defined]
    thread = threading.Thread(target=listener.serve_forever, name="front", daemon=True)
    thread.start()
    try:
        yield it
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(STOP_LIMIT)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        it: Front = self.server.front  # type: ignore[attr-defined]
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = it.take(self.command, self.path, headers)
        if fault and fault.status:
            self._answer(fault.status, fault.headers, fault.body)
            return
        if fault and fault.ignore_range:
            headers.pop("range", None)
        self._forward(it.upstream, headers, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any

    def _forward(self, upstream: str, headers: dict[str, str], fault: Fault | None) -> None:
        connection = http.client.HTTPConnection(upstream, timeout=UPSTREAM_LIMIT)
        parts = urlsplit(self.path)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        sent = {name: value for name, value in headers.items() if name not in _HOP}
        try:
            connection.request(self.command, target, body=self._body(headers), headers=sent)
            response = connection.getresponse()
            data = b"" if self.command == "HEAD" else response.read()
            kept = {n: v for n, v in response.getheaders() if n.lower() not in (*_HOP, "content-length")}
            length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            kept["Content-Length"] = length or "0"
            if "Location" in kept:
                kept["Location"] = kept["Location"].replace(upstream, self.headers["Host"])
            self._answer(response.status, kept, data, fault)
        finally:
            connection.close()

    def _body(self, headers: dict[str, str]) -> bytes | None:
        if "content-length" in headers:
            return self.rfile.read(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return None
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, fault: Fault | None = None) -> None:
        if fault and fault.corrupt and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if fault and fault.cut_after >= 0:
            self.wfile.write(data[: fault.cut_after])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: tests read ``Front.seen``."""
