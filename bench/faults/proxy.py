"""An HTTP proxy that knows CONNECT only: the one way out of a site. Arguments: address and port."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        words = self.rfile.readline().split()
        while self.rfile.readline().strip():
            continue
        if words[:1] != [b"CONNECT"]:
            self.wfile.write(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
            return
        host, _, port = words[1].decode().rpartition(":")
        with socket.create_connection((host, int(port)), 5) as there:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            other = threading.Thread(target=pour, args=(there, self.connection), daemon=True)
            other.start()
            pour(self.connection, there)
            other.join(5)


def pour(one: socket.socket, two: socket.socket) -> None:
    """Bytes from one to the other until the end."""
    try:
        while data := one.recv(65536):
            two.sendall(data)
        two.shutdown(socket.SHUT_WR)
    except OSError:
        return


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with Server((sys.argv[1], int(sys.argv[2])), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()
