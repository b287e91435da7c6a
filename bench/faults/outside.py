"""The outside host of a lab: TCP 8000 answers with as many bytes as asked, UDP 53 answers every A query with itself."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
import threading


class Tcp(socketserver.StreamRequestHandler):
    timeout = 5

    def handle(self) -> None:
        line = self.rfile.readline(64).split()
        if line[:1] == [b"put"]:
            with contextlib.suppress(TimeoutError, OSError):
                self.rfile.read(int(line[1]))
                self.wfile.write(b"done\n")
            return
        size = int(line[0]) if line and line[0].isdigit() else 2
        self.wfile.write(b"x" * size + b"\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def dns(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 53))
        while True:
            query, peer = sock.recvfrom(512)
            end = query.find(b"\0", 12) + 5
            kind = int.from_bytes(query[end - 4 : end - 2], "big")
            if query[12 + query[12] + 1] == 0:  # one label: a name of this site, which nobody outside knows
                sock.sendto(query[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + query[12:end], peer)
                continue
            answer = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if kind == 1 else b"\0\0") + b"\0\0\0\0" + query[12:end]
            if kind == 1:
                answer += b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + socket.inet_aton(address)
            sock.sendto(answer, peer)


if __name__ == "__main__":
    threading.Thread(target=dns, args=(sys.argv[1],), daemon=True).start()
    with Server((sys.argv[1], 8000), Tcp) as server:
        print("ready", flush=True)
        server.serve_forever()
