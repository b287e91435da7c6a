"""Docker's exact sentences. Clients match on them (docker-py finds ImageNotFound by text, the CLI its exit codes).

Wording follows moby 28 (daemon/errors.go, daemon/names.go, daemon/delete.go, container/state.go). The evidence that
fills a sentence stays on the error.
"""

from __future__ import annotations

from dockyard.errors import (
    Code,
    Conflict,
    Exhausted,
    InvalidParameter,
    NotFound,
    NotImplementedYet,
    NotModified,
    System,
)

NO_SUCH_CONTAINER = Code("DY-ENG-001", NotFound, "No such container: {ref}", hint="docker ps -a lists containers")
AMBIGUOUS_PREFIX = Code(
    "DY-ENG-002", InvalidParameter, "multiple IDs found with provided prefix: {ref}", hint="give more digits of the ID"
)
NAME_IN_USE = Code(
    "DY-ENG-003", Conflict,
    'Conflict. The container name "/{name}" is already in use by container "{id}". '
    "You have to remove (or rename) that container to be able to reuse that name.",
    hint="docker rm {name}",
)  # fmt: skip
BAD_NAME = Code(
    "DY-ENG-004", InvalidParameter,
    "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
)  # fmt: skip
NO_COMMAND = Code("DY-ENG-005", InvalidParameter, "no command specified", hint="name a command after the image")
NO_SUCH_IMAGE = Code("DY-ENG-006", NotFound, "No such image: {ref}", hint="docker images lists what is here")
NOT_RUNNING = Code("DY-ENG-007", Conflict, "container {id} is not running", hint="docker start {id}")
KILL_NOT_RUNNING = Code(
    "DY-ENG-008", Conflict, "cannot kill container: {ref}: container {id} is not running", hint="docker ps -a"
)
PAUSED_EXEC = Code(
    "DY-ENG-009", Conflict, "Container {ref} is paused, unpause the container before exec", hint="docker unpause {ref}"
)
ALREADY_PAUSED = Code("DY-ENG-011", Conflict, "Container {id} is already paused")
NOT_PAUSED = Code("DY-ENG-012", Conflict, "Container {id} is not paused")
RESTARTING = Code(
    "DY-ENG-013", Conflict, "Container {id} is restarting, wait until the container is running", hint="docker wait {id}"
)
ALREADY_STARTED = Code("DY-ENG-014", NotModified, "container already started")
ALREADY_STOPPED = Code("DY-ENG-015", NotModified, "container is already stopped")
REMOVE_RUNNING = Code(
    "DY-ENG-016", Conflict,
    'cannot remove container "/{name}": container is running: stop the container before removing or force remove',
    hint="docker rm -f {name}",
)  # fmt: skip
REMOVE_PAUSED = Code(
    "DY-ENG-017", Conflict, 'cannot remove container "/{name}": container is paused and must be unpaused first',
    hint="docker unpause {name}",
)  # fmt: skip
REMOVAL_IN_PROGRESS = Code("DY-ENG-018", Conflict, "removal of container {ref} is already in progress")
MARKED_FOR_REMOVAL = Code(
    "DY-ENG-019", Conflict, "container is marked for removal and cannot be started", hint="docker rm {ref}"
)
START_PAUSED = Code(
    "DY-ENG-020", Conflict, "cannot start a paused container, try unpause instead", hint="docker unpause {ref}"
)
NO_SUCH_EXEC = Code("DY-ENG-021", NotFound, "No such exec instance: {ref}")
EXEC_DONE = Code("DY-ENG-022", Conflict, "exec command {id} has already run", hint="create a new exec")
EXEC_RUNNING = Code("DY-ENG-023", Conflict, "exec command {id} is already running")
ATTACH_PAUSED = Code(
    "DY-ENG-024",
    Conflict,
    "container {ref} is paused, unpause the container before attach",
    hint="docker unpause {ref}",
)
ATTACH_RESTARTING = Code("DY-ENG-025", Conflict, "container {ref} is restarting, wait until the container is running")
LOGS_UNREADABLE = Code(
    "DY-ENG-026", NotImplementedYet, "configured logging driver does not support reading",
    hint="run the container with the json-file log driver",
)  # fmt: skip
BAD_CONDITION = Code("DY-ENG-027", InvalidParameter, 'invalid condition: "{condition}"')
BAD_FILTER = Code("DY-ENG-028", InvalidParameter, "invalid filter '{name}={value}'")
BAD_REQUEST = Code("DY-ENG-031", InvalidParameter, "{cause}")
CONFLICTING_OPTIONS = Code("DY-ENG-032", InvalidParameter, "conflicting options: {cause}")
NO_SUCH_PATH = Code("DY-ENG-033", NotFound, "Could not find the file {path} in container {ref}")
NOT_A_DIRECTORY = Code("DY-ENG-034", InvalidParameter, "extraction point is not a directory")
PATH_READ_ONLY = Code(
    "DY-ENG-035", InvalidParameter, "container rootfs is marked read-only", hint="copy into a writable volume of it"
)
BAD_ENTRY = Code("DY-ENG-045", InvalidParameter, "cannot extract {name} of the archive: {cause}")
RENAME_SAME = Code("DY-ENG-036", InvalidParameter, "Renaming a container with the same name as its current name")
RENAME_EMPTY = Code("DY-ENG-037", InvalidParameter, "Neither old nor new names may be empty")
STOP_TIMED_OUT = Code(
    "DY-ENG-038", System, "cannot stop container: {id}: tried to kill container, but did not receive an exit event"
)
JOIN_TARGET_NOT_RUNNING = Code(
    "DY-ENG-039", Conflict, "cannot join {namespace} of a non running container: {id}", hint="docker start {id}"
)
IPC_NOT_SHAREABLE = Code(
    "DY-ENG-047", InvalidParameter,
    "container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
)  # fmt: skip
LINK_NOT_RUNNING = Code(
    "DY-ENG-043",
    Conflict,
    "Cannot link to a non running container: /{name} AS /{own}/{name}",
    hint="docker start {name}",
)
NO_SUCH_LINK = Code(
    "DY-ENG-044", NotFound, "No such link: /{parent}/{alias}", hint="docker inspect {parent} shows its links"
)
ENGINE_LOCKED = Code(
    "DY-ENG-041", Conflict, "cannot open {root}: another engine (pid {pid}) holds it",
    hint="stop that engine or give another --data-root",
)  # fmt: skip
UPDATE_RESTART_AUTOREMOVE = Code(
    "DY-ENG-042", InvalidParameter,
    "Restart policy cannot be updated because AutoRemove is enabled for the container",
)  # fmt: skip
STORE_FULL = Code(
    "DY-ENG-046", Exhausted, "cannot record container {name}: no space left on device",
    hint="docker system df shows what takes it; docker system prune frees some",
)  # fmt: skip
