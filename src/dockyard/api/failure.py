"""From errors to answers: the one place where a kind becomes an HTTP status (moby daemon/server/httpstatus)."""

from __future__ import annotations

import logging

import msgspec

from dockyard import errors
from dockyard.http import Request, Response

STATUS: dict[type[errors.DockyardError], int] = {
    errors.NotFound: 404,
    errors.InvalidParameter: 400,
    errors.Conflict: 409,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.Unavailable: 503,
    errors.NotModified: 304,
    errors.NotImplementedYet: 501,
    errors.Exhausted: 507,
}

_log = logging.getLogger("dockyard.api")


def status_of(error: Exception) -> int:
    if isinstance(error, errors.DockyardError):
        # An error may know better than its kind (413 for a body over the limit).
        own = error.evidence.get("status")
        if isinstance(own, int):
            return own
        return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
    return 500


def message_of(error: Exception) -> str:
    """Docker's sentence alone: clients compare and show it. Hint and code travel beside it."""
    return (
        str(error) if isinstance(error, (errors.DockyardError, OSError)) else "internal error; the daemon's log has it"
    )


def log_failure(log: logging.Logger, error: Exception, told: str, *words: object) -> None:
    """What was raised on purpose says what it is (a port in use); of anything else the log tells where it comes from. What
    this engine does not serve (``docker inspect`` asks for secrets too) is nobody's failure."""
    foreseen = isinstance(error, errors.DockyardError) and not log.isEnabledFor(logging.DEBUG)
    level = logging.INFO if isinstance(error, errors.NotImplementedYet) else logging.ERROR
    log.log(level, told, *words, exc_info=None if foreseen else error)


def failure(request: Request, error: Exception) -> Response:
    status = status_of(error)
    if status == 304:
        return Response(304)
    body = {"message": message_of(error)}
    if isinstance(error, errors.DockyardError):
        if error.code:
            body["code"] = error.code
        if error.hint:
            body["hint"] = error.hint
    if status >= 500 and status != 501:
        log_failure(_log, error, "%s %s: %s", request.method, request.target, error)
    else:
        _log.debug("%s %s: %d %s", request.method, request.target, status, error)
    return Response(status, {"Content-Type": "application/json"}, msgspec.json.encode(body))


def plain(status: int, message: str) -> Response:
    return Response(status, {"Content-Type": "application/json"}, msgspec.json.encode({"message": message}))
