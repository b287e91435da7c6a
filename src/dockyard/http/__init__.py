"""HTTP/1.1 server: the one small server that the engine's API and the registry both stand on.

Why our own (ADR 600): an engine must hand over the raw, half-closable socket (attach, exec), flush headers before the
first byte of a body exists (wait), flush every object of a stream (progress), and switch to HTTP/2 on request; a
registry must answer from memory in microseconds and send files from the kernel. The parser of heads is llhttp
(httptools); bodies are framed here, because only then is the exact byte known where a hijacked stream begins.

Nouns: `Server` listens and counts; a `Connection` reads one request at a time; the owner's handler turns a `Request`
into a `Response` (bytes at hand), a `StreamResponse` (bytes to come), a `FileResponse` (bytes on disk), or takes the
socket away (`Request.hijack` gives a `RawStream`). A handler that is a plain function and answers at once costs no
task.

Invariants, stated as absences: this room knows no route, no JSON and no user; it never shows a traceback; it never
buffers more than `Limits` names, in either direction; it never parses a byte behind a request before that request is
answered; nothing here starts a process or opens a connection.
"""

from dockyard.http.errors import BODY_TOO_LARGE, CLIENT_LEFT, MALFORMED, REQUEST_TIMEOUT
from dockyard.http.limits import Limits
from dockyard.http.raw import RawStream
from dockyard.http.request import Headers, Peer, Request
from dockyard.http.response import Answer, FileResponse, Response, StreamResponse
from dockyard.http.server import Handler, Server, Statistics, unix_socket

__all__ = [
    "BODY_TOO_LARGE", "CLIENT_LEFT", "MALFORMED", "REQUEST_TIMEOUT", "Answer", "FileResponse", "Handler", "Headers",
    "Limits", "Peer", "RawStream", "Request", "Response", "Server", "Statistics", "StreamResponse", "unix_socket",
]  # fmt: skip
