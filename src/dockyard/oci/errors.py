"""Error codes of the oci room. Texts that clients match on equal Docker's."""

from __future__ import annotations

from dockyard.errors import Code, InvalidParameter

INVALID_DIGEST = Code("DY-OCI-001", InvalidParameter, "invalid checksum digest format: {digest}")
INVALID_REFERENCE = Code("DY-OCI-002", InvalidParameter, "invalid reference format")
REFERENCE_NOT_LOWERCASE = Code(
    "DY-OCI-003", InvalidParameter, "invalid reference format: repository name ({name}) must be lowercase"
)
REFERENCE_IS_AN_ID = Code(
    "DY-OCI-004", InvalidParameter,
    "invalid repository name ({name}), cannot specify 64-byte hexadecimal strings",
)  # fmt: skip
REFERENCE_TOO_LONG = Code(
    "DY-OCI-005", InvalidParameter, "repository name must not be more than 255 characters"
)
BAD_TAR = Code("DY-OCI-006", InvalidParameter, "invalid tar archive: {cause}")
BREAKOUT = Code("DY-OCI-007", InvalidParameter, "invalid layer: {name!r} points outside of its root")
BAD_LAYER = Code("DY-OCI-008", InvalidParameter, "invalid layer: {name!r}: {cause}")
BAD_DOCUMENT = Code("DY-OCI-009", InvalidParameter, "invalid {what}: {cause}")
BAD_ARCHIVE = Code("DY-OCI-010", InvalidParameter, "invalid archive: {cause}")
BAD_CHANGE = Code("DY-OCI-011", InvalidParameter, "{cause}")
