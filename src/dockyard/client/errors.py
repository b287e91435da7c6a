"""Error codes of the client room, and the map from HTTP status to error kind (the inverse of the API's map)."""

from __future__ import annotations

from dockyard.errors import (
    Code,
    Conflict,
    DockyardError,
    Exhausted,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotImplementedYet,
    NotModified,
    System,
    Unauthorized,
    Unavailable,
)  # fmt: skip

CANNOT_CONNECT = Code(
    "DY-CLIENT-001",
    Unavailable,
    "Cannot connect to the Docker daemon at {host}. Is the docker daemon running? ({cause})",
    hint="dockyard doctor says why it does not answer",
    check="INS-01",
)
PERMISSION_DENIED = Code(
    "DY-CLIENT-002",
    Forbidden,
    "permission denied while trying to connect to the Docker daemon socket at {host}",
    hint="compare `id` with `stat -c %U:%G:%a` of the socket",
    check="INS-02",
)
BAD_ANSWER = Code("DY-CLIENT-003", System, "cannot read the answer of {host}: {cause}", check="INS-15")
TIMED_OUT = Code("DY-CLIENT-004", Unavailable, "no answer from {host} within {seconds} s ({what})")
BAD_HOST = Code("DY-CLIENT-005", InvalidParameter, "unable to parse docker host `{host}`: {cause}", check="INS-03")
NO_CONTEXT = Code("DY-CLIENT-006", NotFound, 'context "{name}": context not found', hint="dockyard context ls lists them")
TLS_FAILED = Code("DY-CLIENT-007", Unavailable, "cannot speak TLS with {host}: {cause}", check="INS-15")
CONNECTION_LOST = Code("DY-CLIENT-008", Unavailable, "connection to {host} lost: {cause}")
TOO_OLD = Code("DY-CLIENT-009", InvalidParameter, "the daemon at {host} speaks only API {version}, older than {least}")
NO_PLUGIN = Code(
    "DY-CLIENT-020", NotFound, "could not find plugin {name} in v1 plugin registry: plugin not found",
    hint="its socket belongs in /run/docker/plugins, its .spec or .json in /etc/docker/plugins",
)  # fmt: skip
PLUGIN_FAILED = Code("DY-CLIENT-021", System, "plugin {plugin}: {method}: {cause}")

BAD_CONTEXT_NAME = Code(
    "DY-CLIENT-010", InvalidParameter,
    'context name "{name}" is invalid: "default" is reserved, and names match ^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$',
)  # fmt: skip
CONTEXT_EXISTS = Code("DY-CLIENT-011", Conflict, 'context "{name}" already exists', hint="dockyard context rm {name}")
CONTEXT_IN_USE = Code(
    "DY-CLIENT-012", Conflict, 'context "{name}" is in use, set another context as current first',
    hint="dockyard context use default",
)  # fmt: skip

_KINDS: dict[int, type[DockyardError]] = {
    304: NotModified, 400: InvalidParameter, 401: Unauthorized, 403: Forbidden, 404: NotFound, 405: NotImplementedYet,
    409: Conflict, 429: Exhausted, 501: NotImplementedYet, 502: Unavailable, 503: Unavailable, 504: Unavailable,
    507: Exhausted,
}  # fmt: skip


def from_status(status: int, message: str, hint: str = "") -> DockyardError:
    """The error that an HTTP status means; ``message`` is the daemon's own sentence, unchanged (clients match it);
    ``hint`` what a Dockyard engine says beside it."""
    kind = _KINDS.get(status, InvalidParameter if 400 <= status < 500 else System)
    return kind(message or f"HTTP status {status}", hint=hint, status=status)
