"""Error catalogue of the registry. Each row also names its code in the OCI error document and its HTTP status.

Codes: distribution-spec section "Error Codes"; statuses: the tables of end-1 to end-14.
"""

from __future__ import annotations

from dockyard.errors import (
    Code,
    Conflict,
    DockyardError,
    Exhausted,
    Forbidden,
    InvalidParameter,
    NotFound,
    System,
    Unauthorized,
    Unavailable,
)

WIRE: dict[str, tuple[int, str]] = {}
"""Catalogue id -> (HTTP status, code of the OCI error document)."""


def _code(
    number: int, kind: type[DockyardError], status: int, oci: str, template: str, hint: str = ""
) -> Code:
    code = Code(f"DY-REG-{number:03d}", kind, template, hint)
    WIRE[code.id] = (status, oci)
    return code


BLOB_UNKNOWN = _code(1, NotFound, 404, "BLOB_UNKNOWN", "blob unknown to registry: {digest}")
UPLOAD_INVALID = _code(2, InvalidParameter, 400, "BLOB_UPLOAD_INVALID", "blob upload invalid: {reason}")
UPLOAD_UNKNOWN = _code(3, NotFound, 404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry: {upload}")
DIGEST_INVALID = _code(4, InvalidParameter, 400, "DIGEST_INVALID", "digest invalid: {reason}")
MANIFEST_BLOB_UNKNOWN = _code(
    5, NotFound, 404, "MANIFEST_BLOB_UNKNOWN", "manifest references a blob unknown to this repository: {digest}",
    "push the blob first, or mount it from the repository that has it",
)  # fmt: skip
MANIFEST_INVALID = _code(6, InvalidParameter, 400, "MANIFEST_INVALID", "manifest invalid: {reason}")
MANIFEST_UNKNOWN = _code(7, NotFound, 404, "MANIFEST_UNKNOWN", "manifest unknown: {reference}")
NAME_INVALID = _code(8, InvalidParameter, 400, "NAME_INVALID", "invalid repository name: {name}")
NAME_UNKNOWN = _code(9, NotFound, 404, "NAME_UNKNOWN", "repository name not known to registry: {name}")
SIZE_INVALID = _code(10, InvalidParameter, 400, "SIZE_INVALID", "size invalid: {reason}")
UNAUTHORIZED = _code(11, Unauthorized, 401, "UNAUTHORIZED", "authentication required")
DENIED = _code(12, Forbidden, 403, "DENIED", "requested access to the resource is denied: {reason}")
UNSUPPORTED = _code(13, InvalidParameter, 405, "UNSUPPORTED", "the operation is unsupported: {reason}")
TAG_INVALID = _code(14, InvalidParameter, 400, "MANIFEST_INVALID", "invalid tag name: {tag}")
OUT_OF_ORDER = _code(
    15, InvalidParameter, 416, "BLOB_UPLOAD_INVALID", "chunk begins at {begin}, the upload stands at {offset}"
)
MANIFEST_TOO_LARGE = _code(16, InvalidParameter, 413, "MANIFEST_INVALID", "manifest is larger than {limit} bytes")
TAG_IMMUTABLE = _code(
    17, Forbidden, 403, "DENIED", "tag {tag} of {name} is immutable and points at another manifest",
    "push under a new tag",
)  # fmt: skip
QUOTA = _code(
    18, Exhausted, 403, "DENIED",
    "namespace {namespace} is over its quota: {used} of {quota} bytes used, {size} more wanted",
    "delete tags and let the collector run, or raise the quota",
)  # fmt: skip
STORE_FULL = _code(19, Exhausted, 507, "UNKNOWN", "the registry's disk is full")
STORE_FAILED = _code(20, Unavailable, 503, "UNKNOWN", "the blob store does not answer: {reason}")
DATABASE_FAILED = _code(21, Unavailable, 503, "UNKNOWN", "the database does not answer: {reason}")
TOO_MANY = _code(22, Unavailable, 429, "TOOMANYREQUESTS", "too many {what}; try again later")
CLIENT_TOO_SLOW = _code(23, InvalidParameter, 408, "BLOB_UPLOAD_INVALID", "the client sent nothing for too long")
RANGE_INVALID = _code(24, InvalidParameter, 416, "SIZE_INVALID", "range not satisfiable: {range}")
UPSTREAM_FAILED = _code(25, Unavailable, 502, "UNKNOWN", "upstream {upstream} failed: {reason}")
TOKEN_LACKS = _code(
    26, Unauthorized, 401, "UNAUTHORIZED", "authentication required: the token lacks {action} on {name}",
    "ask the token endpoint for the scope that WWW-Authenticate names",
)  # fmt: skip

ACCOUNT_UNKNOWN = _code(40, NotFound, 404, "NAME_UNKNOWN", "no such account: {name}")
ACCOUNT_EXISTS = _code(41, Conflict, 409, "DENIED", "account {name} exists already")
TEAM_UNKNOWN = _code(42, NotFound, 404, "NAME_UNKNOWN", "no such team: {org}/{team}")
VALUE_INVALID = _code(43, InvalidParameter, 400, "UNSUPPORTED", "invalid {what}: {reason}")
LOGIN_FAILED = _code(44, Unauthorized, 401, "UNAUTHORIZED", "incorrect username or password")
LDAP_FAILED = _code(45, Unavailable, 503, "UNAVAILABLE", "the directory server does not answer: {reason}")
THING_UNKNOWN = _code(46, NotFound, 404, "NAME_UNKNOWN", "no such {what}: {name}")
TEAM_EXISTS = _code(47, Conflict, 409, "DENIED", "team {org}/{team} exists already")
SCHEMA_NEWER = _code(48, System, 500, "UNKNOWN", "the database was written by a newer version (schema {version})")
REPOSITORY_EXISTS = _code(49, Conflict, 409, "DENIED", "repository {name} exists already")
