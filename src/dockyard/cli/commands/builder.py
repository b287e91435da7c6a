"""``builder prune``."""

from __future__ import annotations

from dockyard.cli.flags import Options
from dockyard.cli.output import size
from dockyard.cli.request.values import size as bytes_of
from dockyard.cli.shell import Shell, filters

FLAGS = {
    "prune": """
-a, --all                  Remove all unused cache, not just dangling records
    --filter KEY=VALUE...  Only those that match (until=24h)
-f, --force                Do not ask
    --keep-storage BYTES   Keep so much of it
""",
}
PATIENCE = 600.0


def prune(shell: Shell, options: Options) -> int:
    every = options.on("all")
    which = "all build cache" if every else "all dangling build cache"
    if not shell.confirm(f"This will remove {which}.", options):
        return 0
    keep = bytes_of(options.text("keep-storage"), "--keep-storage") if options.given("keep-storage") else None
    query = {"all": every or None, "filters": filters(options), "keep-storage": keep}
    told = shell.client.request("POST", "/build/prune", query, timeout=PATIENCE)
    if told.get("CachesDeleted"):
        shell.say("Deleted build cache objects:")
        for name in told["CachesDeleted"]:
            shell.say(name)
        shell.say()
    shell.say(f"Total reclaimed space: {size(told.get('SpaceReclaimed', 0))}")
    return 0
