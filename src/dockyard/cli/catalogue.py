"""Every command in one table: words, where it lives, what it does.

A row names ``module.function`` below ``cli.commands``; the function's flags stand in the module's ``FLAGS`` under the
same name. Rows that begin with ``=`` are second names. ``FORWARDED`` are commands of other rooms that read their own
arguments.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    words: str
    module: str
    function: str
    usage: str
    help: str


_TABLE = """
run | create.run | [OPTIONS] IMAGE [COMMAND] [ARG...] | Create and run a new container from an image
exec | process.exec | [OPTIONS] CONTAINER COMMAND [ARG...] | Execute a command in a running container
ps | ps.ps | [OPTIONS] | List containers
build | build.build | [OPTIONS] PATH | Build an image from a Dockerfile
pull | images.pull | [OPTIONS] NAME[:TAG|@DIGEST] | Download an image from a registry
push | images.push | [OPTIONS] NAME[:TAG] | Upload an image to a registry
images | images.images | [OPTIONS] [REPOSITORY[:TAG]] | List images
login | login.login | [OPTIONS] [SERVER] | Authenticate to a registry
logout | login.logout | [SERVER] | Log out from a registry
search | images.search | [OPTIONS] TERM | Search a registry for images
version | system.version | [OPTIONS] | Show the versions of client and engine
info | system.info | [OPTIONS] | Display system-wide information
attach | process.attach | [OPTIONS] CONTAINER | Attach to a running container
commit | images.commit | [OPTIONS] CONTAINER [REPOSITORY[:TAG]] | Create an image from a container's changes
cp | copy.cp | [OPTIONS] SRC DEST | Copy files between a container and here, or between containers
create | create.create | [OPTIONS] IMAGE [COMMAND] [ARG...] | Create a new container
diff | containers.diff | CONTAINER | Show what changed in a container's file system
events | watch.events | [OPTIONS] | Show events of the engine as they happen
export | copy.export | [OPTIONS] CONTAINER | Write a container's file system as a tar archive
history | images.history | [OPTIONS] IMAGE | Show the history of an image
import | images.import_ | [OPTIONS] FILE|URL|- [REPOSITORY[:TAG]] | Make an image of a tar archive
inspect | inspect.inspect | [OPTIONS] NAME|ID [NAME|ID...] | Show everything about objects
kill | containers.kill | [OPTIONS] CONTAINER [CONTAINER...] | Kill running containers
load | images.load | [OPTIONS] | Load images from a tar archive
logs | watch.logs | [OPTIONS] CONTAINER | Fetch the logs of a container
pause | containers.pause | CONTAINER [CONTAINER...] | Pause all processes of containers
port | containers.port | CONTAINER [PRIVATE_PORT[/PROTO]] | List port mappings of a container
rename | containers.rename | CONTAINER NEW_NAME | Rename a container
restart | containers.restart | [OPTIONS] CONTAINER [CONTAINER...] | Restart containers
rm | containers.rm | [OPTIONS] CONTAINER [CONTAINER...] | Remove containers
rmi | images.rmi | [OPTIONS] IMAGE [IMAGE...] | Remove images
save | images.save | [OPTIONS] IMAGE [IMAGE...] | Write images as a tar archive
start | process.start | [OPTIONS] CONTAINER [CONTAINER...] | Start stopped containers
stats | watch.stats | [OPTIONS] [CONTAINER...] | Show what containers use, live
stop | containers.stop | [OPTIONS] CONTAINER [CONTAINER...] | Stop running containers
tag | images.tag | SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG] | Give an image another name
top | containers.top | CONTAINER [PS_OPTION...] | Show the processes of a container
unpause | containers.unpause | CONTAINER [CONTAINER...] | Unpause all processes of containers
update | containers.update | [OPTIONS] CONTAINER [CONTAINER...] | Change limits of containers
wait | containers.wait | CONTAINER [CONTAINER...] | Wait until containers stop, show their exit codes
container prune | containers.prune | [OPTIONS] | Remove all stopped containers
container inspect | inspect.inspect_container | [OPTIONS] CONTAINER [CONTAINER...] | Show everything about containers
image inspect | inspect.inspect_image | [OPTIONS] IMAGE [IMAGE...] | Show everything about images
image prune | images.prune | [OPTIONS] | Remove unused images
volume create | volumes.create | [OPTIONS] [VOLUME] | Create a volume
volume inspect | inspect.inspect_volume | [OPTIONS] VOLUME [VOLUME...] | Show everything about volumes
volume ls | volumes.ls | [OPTIONS] | List volumes
volume prune | volumes.prune | [OPTIONS] | Remove unused volumes
volume rm | volumes.rm | [OPTIONS] VOLUME [VOLUME...] | Remove volumes
network connect | networks.connect | [OPTIONS] NETWORK CONTAINER | Connect a container to a network
network create | networks.create | [OPTIONS] NETWORK | Create a network
network disconnect | networks.disconnect | [OPTIONS] NETWORK CONTAINER | Disconnect a container from a network
network inspect | inspect.inspect_network | [OPTIONS] NETWORK [NETWORK...] | Show everything about networks
network ls | networks.ls | [OPTIONS] | List networks
network prune | networks.prune | [OPTIONS] | Remove unused networks
network rm | networks.rm | [OPTIONS] NETWORK [NETWORK...] | Remove networks
system df | system.df | [OPTIONS] | Show disk usage
system prune | system.prune | [OPTIONS] | Remove unused data
builder prune | builder.prune | [OPTIONS] | Remove build cache
builder mounts | builder.mounts | [OPTIONS] | List cache mounts of builds
builder export | builder.export | [OPTIONS] MOUNT | Write a cache mount to a tar
builder import | builder.import_ | MOUNT [FILE] | Fill a cache mount from a tar
context create | contexts.create | [OPTIONS] CONTEXT | Give an engine a name
context inspect | contexts.inspect | [OPTIONS] [CONTEXT...] | Show everything about contexts
context ls | contexts.ls | [OPTIONS] | List contexts
context rm | contexts.rm | [OPTIONS] CONTEXT [CONTEXT...] | Remove contexts
context show | contexts.show_ | [OPTIONS] | Print the context in use
context use | contexts.use | CONTEXT | Use another context from now on
chaos | chaos.chaos | [OPTIONS] VERB CONTAINER [CONTAINER...] | Inject a failure, check, take it back, tell the times
completion | complete.completion | bash|zsh|fish | Print a completion script
engine | daemon.engine | [OPTIONS] | Run the container engine
dryrun | daemon.dryrun | [OPTIONS] | Serve the whole API on simulated containers, without root
"""

_ALIASES = {
    "container": "attach commit cp create diff exec export kill logs pause port rename restart rm run start stats stop"
    " top unpause update wait",
    "image": "build history load pull push save tag",
    "system": "events info",
    "builder": "build",
}
SAME = {
    "container ls": "ps", "container list": "ps", "container ps": "ps", "container remove": "rm", "image ls": "images",
    "image list": "images", "image rm": "rmi", "image remove": "rmi", "image import": "import",
    "volume list": "volume ls", "volume remove": "volume rm", "network list": "network ls",
    "network remove": "network rm", "context list": "context ls", "context remove": "context rm", "daemon": "engine",
} | {f"{group} {word}": word for group, words in _ALIASES.items() for word in words.split()}  # fmt: skip

FORWARDED = {
    "registry": ("dockyard.web.main", "Serve and administer an image registry"),
    "doctor": ("dockyard.doctor.main", "Say what is broken, why, and how to mend it"),
    "trace": ("dockyard.doctor.main", "Follow a packet from here to a container"),
    "audit": ("dockyard.doctor.main", "Check the privileges of containers"),
    "explain": ("dockyard.doctor.main", "Explain an error code or a finding"),
    "compose": ("dockyard.cli.compose.main", "Run applications of several containers"),
    "dash": ("dockyard.cli.dash", "Show a project live: services, circuits, traffic, findings; also as a web page"),
    "pipeline": ("dockyard.cli.pipeline", "Run a project from compile to deploy, as its pipeline.yaml says"),
    "unit": ("dockyard.cli.unit", "Run a project's tests in the containers of its Dockunit.json"),
    "image bootstrap": ("dockyard.storage.bootstrap_main", "Make a base image without any registry"),
}
GROUPS = ("container", "image", "volume", "network", "system", "builder", "context")


def _rows() -> dict[str, Command]:
    found = {}
    for line in _TABLE.strip().splitlines():
        words, place, usage, told = (part.strip() for part in line.split(" | "))
        module, function = place.split(".")
        found[words] = Command(words, module, function, usage, told)
    return found


COMMANDS = _rows()


def find(words: list[str]) -> tuple[Command | None, str, list[str]]:
    """(command, its words as typed, the rest). The command is None when there is none such."""
    for count in (2, 1):
        typed = " ".join(words[:count])
        command = COMMANDS.get(SAME.get(typed, typed))
        if command is not None and len(words) >= count:
            return command, typed, words[count:]
    return None, words[0], words[1:]
