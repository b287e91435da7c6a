"""Volumes."""

from __future__ import annotations

from dockyard.cli.flags import Options
from dockyard.cli.listing import volume_row
from dockyard.cli.output import FORMAT, Column, show, size
from dockyard.cli.request.values import mapping
from dockyard.cli.shell import Shell, filters
from dockyard.client import quote
from dockyard.errors import NotFound

FLAGS = {
    "create": """
-d, --driver NAME          Volume driver (default local)
    --label KEY=VALUE...   Label
-o, --opt KEY=VALUE...     Option of the driver
""",
    "ls": """
-f, --filter KEY=VALUE...  Only those that match (dangling, name, label, ...)
-q, --quiet                Names only
"""
    + FORMAT,
    "prune": """
-a, --all                  Remove all unused volumes, not just nameless ones
    --filter KEY=VALUE...  Only those that match (label=...)
-f, --force                Do not ask
""",
    "rm": "-f, --force                No error if there is none such",
}
EXAMPLES = {
    "create": "dockyard volume create data\ndockyard volume create -o type=tmpfs -o device=tmpfs -o o=size=64m scratch",
    "ls": "dockyard volume ls --filter dangling=true",
}


def create(shell: Shell, options: Options) -> int:
    wish = {
        "Name": options.words[0] if options.words else "", "Driver": options.text("driver", "local"),
        "DriverOpts": mapping(options.all("opt")), "Labels": mapping(options.all("label")),
    }  # fmt: skip
    shell.say(shell.client.request("POST", "/volumes/create", body=wish)["Name"])
    return 0


def ls(shell: Shell, options: Options) -> int:
    told = shell.client.request("GET", "/volumes", {"filters": filters(options)})
    rows = sorted((volume_row(document) for document in told.get("Volumes") or ()), key=lambda row: str(row["Name"]))
    columns = (Column("DRIVER", "Driver"), Column("VOLUME NAME", "Name", soft=True))
    return show(shell, options, rows, columns, key="Name", default=shell.config("volumesFormat"))


def rm(shell: Shell, options: Options) -> int:
    force = options.on("force")

    def one(name: str) -> str:
        try:
            shell.client.request("DELETE", f"/volumes/{quote(name)}", {"force": force or None})
        except NotFound:
            if not force:
                raise
        return name

    return shell.each(options.words, one)


def prune(shell: Shell, options: Options) -> int:
    wanted = filters(options) or {}
    if options.on("all"):
        wanted["all"] = {"true": True}
    which = "all local volumes" if options.on("all") else "anonymous local volumes"
    if not shell.confirm(f"This will remove {which} not used by at least one container.", options):
        return 0
    told = shell.client.request("POST", "/volumes/prune", {"filters": wanted or None})
    if told.get("VolumesDeleted"):
        shell.say("Deleted Volumes:")
        for name in told["VolumesDeleted"]:
            shell.say(name)
        shell.say()
    shell.say(f"Total reclaimed space: {size(told.get('SpaceReclaimed', 0))}")
    return 0
