"""``ps``, ``ls``, ``images``, ``top``, ``port``, ``volumes``, ``stats`` and ``version``: what is there."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import dockyard
from dockyard.cli.commands import watch
from dockyard.cli.compose.session import Session
from dockyard.cli.flags import Options, UsageError
from dockyard.cli.listing import displayable_ports
from dockyard.cli.output import Column, ago, epoch, short_id, show, size, table, terminal_width
from dockyard.client import quote
from dockyard.compose import labels
from dockyard.compose.errors import NO_PORT
from dockyard.compose.images import split
from dockyard.compose.observe import Container, or_none, read_container

Json = dict[str, Any]
_LOOK = "    --format FORMAT  table, json or a Go template\n    --json           Output as JSON\n"
_QUIET = "-q, --quiet          Only display IDs\n"
FLAGS = {
    "ps": "-a, --all            Show all stopped containers, and those of run\n"
    "    --filter KEY=VALUE  Only those of a state (status=running)\n"
    + _LOOK
    + "    --no-trunc       Don't truncate output\n    --orphans        Include services not in the file (default: true)\n"
    + _QUIET
    + "    --services       Display services\n"
    "    --status STATE...  Only those of a state (paused, restarting, removing, running, dead, created, exited)",
    "ls": "-a, --all            Show stopped projects too\n    --filter KEY=VALUE...  name=NAME\n" + _LOOK + _QUIET,
    "images": _LOOK + _QUIET,
    "top": "",
    "port": "    --index N            Index of the container\n    --protocol PROTOCOL  tcp or udp",
    "volumes": _LOOK + _QUIET,
    "stats": "-a, --all            Show all containers\n    --no-stream      Show one picture and end\n"
    "    --no-trunc       Don't truncate output\n" + _LOOK,
    "version": "-f, --format FORMAT  pretty or json\n    --short          Only the number",
}


def _found(session: Session, words: list[str], *, everything: bool = True) -> list[Container]:
    project = session.named
    names = session.chosen(project, words)
    return [
        item for item in session.state(project).containers
        if (not names or item.service in names) and (everything or item.running) and (everything or not item.oneoff)
    ]  # fmt: skip


def ps(session: Session, options: Options) -> int:
    states = set(options.all("status"))
    if options.text("filter"):
        key, _, value = options.text("filter").partition("=")
        if key != "status":
            raise UsageError(f"unknown filter {key}; it is status=STATE")
        states.add(value)
    rows = _found(session, options.words, everything=options.on("all") or bool(states))
    if not options.on("orphans", True):
        rows = [item for item in rows if item.service in session.named.services]
    rows = sorted((item for item in rows if not states or item.state in states), key=lambda item: item.name)
    if options.on("services"):
        for service in dict.fromkeys(item.service for item in rows):
            session.shell.say(service)
        return 0
    full = options.on("no-trunc") or options.text("format") == "json" or options.on("json")
    columns = [
        Column("NAME", "Name"), Column("IMAGE", "Image", soft=True), Column("COMMAND", "Command", soft=True),
        Column("SERVICE", "Service"), Column("CREATED", "RunningFor"), Column("STATUS", "Status"),
        Column("PORTS", "Ports", soft=True),
    ]  # fmt: skip
    return show(session.shell, options, [_ps_row(item, full=full) for item in rows], columns)


def _ps_row(item: Container, *, full: bool) -> Json:
    row = item.row
    command = str(row.get("Command") or "")
    health = str(row.get("Status") or "")
    return {
        "ID": item.id, "Name": item.name, "Names": item.name, "Image": row.get("Image") or "",
        "Command": f'"{command if full or len(command) <= 20 else command[:19] + "…"}"',
        "Project": item.labels.get(labels.PROJECT, ""), "Service": item.service, "State": item.state,
        "RunningFor": ago(float(row.get("Created") or 0)), "CreatedAt": row.get("Created"), "Status": row.get("Status"),
        "Health": next((word for word in ("healthy", "unhealthy", "starting") if f"{word})" in health), ""),
        "ExitCode": _exit_code(health), "Ports": displayable_ports(row.get("Ports") or []), "Publishers": [
            {"URL": port.get("IP") or "", "TargetPort": port.get("PrivatePort"), "PublishedPort": port.get("PublicPort") or 0,
             "Protocol": port.get("Type")} for port in row.get("Ports") or []
        ],
        "Labels": ",".join(f"{key}={value}" for key, value in item.labels.items()),
        "Networks": ",".join(item.networks), "Mounts": ",".join(sorted(filter(None, item.volumes))),
    }  # fmt: skip


def _exit_code(status: str) -> int:
    """``Exited (3) 5 minutes ago``."""
    inside = status.partition("Exited (")[2].partition(")")[0]
    return int(inside) if inside.lstrip("-").isdigit() else 0


def ls(session: Session, options: Options) -> int:
    rows = session.client.request(
        "GET", "/containers/json", {"all": options.on("all"), "filters": {"label": [labels.PROJECT]}}
    )
    projects: dict[str, list[Container]] = {}
    for item in map(read_container, rows or []):
        if not item.oneoff:
            projects.setdefault(item.labels[labels.PROJECT], []).append(item)
    names = [word.partition("=")[2] for word in options.all("filter")]
    told = []
    for name in sorted(projects):
        if names and not any(part in name for part in names):
            continue
        states = Counter(item.state for item in projects[name])
        files = dict.fromkeys(item.labels.get(labels.CONFIG_FILES, "") for item in projects[name])
        told.append({
            "Name": name, "Status": ", ".join(f"{state}({count})" for state, count in sorted(states.items())),
            "ConfigFiles": ",".join(filter(None, files)),
        })  # fmt: skip
    if options.text("format") == "json":
        session.shell.say(json.dumps(told))
        return 0
    columns = [Column("NAME", "Name"), Column("STATUS", "Status"), Column("CONFIG FILES", "ConfigFiles", soft=True)]
    return show(session.shell, options, told, columns, key="Name")


def images(session: Session, options: Options) -> int:
    rows: list[Json] = []
    for item in sorted(_found(session, options.words), key=lambda one: one.name):
        identifier = item.row.get("ImageID") or item.row.get("Image") or ""
        image = or_none(lambda name=identifier: session.client.request("GET", f"/images/{quote(name)}/json")) or {}  # type: ignore[misc]
        name, tag = split(item.row.get("Image") or "")
        system = "/".join(filter(None, (image.get("Os"), image.get("Architecture"), image.get("Variant"))))
        rows.append({
            "ContainerName": item.name, "Repository": name if not name.startswith("sha256:") else "<none>",
            "Tag": tag if not name.startswith("sha256:") else "<none>", "Platform": system, "ID": identifier,
            "ImageID": short_id(identifier), "Size": image.get("Size") or 0, "HumanSize": size(image.get("Size") or 0),
            "Created": image.get("Created") or "", "CreatedSince": ago(epoch(image.get("Created") or "")),
        })  # fmt: skip
    if options.text("format") == "json":
        session.shell.say(json.dumps(rows))
        return 0
    if options.on("quiet"):
        rows = [{"ID": one} for one in dict.fromkeys(str(row["ID"]).removeprefix("sha256:") for row in rows)]
    columns = [
        Column("CONTAINER", "ContainerName"), Column("REPOSITORY", "Repository", soft=True), Column("TAG", "Tag"),
        Column("PLATFORM", "Platform"), Column("IMAGE ID", "ImageID"), Column("SIZE", "HumanSize"),
        Column("CREATED", "CreatedSince"),
    ]  # fmt: skip
    return show(session.shell, options, rows, columns)


def top(session: Session, options: Options) -> int:
    titles: list[str] = ["SERVICE", "#"]
    rows: list[Json] = []
    rows_of = [item for item in _found(session, options.words, everything=False) if item.state != "restarting"]
    for item in sorted(rows_of, key=lambda one: one.name):
        told = session.client.request("GET", f"/containers/{quote(item.id)}/top")
        titles += [title for title in told.get("Titles") or [] if title not in titles]
        for process in told.get("Processes") or []:
            rows.append({"SERVICE": item.service, "#": item.number, **dict(zip(told["Titles"], process, strict=False))})
    if "CMD" in titles:
        titles = [*(title for title in titles if title != "CMD"), "CMD"]
    columns = [Column(title, title, soft=title == "CMD") for title in titles]
    width = terminal_width() if session.shell.on_terminal else 0
    for line in (
        table([{title: row.get(title, "-") for title in titles} for row in rows], columns, width=width) if rows else ()
    ):
        session.shell.say(line)
    return 0


def port(session: Session, options: Options) -> int:
    service, private = options.words[0], options.words[1]
    number, _, inside = private.partition("/")
    protocol = options.text("protocol") or inside or "tcp"
    item = session.running(service, options.number("index"))
    for row in sorted(item.row.get("Ports") or [], key=lambda one: ":" in (one.get("IP") or "")):
        if str(row.get("PrivatePort")) == number and row.get("Type") == protocol and row.get("PublicPort"):
            address = f"[{row['IP']}]" if ":" in row["IP"] else row["IP"]
            session.shell.say(f"{address}:{row['PublicPort']}")
            return 0
    raise NO_PORT(port=f"{number}/{protocol}", container=item.name)


def volumes(session: Session, options: Options) -> int:
    project = session.named
    names = session.chosen(project, options.words)
    state = session.state(project)
    used = {name for item in state.containers if item.service in names for name in item.volumes}
    rows = [
        {"Name": name, "Driver": row.get("Driver") or "", "Mountpoint": row.get("Mountpoint") or ""}
        for name, row in sorted(state.volumes.items())
        if (row.get("Labels") or {}).get(labels.PROJECT) == project.name and (not names or name in used)
    ]
    return show(session.shell, options, rows, [Column("DRIVER", "Driver"), Column("VOLUME NAME", "Name")], key="Name")


def stats(session: Session, options: Options) -> int:
    names = [item.name for item in _found(session, options.words, everything=options.on("all"))]
    if not names:
        return 0
    given = {name: options.all(name) for name in ("no-stream", "format", "json", "no-trunc") if options.given(name)}
    return watch.stats(session.shell, Options(given, names))


def version(session: Session, options: Options) -> int:
    if options.on("short"):
        session.shell.say(dockyard.__version__)
    elif options.text("format") == "json":
        session.shell.say(json.dumps({"version": dockyard.__version__}))
    else:
        session.shell.say(f"Dockyard Compose version {dockyard.__version__}")
    return 0
