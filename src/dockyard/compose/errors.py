"""Errors of Compose files: always with file and line, and the nearest valid word where there is one."""

from __future__ import annotations

from dockyard.errors import Code, Conflict, InvalidParameter, NotFound, NotImplementedYet, System, Unavailable

BAD_YAML = Code("DY-CMP-001", InvalidParameter, "{where}: {cause}")
UNKNOWN_KEY = Code("DY-CMP-002", InvalidParameter, "{where}: {path}: unknown key '{key}'{nearest}")
WRONG_TYPE = Code("DY-CMP-003", InvalidParameter, "{where}: {path}: must be {expected}, not {found}")
BAD_VALUE = Code("DY-CMP-004", InvalidParameter, "{where}: {path}: {cause}")
MISSING_VARIABLE = Code(
    "DY-CMP-005", InvalidParameter, "{where}: {path}: required variable {name} is missing a value: {message}"
)
BAD_TEMPLATE = Code(
    "DY-CMP-006",
    InvalidParameter,
    "{where}: {path}: invalid interpolation format: {text}",
    hint="write $$ for a dollar sign",
)
UNDEFINED = Code("DY-CMP-007", InvalidParameter, 'service "{service}" refers to undefined {kind} {name}{nearest}')
CYCLE = Code("DY-CMP-008", InvalidParameter, "dependency cycle detected: {path}")
NO_SUCH_SERVICE = Code("DY-CMP-010", NotFound, "no such service: {name}{nearest}")
CANNOT_READ = Code("DY-CMP-011", NotFound, "cannot read {path}: {cause}")
BAD_PROJECT_NAME = Code(
    "DY-CMP-012", InvalidParameter,
    "invalid project name {name!r}: must consist only of lowercase alphanumeric characters, hyphens, and underscores "
    "as well as start with a letter or number",
    hint="give one with -p",
)  # fmt: skip
INCLUDE_CONFLICT = Code("DY-CMP-013", Conflict, "{where}: {kind} {name} conflicts with an imported resource")
EXTENDS_CYCLE = Code("DY-CMP-014", InvalidParameter, "circular reference with extends: {path}")
TOO_LARGE = Code("DY-CMP-015", InvalidParameter, "{where}: file is too large or expands to too much ({limit})")
UNSUPPORTED = Code("DY-CMP-020", NotImplementedYet, "{what} need a swarm; an engine alone has none of these")
CANNOT_INJECT = Code("DY-CMP-021", InvalidParameter, 'cannot write {kind} "{name}" into the container: {cause}')
ONE_NAME = Code(
    "DY-CMP-022", InvalidParameter,
    'service "{service}" has container_name "{name}", which only one container can have: it cannot be scaled to {scale}',
    hint="remove container_name from the service",
)  # fmt: skip
NO_EXTERNAL = Code(
    "DY-CMP-023", NotFound, "{kind} {name} declared as external, but could not be found",
    hint="dockyard {kind} create {name}",
)  # fmt: skip
NO_FILE = Code(
    "DY-CMP-024", NotFound, "no configuration file provided: not found in {directory} or above",
    hint="go to the project's directory, or name the file with -f",
)  # fmt: skip
MISSING_DEPENDENCY = Code("DY-CMP-025", NotFound, "cannot share {what} of service {name}: it has no container")
DEPENDENCY_FAILED = Code(
    "DY-CMP-026", Conflict, "dependency failed to start: {cause}", hint="dockyard compose logs {service}"
)
NOT_COMPLETED = Code(
    "DY-CMP-027", Conflict, 'service "{service}" didn\'t complete successfully: exit {code}',
    hint="dockyard compose logs {service}",
)  # fmt: skip
WAIT_TIMEOUT = Code(
    "DY-CMP-028", Unavailable, "{what} is not ready after {seconds} s",
    hint="dockyard compose ps tells the state, --wait-timeout waits longer",
)  # fmt: skip
NOT_RUNNING = Code("DY-CMP-029", NotFound, 'service "{service}" is not running{index}', hint="dockyard compose up -d {service}")
NO_IMAGE = Code("DY-CMP-030", NotFound, 'No such image: {image} (service "{service}")', hint="dockyard compose pull {service}")
PULL_FAILED = Code("DY-CMP-031", Unavailable, "cannot pull {image}: {cause}", hint="dockyard doctor")
BUILD_FAILED = Code("DY-CMP-032", System, "cannot build {service}: {cause}", hint="dockyard compose build {service}")
HOOK_FAILED = Code("DY-CMP-033", Conflict, '{hook} hook of service "{service}" exited with status {code}')
PROVIDER_FAILED = Code("DY-CMP-046", Conflict, 'cannot provide service "{service}": {cause}')
PRE_START_FAILED = Code(
    "DY-CMP-034", Conflict,
    'pre_start hook of service "{service}" exited with status {code}: {last} (container {container} is kept to be looked into)',
    hint="docker logs {container}",
)  # fmt: skip
NO_SERVICE = Code("DY-CMP-035", InvalidParameter, "no service selected", hint="--profile activates services of a profile")
ORPHANS_BOTH = Code("DY-CMP-036", InvalidParameter, "cannot combine COMPOSE_IGNORE_ORPHANS and --remove-orphans")
UNSUPPORTED_BUILD = Code(
    "DY-CMP-037", NotImplementedYet, 'service "{service}": build.{key} is not implemented yet (it needs a BuildKit session)',
    hint="build the image with docker buildx, and name it with `image`",
)  # fmt: skip
NO_PORT = Code("DY-CMP-038", NotFound, "no port {port} for container {container}", hint="dockyard compose ps")
NOT_YET = Code("DY-CMP-040", NotImplementedYet, 'service "{service}": {key} is not implemented yet', hint="docker compose has it")
UPDATE_FAILED = Code(
    "DY-CMP-041", Conflict, "update of {service} failed and was rolled back: {cause}", hint="dockyard compose logs {service}"
)
BALANCER_FAILED = Code(
    "DY-CMP-042", Unavailable, "the balancer does not run: {cause}", hint="dockyard compose balance starts it"
)
NOT_BALANCED = Code(
    "DY-CMP-043", NotFound, "no service has x-dockyard.balance",
    hint="x-dockyard: {{balance: {{listen: 8080, port: 80}}}} in a service",
)  # fmt: skip
CHAOS_IMPOSSIBLE = Code(
    "DY-CMP-044", NotImplementedYet, "cannot do {verb} to {name} here: {cause}", hint="dockyard chaos pause, or cut",
)  # fmt: skip
NOT_STEADY = Code(
    "DY-CMP-045", Conflict, "not in a steady state, so nothing was injected: {cause}", hint="dockyard doctor"
)
BALANCER_RUNS = Code(
    "DY-CMP-060", Conflict, "a balancer of {project} runs already", hint="dockyard compose balance --status"
)
