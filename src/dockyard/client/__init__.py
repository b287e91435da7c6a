"""The client room: a small synchronous Docker Engine API client for dockerd, podman and Dockyard alike.

Nouns: Endpoint (where the daemon is, from DOCKER_HOST, TLS variables and docker contexts), Client (requests), Response
(an answer under way), Hijacked (a connection taken over by attach or exec), Frame (a piece of stdout or stderr).

Invariants: it knows the wire, not the meaning: no request is built here beyond path, query and body, and nothing of a
body is renamed. It never prints, never retries a request that may have had an effect, and never waits without a bound
that the caller set. It imports neither asyncio, ssl nor http.client at start (the command line has 120 ms in all).
Errors are `dockyard.errors` kinds by HTTP status, carrying the daemon's own sentence unchanged.
"""

from dockyard.client.client import Client, Ping, Response, quote, quote_image
from dockyard.client.endpoint import DEFAULT_HOST, Endpoint, Tls, parse_host, resolve
from dockyard.client.frames import STDERR, STDIN, STDOUT, SYSTEMERR, Frame
from dockyard.client.hijack import Hijacked

__all__ = [
    "DEFAULT_HOST", "STDERR", "STDIN", "STDOUT", "SYSTEMERR", "Client", "Endpoint", "Frame", "Hijacked", "Ping",
    "Response", "Tls", "parse_host", "quote",
    "quote_image", "resolve",
]  # fmt: skip
