"""A balancer over servers of ours, for tests: a real HAProxy, and answers that a test chooses. No engine, no root."""

from __future__ import annotations

import http.client
import http.server
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dockyard.compose import traffic
from dockyard.compose.balancer import Balancer
from dockyard.compose.haproxy import RuntimeSocket
from dockyard.compose.layout import Balanced, Layout

LIMIT = 20.0
LOAD = """
import http.client, sys, threading, time
done, stop, lock = {}, threading.Event(), threading.Lock()
def work():
    while not stop.is_set():
        try:
            wire = http.client.HTTPConnection("127.0.0.1", 8080, timeout=10)
            wire.request("GET", "/")
            told = wire.getresponse().status
            wire.close()
        except OSError as error:
            told = repr(error)
        with lock:
            done[told] = done.get(told, 0) + 1
        time.sleep(float(sys.argv[1]))
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
sys.stdin.readline()
stop.set()
for thread in threads: thread.join()
print(done)
"""
"""A program: two users of port 8080, each pausing argv[1] seconds; at a line of input it ends and prints how many of which
answers (or errors) they had."""


class Server(http.server.ThreadingHTTPServer):
    """Answers with ``code`` after ``delay`` seconds; 0: closes without an answer."""

    def __init__(self) -> None:
        self.code, self.delay, self.served = 200, 0.0, Counter[str]()
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A health check closes at once: nothing to tell."""


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.served[self.command] += 1
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.server.delay)
        if self.server.code:
            self.send_response(self.server.code)
            self.send_header("Content-Length", "0")
            self.send_header("X-Server", str(self.server.server_port))
            self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Rig:
    """The service ``web`` behind a balancer that listens on ``port``. ``terms``: what its `Balanced` has beside."""

    def __init__(self, place: Path, servers: list[Server], port: int, **terms: Any) -> None:
        self.servers, self.told, self.port = servers, list[str](), port
        self._made = None if place.parent.exists() else place.parent
        listen = f"127.0.0.1:{port}"
        self.layout = Layout("shop", {listen: [Balanced("web", listen, 80, **terms)]})
        self.control = RuntimeSocket(str(place))
        self.balancer = Balancer(self.layout, self.control, self.told.append)
        self.process = self.balancer.start()
        self.fill(servers)
        self.balancer.watch()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fill(self, servers: list[Server]) -> None:
        lines: list[str] = []
        places = {}
        for slot, server in enumerate(servers, 1):
            places[("b_web", slot)] = ("127.0.0.1", server.server_port)
            lines += [f"set server b_web/s{slot} addr 127.0.0.1 port {server.server_port}",
                      f"set server b_web/s{slot} state ready", f"set server b_web/s{slot} health up"]  # fmt: skip
        self.control.ask(*lines)
        self.balancer._filled = places

    def ask(self, count: int = 1, method: str = "GET") -> Counter[int]:
        found = Counter[int]()
        for _ in range(count):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
            connection.request(method, "/", body=b"x" if method == "POST" else None)
            found[connection.getresponse().status] += 1
            connection.close()
        return found

    def flow(self) -> traffic.Flow:
        return traffic.read(self.control, self.layout, time.monotonic()).flows["web"]

    def until(self, condition: Callable[[], bool], load: int = 10) -> None:
        """Under load until it is so."""
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end, (self.told, self.flow())
            self.ask(load)
            time.sleep(0.02)  # between two loads; bounded by LIMIT

    def close(self) -> None:
        self.balancer.close()
        self.process.close()
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)
        for server in self.servers:
            server.shutdown()
            server.server_close()
