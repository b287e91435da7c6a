"""Error codes of the build room. Texts that docker clients match are Docker's own."""

from __future__ import annotations

from ..errors import (
    Cancelled,
    Code,
    Conflict,
    Exhausted,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotImplementedYet,
    System,
)

__all__ = [
    "BAD_CACHE", "BAD_CONTEXT", "BAD_DOCKERFILE", "BAD_OPTION", "BUILD_CANCELLED", "CONTEXT_TOO_BIG", "COPY_CONFLICT",
    "COPY_MISSING", "DOCKERFILE_MISSING", "EMPTY_CONTEXT", "ENTITLEMENT", "FETCH_FAILED", "FOREIGN_FRONTEND",
    "FOREIGN_STEP", "MOUNT_IN_USE", "NO_CACHE_PLACE", "NO_SPACE", "NO_SUCH_BUILD", "NO_SUCH_MOUNT", "NO_SUCH_STAGE",
    "NO_SUCH_USER", "RUN_FAILED", "SECRET_MISSING", "SESSION_LOST", "STEP_FAILED",
]  # fmt: skip

BAD_DOCKERFILE = Code("DY-BLD-001", InvalidParameter, "{text}")
DOCKERFILE_MISSING = Code(
    "DY-BLD-002",
    NotFound,
    "Cannot locate specified Dockerfile: {name}",
    hint="docker build -f PATH names another file; it must lie inside the context",
)
NO_SUCH_STAGE = Code("DY-BLD-003", InvalidParameter, "failed to reach build target {name} in Dockerfile{suggestion}")
RUN_FAILED = Code(
    "DY-BLD-004",
    System,
    "The command '{command}' returned a non-zero code: {exit_code}",
)
COPY_MISSING = Code(
    "DY-BLD-005",
    NotFound,
    "{instruction} failed: file not found in build context or excluded by .dockerignore: stat {path}: "
    "file does not exist",
)
COPY_CONFLICT = Code("DY-BLD-006", Conflict, "cannot copy {source} to {target}: {cause}")
BAD_OPTION = Code("DY-BLD-007", InvalidParameter, "{text}")
BAD_CONTEXT = Code("DY-BLD-008", InvalidParameter, "cannot read build context: {cause}")
CONTEXT_TOO_BIG = Code("DY-BLD-009", Exhausted, "cannot read build context: {what} is over the limit of {limit}")
EMPTY_CONTEXT = Code("DY-BLD-010", InvalidParameter, "failed to read dockerfile: the build context is empty")
ENTITLEMENT = Code(
    "DY-BLD-011",
    Forbidden,
    "{entitlement} is not allowed",
    hint="docker buildx build --allow {entitlement}, and allow it in the builder's settings",
)
SECRET_MISSING = Code("DY-BLD-012", NotFound, "secret {id}: not found", hint="pass it: --secret id={id},src=FILE")
NO_SUCH_USER = Code("DY-BLD-013", NotFound, "unable to find user {user}: no matching entries in passwd file")
FETCH_FAILED = Code("DY-BLD-014", System, "cannot fetch {url}: {cause}")
BUILD_CANCELLED = Code("DY-BLD-015", Cancelled, "build cancelled")
NO_SUCH_BUILD = Code("DY-BLD-016", NotFound, "no such build: {id}")
STEP_FAILED = Code("DY-BLD-017", System, "cannot run step {step}: {cause}")
SESSION_LOST = Code("DY-BLD-018", System, "no active session for {id}: {cause}")
NO_SPACE = Code("DY-BLD-040", Exhausted, "cannot build: no space left on device", hint="docker builder prune; docker system df")
BAD_CACHE = Code("DY-BLD-019", InvalidParameter, "cannot read the cache: {cause}")
NO_CACHE_PLACE = Code(
    "DY-BLD-020", NotFound, "there is no cache at {place}: {cause}",
    hint="dockyard build and docker buildx build offer directories; --cache-to type=registry,ref=... needs none",
)  # fmt: skip
NO_SUCH_MOUNT = Code(
    "DY-BLD-021", NotFound, "no such cache mount: {id}", hint="dockyard builder mounts lists them; a mount is made by its first RUN"
)  # fmt: skip
MOUNT_IN_USE = Code(
    "DY-BLD-022", Conflict, "cache mount {id} is in use", hint="try again when the build that uses it has ended"
)  # fmt: skip
FOREIGN_STEP = Code(
    "DY-BLD-023", System,
    "cannot run step {step}: exec format error: its programs are for {platform}, and this {host} machine has no emulator "
    "registered for them (apt-get install qemu-user-static binfmt-support)",
    hint="apt-get install qemu-user-static binfmt-support registers emulators; without one, build on this machine's platform "
    "(FROM --platform=$BUILDPLATFORM), cross-compile by $TARGETARCH, and COPY --from into the target's image",
)  # fmt: skip
FOREIGN_FRONTEND = Code(
    "DY-BLD-024", NotImplementedYet,
    "the build frontend {name}{where} is not implemented by Dockyard: the Dockerfile's own is (docker/dockerfile in every "
    "version, from any mirror); drop the line if the file is a plain Dockerfile, else build it with BuildKit itself "
    "(docker buildx create --driver docker-container --use)",
)  # fmt: skip
