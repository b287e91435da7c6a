"""BuildKit's door: what buildx, bake and Compose speak, in front of our solver.

::

    POST /grpc ──h2c──► http2 ─► rpc ─► control, gateway ─► jobs ─► Builder
    POST /session ─h2c─► http2 ─► rpc (we are the client) ─► session: files, secrets, credentials, agents, outputs

Nouns: a *wire* is a byte stream taken over from the HTTP server; a *connection* is HTTP/2 on it, either side; a *call*
is one gRPC exchange; a *session* is what one client offers to us; a *job* is one build as clients see it: what it was
asked, its *status* events, its *result*, and, once done, its row in the build history.

Invariants: no LLB is solved here, only ``dockerfile.v0`` (results travel as Definitions that nobody else can read); a
job lives as long as the call that asked for it: a client that goes away cancels it; whatever a peer sends is bounded
(messages, windows, streams, headers, events kept), and nothing here waits for a disk on the event loop.
"""
