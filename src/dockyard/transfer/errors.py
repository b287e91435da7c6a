"""Error codes of the transfer room. Texts that clients match on equal Docker's (moby distribution/errors.go)."""

from __future__ import annotations

from dockyard.errors import (
    Cancelled,
    Code,
    DataLoss,
    Exhausted,
    InvalidParameter,
    NotFound,
    System,
    Unauthorized,
    Unavailable,
)

MANIFEST_NOT_FOUND = Code(
    "DY-TRF-001", NotFound, "manifest for {name} not found: {detail}",
    hint="the repository is there but has no such tag or digest; its tags: https://{host}/v2/{path}/tags/list",
)  # fmt: skip
PULL_DENIED = Code(
    "DY-TRF-002", NotFound,
    "pull access denied for {name}, repository does not exist or may require 'docker login': {detail}",
    hint="docker login {host}",
)  # fmt: skip
REPOSITORY_NOT_FOUND = Code(
    "DY-TRF-007", NotFound, "repository {name} not found: {detail}", hint="check the spelling of {path} on {host}"
)
PUSH_DENIED = Code("DY-TRF-003", Unauthorized, "{detail}{cause}", hint="docker tag {name} {target}")
UNAUTHORIZED = Code(
    "DY-TRF-004", Unauthorized, "{operation}: {detail}{cause}", hint="docker login {host}"
)  # fmt: skip
PULL_UNAUTHORIZED = Code(
    # Not a 401 to our own client: docker would ask for a name on the terminal, as it does for a refused login.
    "DY-TRF-008", System, "{operation}: {detail}{cause}", hint="docker login {host}"
)  # fmt: skip
TOO_MANY_REQUESTS = Code(
    "DY-TRF-005", Exhausted, "toomanyrequests: {detail}{limits}",
    hint="wait, log in for a higher limit, or set a mirror for {host}",
)  # fmt: skip
SERVER_ANSWER = Code("DY-TRF-006", Unavailable, "{operation}: {detail}")
PLAIN_HTTP = Code(
    "DY-TRF-010", System, "{operation}: http: server gave HTTP response to HTTPS client",
    hint='add "{host}" to insecure-registries in daemon.json if the registry is meant to be without TLS',
)  # fmt: skip
TLS_UNTRUSTED = Code(
    "DY-TRF-011", System, "{operation}: tls: failed to verify certificate: x509: {cause}",
    hint="put the registry's CA certificate into /etc/docker/certs.d/{host}/ca.crt",
)  # fmt: skip
TLS_FAILED = Code("DY-TRF-012", System, "{operation}: {cause}")
UNREACHABLE = Code("DY-TRF-013", Unavailable, "{operation}: {cause}")
BROKEN_STREAM = Code(
    "DY-TRF-014", Unavailable,
    "cannot download {digest} from {host}: connection broken after {offset} of {size} bytes: {cause}",
)  # fmt: skip
CERTS_DIR = Code("DY-TRF-015", InvalidParameter, "{cause}")
TOKEN_REFUSED = Code(
    "DY-TRF-016", Unauthorized, "{operation}: {detail}", hint="docker login {host}"
)  # fmt: skip
NO_PLATFORM = Code(
    "DY-TRF-020", NotFound, "no matching manifest for {platform} in the manifest list entries",
    hint="the image is published for {available}",
)  # fmt: skip
WRONG_PLATFORM = Code(
    "DY-TRF-021", NotFound,
    "image with reference {ref} was found but its platform ({actual}) does not match the specified platform "
    "({platform})",
)  # fmt: skip
BAD_MANIFEST = Code("DY-TRF-022", InvalidParameter, "cannot read the manifest of {ref}: {cause}")
SCHEMA1_REMOVED = Code(
    "DY-TRF-023", InvalidParameter,
    "Docker Image manifest version 2, schema 1 has been removed. {ref} must be pushed again by its author "
    "as manifest v2, schema 2 or as an OCI image. More information at https://docs.docker.com/go/deprecated-image-specs/",
)  # fmt: skip
NOT_AN_IMAGE = Code(
    "DY-TRF-024", InvalidParameter, "cannot pull {ref}: its config is {media_type}, which is not a container image",
)  # fmt: skip
DIGEST_MISMATCH = Code("DY-TRF-025", DataLoss, "manifest verification failed for digest {digest}")
BLOB_MISMATCH = Code("DY-TRF-026", DataLoss, "filesystem layer verification failed for digest {digest}")
FOREIGN_LAYER = Code(
    "DY-TRF-027", InvalidParameter, "cannot pull {ref}: layer {digest} is only published outside of registries"
)  # fmt: skip
NO_LOCAL_TAG = Code("DY-TRF-030", NotFound, "An image does not exist locally with the tag: {name}")
PUSH_BY_DIGEST = Code("DY-TRF-031", InvalidParameter, "cannot push a digest reference")
UPLOAD_FAILED = Code("DY-TRF-032", Unavailable, "cannot upload {what} to {host}: {cause}")
CANCELLED = Code("DY-TRF-040", Cancelled, "context canceled")
SEARCH_LIMIT = Code("DY-TRF-041", InvalidParameter, "limit {limit} is outside the range of [1, 100]")
LOGIN_FAILED = Code("DY-TRF-042", Unauthorized, "login attempt to {url} failed with status: {status}")
NO_CREDENTIALS = Code("DY-TRF-043", System, "{operation}: no basic auth credentials", hint="docker login {host}")
