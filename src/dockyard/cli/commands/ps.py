"""``ps``. A module of its own: it is the command that is waited for most, so it loads nothing that it does not need."""

from __future__ import annotations

from dockyard.cli.flags import Options
from dockyard.cli.listing import container_row
from dockyard.cli.output import FORMAT, Column, show
from dockyard.cli.shell import Shell, filters

FLAGS = {
    "ps": """
-a, --all                  Show stopped containers too
-f, --filter KEY=VALUE...  Only those that match (name, status, label, ...)
-n, --last N               Show the last N created, running or not
-l, --latest               Show the last created, running or not
    --no-trunc             Cut nothing
-q, --quiet                IDs only
-s, --size                 Show sizes
"""
    + FORMAT,
}
EXAMPLES = {
    "ps": "dockyard ps -a --filter status=exited\ndockyard ps --format 'table {{.Names}}\\t{{.Status}}'",
}
_COLUMNS = (
    Column("CONTAINER ID", "ID"), Column("IMAGE", "Image", soft=True), Column("COMMAND", "Command", soft=True, spare=2),
    Column("CREATED", "RunningFor", spare=1), Column("STATUS", "Status"), Column("PORTS", "Ports", soft=True, spare=3),
    Column("NAMES", "Names", soft=True),
)  # fmt: skip
TITLES = {"RunningFor": "CREATED", "Label": "LABEL", "LocalVolumes": "LOCAL VOLUMES"}


def ps(shell: Shell, options: Options) -> int:
    last = 1 if options.on("latest") else options.number("last")
    sizes = options.on("size") or ".Size" in options.text("format")
    rows = shell.client.request(
        "GET", "/containers/json",
        {"all": options.on("all") or None, "limit": last if last > 0 else None, "size": sizes or None,
         "filters": filters(options)},
    )  # fmt: skip
    columns = _COLUMNS + ((Column("SIZE", "Size"),) if options.on("size") else ())
    shown = [container_row(row, whole=options.on("no-trunc")) for row in rows]
    return show(shell, options, shown, columns, titles=TITLES, default=shell.config("psFormat"))
