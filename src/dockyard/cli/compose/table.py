"""Every command of ``dockyard compose`` in one table: words, where it lives, what it does.

A row names ``module.function`` below ``cli.compose``; the function's flags stand in the module's ``FLAGS``.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    word: str
    module: str
    function: str
    usage: str
    help: str


GLOBAL = """
    --ansi WHEN             When to print ANSI control characters (never, always, auto)
    --compatibility         Run in backward compatibility mode: names with underscores
    --dry-run               Say what would be done and why, and do nothing
    --env-file FILE...      Another environment file than .env
-f, --file FILE...          Compose configuration files
    --parallel N            Most operations at once
    --profile NAME...       A profile to enable
    --progress TYPE         Type of progress output (auto, tty, plain, json, quiet)
    --project-directory DIR  Another working directory (default: that of the first file)
-p, --project-name NAME     Project name
    --verbose               Show more output
-v, --version               Show the version
-h, --help                  Show this help
"""

_TABLE = """
up | up.up | [OPTIONS] [SERVICE...] | Create and start containers
create | up.create | [OPTIONS] [SERVICE...] | Create containers for a service
scale | up.scale | [OPTIONS] SERVICE=REPLICAS... | Scale services
update | update.update | [OPTIONS] [SERVICE...] | Replace outdated containers one by one, and go back if one fails
outdated | update.outdated | [OPTIONS] [SERVICE...] | Show which containers are not as the file or the registry says
down | down.down | [OPTIONS] [SERVICES] | Stop and remove containers, networks
start | control.start | [OPTIONS] [SERVICE...] | Start services
stop | control.stop | [OPTIONS] [SERVICE...] | Stop services
restart | control.restart | [OPTIONS] [SERVICE...] | Restart service containers
kill | control.kill | [OPTIONS] [SERVICE...] | Force stop service containers
pause | control.pause | [SERVICE...] | Pause services
unpause | control.unpause | [SERVICE...] | Unpause services
rm | control.rm | [OPTIONS] [SERVICE...] | Remove stopped service containers
wait | control.wait | [OPTIONS] SERVICE [SERVICE...] | Block until containers of services stop
ps | show.ps | [OPTIONS] [SERVICE...] | List containers
ls | show.ls | [OPTIONS] | List running compose projects
images | show.images | [OPTIONS] [SERVICE...] | List images used by the created containers
top | show.top | [SERVICES...] | Display the running processes
port | show.port | [OPTIONS] SERVICE PRIVATE_PORT | Print the public port for a port binding
volumes | show.volumes | [OPTIONS] [SERVICE...] | List volumes
stats | show.stats | [OPTIONS] [SERVICE] | Show what containers use, live
version | show.version | [OPTIONS] | Show the version
logs | output.logs | [OPTIONS] [SERVICE...] | View output from containers
events | output.events | [OPTIONS] [SERVICE...] | Receive real time events from containers
attach | process.attach | [OPTIONS] SERVICE | Attach to a service's running container
exec | process.exec | [OPTIONS] SERVICE COMMAND [ARGS...] | Execute a command in a running container
run | process.run | [OPTIONS] SERVICE [COMMAND] [ARGS...] | Run a one-off command on a service
cp | copy.cp | [OPTIONS] SERVICE:SRC_PATH DEST_PATH|- | Copy files between a service container and here
pull | supply.pull | [OPTIONS] [SERVICE...] | Pull service images
push | supply.push | [OPTIONS] [SERVICE...] | Push service images
build | supply.build | [OPTIONS] [SERVICE...] | Build or rebuild services
config | config.config | [OPTIONS] [SERVICE...] | Parse, resolve and render the files in canonical format
convert | convert.convert | [OPTIONS] docker run ... | Make a Compose file of a docker run line
balance | balance.balance | [OPTIONS] | Balance, route and shard requests over the services' instances
watch | watch.watch | [OPTIONS] [SERVICE...] | Watch build context and rebuild or refresh containers
"""


def _rows() -> dict[str, Command]:
    found = {}
    for line in _TABLE.strip().splitlines():
        word, place, usage, told = (part.strip() for part in line.split(" | "))
        module, function = place.split(".")
        found[word] = Command(word, module, function, usage, told)
    return found


COMMANDS = _rows()
