"""Error codes of the HTTP server. ``status`` in the evidence is the answer that the server itself would give."""

from dockyard.errors import Cancelled, Code, Exhausted, InvalidParameter, System

MALFORMED = Code("DY-HTTP-001", InvalidParameter, "malformed request: {reason}")
BODY_TOO_LARGE = Code("DY-HTTP-002", Exhausted, "request body is larger than {limit} bytes")
CLIENT_LEFT = Code("DY-HTTP-003", Cancelled, "the client closed the connection")
REQUEST_TIMEOUT = Code("DY-HTTP-004", InvalidParameter, "no data from the client for {seconds} seconds")
BODY_NOT_READ = Code("DY-HTTP-005", System, "cannot take over the connection: the request body is not read yet")
SOCKET_IN_USE = Code(
    "DY-HTTP-006", System, "cannot listen on {path}: another server answers there",
    hint="use it (DOCKER_HOST=unix://{path}), stop it, or give this one another address with -H",
)  # fmt: skip
