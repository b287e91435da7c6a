"""Errors: what every room raises, and the catalogue of all of them.

Two questions are kept apart. *Kind* is for branching: callers write ``except NotFound``, and the API maps a kind to an
HTTP status in one place. *Code* is for telling: a stable id such as ``DY-NET-014`` with a message template, a hint that
names the next command, and the doctor check that confirms the cause.

A room declares its codes in its own ``errors.py``::

    NO_SUCH_CONTAINER = Code("DY-ENG-001", NotFound, "No such container: {ref}", hint="docker ps -a lists them")
    raise NO_SUCH_CONTAINER(ref=ref)

Invariants: a code is declared once (a second declaration fails at import); the evidence given to a code is kept on the
error, so that nobody parses messages. Foreign exceptions are translated at the port where they enter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = [
    "CATALOGUE", "Cancelled", "Code", "Conflict", "DataLoss", "DockyardError", "Exhausted", "Forbidden",
    "InvalidParameter", "NotFound", "NotImplementedYet", "NotModified", "System", "Unauthorized", "Unavailable",
]  # fmt: skip


class DockyardError(Exception):
    """Root of all errors that Dockyard raises on purpose. ``str()`` is the sentence for the user."""

    kind = "system"

    def __init__(self, message: str, /, *, code: str = "", hint: str = "", check: str = "", **evidence: Any) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.check = check
        self.evidence = evidence


class NotFound(DockyardError):
    kind = "not found"


class InvalidParameter(DockyardError):
    kind = "invalid parameter"


class Conflict(DockyardError):
    kind = "conflict"


class Unauthorized(DockyardError):
    kind = "unauthorized"


class Forbidden(DockyardError):
    kind = "forbidden"


class NotModified(DockyardError):
    """The thing is already in the state asked for (start of a running container)."""

    kind = "not modified"


class NotImplementedYet(DockyardError):
    kind = "not implemented"


class Unavailable(DockyardError):
    """Something needed does not answer now; trying again later can help."""

    kind = "unavailable"


class Exhausted(DockyardError):
    """A limit, a quota or the disk is full."""

    kind = "exhausted"


class Cancelled(DockyardError):
    kind = "cancelled"


class DataLoss(DockyardError):
    """Stored content is not what its digest or record says."""

    kind = "data loss"


class System(DockyardError):
    kind = "system"


class _Row(NamedTuple):
    id: str
    kind: type[DockyardError]
    template: str
    hint: str
    check: str


class Code(_Row):
    """One row of the catalogue; calling it makes the error. Raises KeyError if a template field is missing.

    Not a dataclass: that module and what it imports take 8 ms, which each command of the command line would wait.
    """

    __slots__ = ()

    def __new__(cls, id: str, kind: type[DockyardError], template: str, hint: str = "", check: str = "") -> Code:
        if id in CATALOGUE:
            raise ValueError(f"error code {id} is declared twice")
        CATALOGUE[id] = made = super().__new__(cls, id, kind, template, hint, check)
        return made

    def __call__(self, **evidence: Any) -> DockyardError:
        hint = self.hint.format_map(evidence) if self.hint else ""
        return self.kind(self.template.format_map(evidence), code=self.id, hint=hint, check=self.check, **evidence)


CATALOGUE: dict[str, Code] = {}
