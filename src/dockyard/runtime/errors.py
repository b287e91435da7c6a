"""What can go wrong in the runtime room. Sentences that clients match are Docker's."""

from __future__ import annotations

from dockyard.errors import Code, Conflict, InvalidParameter, NotFound, NotImplementedYet, System, Unavailable

NO_RUNTIME = Code(
    "DY-RUN-001", Unavailable, "no OCI runtime works on this host: {reasons}", hint="apt-get install runc conmon"
)
NO_CONMON = Code("DY-RUN-002", Unavailable, "conmon was not found on this host", hint="apt-get install conmon")
CREATE_FAILED = Code(
    "DY-RUN-003",
    System,
    "failed to create task for container: failed to create shim task: OCI runtime create failed: {cause}: unknown{why}",
)
"""``why``: what forensics found, after Docker's own sentence."""
START_FAILED = Code("DY-RUN-004", System, "cannot start container {id}: {cause}")
NOT_RUNNING = Code("DY-RUN-005", Conflict, "container {id} is not running")
NO_SUCH_TASK = Code("DY-RUN-006", NotFound, "cannot find a process of container {id}: it was not created here")
RUNTIME_FAILED = Code("DY-RUN-007", System, "cannot {verb} container {id}: {cause}")
TIMED_OUT = Code(
    "DY-RUN-008",
    System,
    "cannot {verb} container {id}: no answer within {limit:g} s",
    hint="see dmesg for blocked tasks",
)
INVALID_SIGNAL = Code("DY-RUN-010", InvalidParameter, "Invalid signal: {signal}")
INVALID_DETACH_KEYS = Code("DY-RUN-011", InvalidParameter, "Invalid detach keys ({keys}) provided")
INVALID = Code("DY-RUN-012", InvalidParameter, "{cause}")
"""Refusals of a create or update request, in Docker's own sentence each."""
NO_USER = Code("DY-RUN-013", InvalidParameter, "unable to find user {name}: no matching entries in passwd file")
NO_GROUP = Code("DY-RUN-014", InvalidParameter, "unable to find group {name}: no matching entries in group file")
INVALID_USER = Code("DY-RUN-015", InvalidParameter, "uids and gids must be in range 0-{limit}: {value}")
NO_INIT = Code(
    "DY-RUN-016",
    Unavailable,
    "cannot honour --init: none of docker-init, tini-static, catatonit was found on this host",
    hint="apt-get install tini",
)
NO_GPU = Code(
    "DY-RUN-017", NotImplementedYet,
    'could not select device driver "{driver}" with capabilities: {capabilities}',
    hint="this engine has no device driver of that kind; pass the device nodes with --device",
)  # fmt: skip
NO_PID_COLUMN = Code("DY-RUN-018", InvalidParameter, "Couldn't find PID field in ps output")
PS_FAILED = Code("DY-RUN-019", InvalidParameter, "error running ps: {cause}")
EXEC_FAILED = Code("DY-RUN-020", System, "OCI runtime exec failed: {cause}: unknown")
NO_SUCH_EXEC = Code("DY-RUN-021", NotFound, "No such exec instance: {id}")
LOGS_UNREADABLE = Code("DY-RUN-022", NotImplementedYet, "configured logging driver does not support reading")
CLIENT_TOO_SLOW = Code(
    "DY-RUN-023", System, "this client did not read for {limit:g} s and was cut off; the container and its log go on"
)
