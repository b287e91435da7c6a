"""Error codes of BuildKit's door."""

from __future__ import annotations

from dockyard.errors import Code, Conflict, Exhausted, InvalidParameter, NotFound, NotImplementedYet, System

__all__ = ["BAD_REQUEST", "EXPORT_FAILED", "NOT_SERVED", "NO_SUCH_FILE", "NO_SUCH_JOB", "NO_SUCH_REF", "SESSION_EXISTS", "TOO_MANY"]

SESSION_EXISTS = Code("DY-BLD-060", Conflict, "session {id} already exists, or there are too many")
NOT_SERVED = Code("DY-BLD-061", NotImplementedYet, "{what} is not implemented by Dockyard yet")
NO_SUCH_JOB = Code("DY-BLD-062", NotFound, "no such build {id}")
NO_SUCH_REF = Code("DY-BLD-063", NotFound, "no such result {id} in this build")
BAD_REQUEST = Code("DY-BLD-064", InvalidParameter, "{text}")
EXPORT_FAILED = Code("DY-BLD-065", System, "cannot export to the client: {cause}")
NO_SUCH_FILE = Code("DY-BLD-066", NotFound, "{path}: no such file or directory")
TOO_MANY = Code("DY-BLD-067", Exhausted, "too many {what}: the limit is {limit}")
