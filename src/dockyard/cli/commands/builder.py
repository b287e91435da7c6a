"""``builder prune``, and cache mounts: listed, taken out as tars and put back (CI machines begin with nothing)."""

from __future__ import annotations

import json
import sys

from dockyard.cli.commands.images import write_archive
from dockyard.cli.flags import Options, Refusal
from dockyard.cli.output import Column, ago, epoch, size, table, terminal_width
from dockyard.cli.request.values import size as bytes_of
from dockyard.cli.shell import Shell, filters

FLAGS = {
    "prune": """
-a, --all                  Remove all unused cache, not just dangling records
    --filter KEY=VALUE...  Only those that match (until=24h)
-f, --force                Do not ask
    --keep-storage BYTES   Keep so much of it
""",
    "mounts": """
    --json                 Print one JSON object a mount
-q, --quiet                Print names only
""",
    "export": """
-o, --output FILE          Write to a file instead of stdout
""",
    "import_": "",
}
EXAMPLES = {
    "mounts": "dockyard builder mounts",
    "export": "dockyard builder export /root/.cache/pip -o pip.tar\n"
    "dockyard builder export npm | zstd > npm.tar.zst     # RUN --mount=type=cache,id=npm,...",
    "import_": "dockyard builder import /root/.cache/pip pip.tar\nzstd -d < npm.tar.zst | dockyard builder import npm",
}
_MOUNTS = (Column("ID", "id"), Column("MOUNT", "mount", soft=True), Column("SIZE", "size"), Column("LAST USED", "used"))
PATIENCE = 600.0
PIECE = 1 << 20


def mounts(shell: Shell, options: Options) -> int:
    usage = shell.client.request("GET", "/system/df", {"type": "build-cache"}, timeout=PATIENCE)
    rows = [row for row in usage.get("BuildCache") or [] if row["Type"] == "exec.cachemount"]
    if options.on("json"):
        for row in rows:
            shell.say(json.dumps(row))
        return 0
    shown = [
        {"id": row["ID"], "mount": row["Description"].removeprefix("cached mount "), "size": size(row["Size"]),
         "used": ago(epoch(row.get("LastUsedAt") or ""))} for row in rows
    ]  # fmt: skip
    if options.on("quiet"):
        for each in shown:
            shell.say(each["id"])
        return 0
    for line in table(shown, _MOUNTS, width=terminal_width() if shell.on_terminal else 0):
        shell.say(line)
    return 0


def export(shell: Shell, options: Options) -> int:
    return write_archive(shell, "/build/mount", options.text("output"), {"id": options.words[0]})


def import_(shell: Shell, options: Options) -> int:
    name, file = options.words[0], options.words[1] if len(options.words) > 1 else "-"
    try:
        source = sys.stdin.buffer if file == "-" else open(file, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise Refusal(f"cannot read {file}: {error.strerror}") from None
    with source:
        pieces = iter(lambda: source.read(PIECE), b"")
        headers = {"Content-Type": "application/x-tar"}
        shell.client.request("PUT", "/build/mount", {"id": name}, pieces, headers=headers, timeout=PATIENCE)
    return 0


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
