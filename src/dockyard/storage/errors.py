"""Error codes of the storage room. Texts that clients match on equal Docker's."""

from __future__ import annotations

from dockyard.errors import (
    Code,
    Conflict,
    DataLoss,
    Exhausted,
    InvalidParameter,
    NotFound,
    NotImplementedYet,
    System,
    Unavailable,
)

LAYER_TOO_BIG = Code("DY-STO-001", Exhausted, "cannot index layer: {size} bytes are more than the format can say")
BAD_COMPRESSION = Code("DY-STO-002", InvalidParameter, "cannot decompress {kind} stream: {cause}")
LAYER_LIMIT = Code("DY-STO-003", Exhausted, "layer refused: {cause}")
DIGEST_MISMATCH = Code("DY-STO-004", DataLoss, "{what} digest mismatch: expected {expected}, got {actual}")
SIZE_MISMATCH = Code("DY-STO-005", DataLoss, "{what} size mismatch: expected {expected} bytes, got {actual}")
NO_SUCH_IMAGE = Code("DY-STO-006", NotFound, "No such image: {ref}", hint="docker images lists them")
AMBIGUOUS_ID = Code("DY-STO-007", InvalidParameter, "ambiguous image ID prefix: {ref}")
DISK_FULL = Code("DY-STO-008", Exhausted, "cannot write {what}: no space left on device", hint="docker system df")
NO_SUCH_LAYER = Code("DY-STO-009", NotFound, "layer does not exist: {diff_id}")
NO_SUCH_SNAPSHOT = Code("DY-STO-010", NotFound, "snapshot {key} does not exist")
SNAPSHOT_EXISTS = Code("DY-STO-011", Conflict, "snapshot {key} already exists")
SNAPSHOT_BUSY = Code("DY-STO-012", Conflict, "cannot remove snapshot {key}: {cause}")
BAD_KEY = Code("DY-STO-013", InvalidParameter, "invalid snapshot key {key!r}")
CANNOT_MOUNT = Code("DY-STO-014", System, "{cause}")
NO_OVERLAY = Code(
    "DY-STO-015", Unavailable, "cannot use {directory} for containers: {cause}",
    hint="put the data root on ext4 or xfs; overlayfs refuses another overlayfs",
)  # fmt: skip
STORE_IN_USE = Code("DY-STO-016", Unavailable, "data root {root} is used by another daemon")
BAD_SNAPSHOTTER = Code("DY-STO-017", InvalidParameter, "unknown snapshotter {name!r}: auto, erofs or extract")
UNKNOWN_BOOTSTRAP = Code(
    "DY-STO-018", NotFound, "cannot bootstrap {name}: not one of debian, busybox, alpine, hello-world"
)
CANNOT_BOOTSTRAP = Code("DY-STO-019", Unavailable, "cannot bootstrap {name}: {cause}")
CANNOT_REMOVE_REFERENCE = Code(
    "DY-STO-020", Conflict,
    "conflict: unable to remove repository reference \"{ref}\" (must force) - "
    "container {container} is using its referenced image {image}",
)  # fmt: skip
CANNOT_DELETE_IMAGE = Code("DY-STO-021", Conflict, "conflict: unable to delete {image} ({how}) - {cause}")
EMPTY_EXPORT = Code("DY-STO-022", NotImplementedYet, "empty export - not implemented")
NO_SUCH_VOLUME = Code("DY-STO-023", NotFound, "get {name}: no such volume")
BAD_VOLUME_NAME = Code(
    "DY-STO-024", InvalidParameter,
    'create {name}: "{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" '
    "are allowed. If you intended to pass a host directory, use absolute path",
)  # fmt: skip
VOLUME_NAME_TOO_SHORT = Code(
    "DY-STO-025", InvalidParameter,
    "create {name}: volume name is too short, names should be at least two alphanumeric characters",
)  # fmt: skip
BAD_VOLUME_OPTION = Code("DY-STO-026", InvalidParameter, "create {name}: {cause}")
VOLUME_IN_USE = Code("DY-STO-027", Conflict, "remove {name}: volume is in use - [{users}]")
VOLUME_EXISTS = Code(
    "DY-STO-028", Conflict, "create {name}: conflict: volume name must be unique: it exists with other options"
)
CANNOT_MOUNT_VOLUME = Code("DY-STO-029", System, "error while mounting volume '{mountpoint}': {cause}")
TAG_WITH_DIGEST = Code("DY-STO-030", InvalidParameter, "refusing to create a tag with a digest reference")
CANNOT_UNPACK = Code("DY-STO-031", InvalidParameter, "cannot unpack {name}: {cause}")
NO_IDMAPPED = Code(
    "DY-STO-032", Unavailable, "cannot map owners of files for user namespaces (userns-remap) in {directory}: {cause}",
    hint="it needs Linux 5.19 or newer and a data root on ext4, xfs or btrfs (tmpfs from 6.3): mount_setattr(2) lists them",
)  # fmt: skip
