"""The engine as a whole: ``version``, ``info``, ``system df`` and ``system prune``."""

from __future__ import annotations

import json
import platform
from typing import Any

from dockyard.cli import listing, usage
from dockyard.cli.commands.images import say_pruned_images
from dockyard.cli.commands.networks import say_pruned_networks
from dockyard.cli.flags import Options
from dockyard.cli.output import FORMAT, Column, ago, binary_size, epoch, short_id, show, size, table
from dockyard.cli.shell import Shell, filters
from dockyard.client.client import NEWEST_API
from dockyard.errors import DockyardError, NotImplementedYet

Json = dict[str, Any]
_ONE = '-f, --format TEMPLATE  Go template, or "json"\n    --json             The same as --format json\n'
FLAGS = {
    "version": _ONE,
    "info": _ONE,
    "df": FORMAT + "-v, --verbose              Each image, container, volume and cache record",
    "prune": """
-a, --all                  Remove all unused images, not just nameless ones
    --filter KEY=VALUE...  Only those that match (until=24h, label=...)
-f, --force                Do not ask
    --volumes              Remove unused nameless volumes too
""",
}
EXAMPLES = {
    "version": "dockyard version --format '{{.Server.Version}}'",
    "info": "dockyard info --format '{{json .Warnings}}'",
    "prune": "dockyard system prune -a --volumes",
}
PATIENCE = 600.0
"""Seconds for what walks all data: sizes and prunes."""
_DISK = (
    Column("TYPE", "Type"), Column("TOTAL", "TotalCount"), Column("ACTIVE", "Active"), Column("SIZE", "Size"),
    Column("RECLAIMABLE", "Reclaimable"),
)  # fmt: skip


def version(shell: Shell, options: Options) -> int:
    import dockyard

    api = ""
    server: Json | None = None
    refused: DockyardError | None = None
    try:
        server = shell.client.request("GET", "/version")
        api = shell.client.version
    except DockyardError as error:
        refused = error
    client = {
        "Version": dockyard.__version__, "ApiVersion": api or NEWEST_API, "DefaultAPIVersion": NEWEST_API,
        "Python": platform.python_version(), "Os": "linux", "Arch": _machine(),
        "Context": shell.client.endpoint.source if shell.reachable else "",
    }  # fmt: skip
    both = {"Client": client, "Server": server}
    if not _formatted(shell, options, both):
        shell.say("Client: Dockyard")
        for title, value in (
            ("Version", client["Version"]), ("API version", client["ApiVersion"]), ("Python", client["Python"]),
            ("OS/Arch", f"linux/{_machine()}"), ("Engine from", client["Context"]),
        ):  # fmt: skip
            shell.say(f" {title + ':':<18} {value}")
        if server is not None:
            _say_server(shell, server)
    if refused is not None:
        shell.refused(refused)
        return 1
    return 0


def _machine() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _say_server(shell: Shell, server: Json) -> None:
    name = (server.get("Platform") or {}).get("Name", "")
    shell.say(f"\nServer:{' ' + name if name else ''}")
    for part in server.get("Components") or [{"Name": "Engine", "Version": server.get("Version", ""), "Details": {}}]:
        details = part.get("Details") or {}
        shell.say(f" {part['Name']}:")
        shell.say(f"  {'Version:':<17} {part['Version']}")
        if "ApiVersion" in details:
            shell.say(f"  {'API version:':<17} {details['ApiVersion']} (minimum version {details.get('MinAPIVersion', '')})")
            shell.say(f"  {'OS/Arch:':<17} {details.get('Os')}/{details.get('Arch')}")
            continue
        for key, value in details.items():
            if value:
                shell.say(f"  {key + ':':<17} {value}")


def _formatted(shell: Shell, options: Options, document: Json) -> bool:
    form = "json" if options.on("json") else options.text("format")
    if form == "json":
        shell.say(json.dumps(document, separators=(",", ":"), ensure_ascii=False))
    elif form:
        from dockyard.cli.template import render

        shell.say(render(form, document, strict=True))
    return bool(form)


def info(shell: Shell, options: Options) -> int:
    import dockyard

    document = shell.client.request("GET", "/info")
    client = {"Version": dockyard.__version__, "Context": shell.client.endpoint.source, "Debug": shell.debug}
    if _formatted(shell, options, document | {"ClientInfo": client}):
        return 0
    shell.say(f"Client: Dockyard\n Version:    {client['Version']}\n Engine from: {client['Context']}\n\nServer:")
    for line in info_lines(document):
        shell.say(line)
    for warning in document.get("Warnings") or ():
        shell.complain(warning)
    return 0


def info_lines(document: Json) -> list[str]:
    """What ``info`` shows of the engine. Pure."""
    lines = [f" Containers: {document.get('Containers', 0)}"]
    lines += [f"  {key}: {document.get('Containers' + key, 0)}" for key in ("Running", "Paused", "Stopped")]
    lines += [f" Images: {document.get('Images', 0)}", f" Server Version: {document.get('ServerVersion', '')}"]
    lines.append(f" Storage Driver: {document.get('Driver', '')}")
    lines += [f"  {key}: {value}" for key, value in document.get("DriverStatus") or ()]
    pairs: list[tuple[str, Any]] = [
        ("Logging Driver", document.get("LoggingDriver")), ("Cgroup Driver", document.get("CgroupDriver")),
        ("Cgroup Version", document.get("CgroupVersion")),
    ]  # fmt: skip
    lines += [f" {title}: {value}" for title, value in pairs if value]
    lines.append(" Plugins:")
    plugins = document.get("Plugins") or {}
    lines += [f"  {kind}: {' '.join(plugins[kind])}" for kind in ("Volume", "Network", "Log") if plugins.get(kind)]
    lines.append(f" Swarm: {(document.get('Swarm') or {}).get('LocalNodeState', 'inactive')}")
    pairs = [
        ("Runtimes", " ".join(document.get("Runtimes") or ())), ("Default Runtime", document.get("DefaultRuntime")),
        ("Init Binary", document.get("InitBinary")),
    ]  # fmt: skip
    lines += [f" {title}: {value}" for title, value in pairs if value]
    if options := document.get("SecurityOptions"):
        lines.append(" Security Options:")
        lines += [f"  {option.partition('=')[2].partition(',')[0] or option}" for option in options]
    pairs = [
        ("Kernel Version", document.get("KernelVersion")), ("Operating System", document.get("OperatingSystem")),
        ("OSType", document.get("OSType")), ("Architecture", document.get("Architecture")),
        ("CPUs", document.get("NCPU")), ("Total Memory", binary_size(document.get("MemTotal", 0))),
        ("Name", document.get("Name")), ("ID", document.get("ID")), ("Docker Root Dir", document.get("DockerRootDir")),
        ("Debug Mode", str(bool(document.get("Debug"))).lower()),
    ]  # fmt: skip
    lines += [f" {title}: {value}" for title, value in pairs]
    pairs = [("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")]
    lines += [f" {title}: {document[key]}" for title, key in pairs if document.get(key)]
    if labels := document.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in labels)]
    lines.append(f" Experimental: {str(bool(document.get('ExperimentalBuild'))).lower()}")
    registries = document.get("RegistryConfig") or {}
    insecure = [name for name, row in (registries.get("IndexConfigs") or {}).items() if not row.get("Secure", True)]
    insecure += registries.get("InsecureRegistryCIDRs") or []
    if insecure:
        lines += [" Insecure Registries:", *(f"  {name}" for name in insecure)]
    if mirrors := registries.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {mirror}" for mirror in mirrors)]
    lines.append(f" Live Restore Enabled: {str(bool(document.get('LiveRestoreEnabled'))).lower()}")
    return lines


def df(shell: Shell, options: Options) -> int:
    document = shell.client.request("GET", "/system/df", timeout=PATIENCE)
    if not options.on("verbose"):
        return show(shell, options, usage.disk_rows(document), _DISK)
    if options.on("json") or options.text("format"):
        _formatted(shell, options, document)
        return 0
    for title, columns, rows in disk_details(document):
        shell.say(f"{title}\n")
        for line in table(rows, columns):
            shell.say(line)
        shell.say()
    return 0


def disk_details(document: Json) -> list[tuple[str, tuple[Column, ...], list[Json]]]:
    """The tables of ``system df -v``. Pure."""
    images = [_image_row(image) for image in document.get("Images") or ()]
    containers = [
        listing.container_row(row, whole=False) | {"Size": size(row.get("SizeRw") or 0)}
        for row in document.get("Containers") or ()
    ]
    volumes = [listing.volume_row(row) for row in document.get("Volumes") or ()]
    caches = document.get("BuildCache") or []
    cache = [_cache_row(row) for row in caches]
    cached = sum(row.get("Size", 0) for row in caches if not row.get("Shared"))
    return [
        (
            "Images space usage:",
            (
                Column("REPOSITORY", "Repository"), Column("TAG", "Tag"), Column("IMAGE ID", "ID"),
                Column("CREATED", "CreatedSince"), Column("SIZE", "Size"), Column("SHARED SIZE", "SharedSize"),
                Column("UNIQUE SIZE", "UniqueSize"), Column("CONTAINERS", "Containers"),
            ),
            images,
        ),
        (
            "Containers space usage:",
            (
                Column("CONTAINER ID", "ID"), Column("IMAGE", "Image"), Column("COMMAND", "Command"),
                Column("LOCAL VOLUMES", "LocalVolumes"), Column("SIZE", "Size"), Column("CREATED", "RunningFor"),
                Column("STATUS", "Status"), Column("NAMES", "Names"),
            ),
            containers,
        ),
        (
            "Local Volumes space usage:",
            (Column("VOLUME NAME", "Name"), Column("LINKS", "Links"), Column("SIZE", "Size")),
            volumes,
        ),
        (
            f"Build cache usage: {size(cached)}",
            (
                Column("CACHE ID", "ID"), Column("CACHE TYPE", "Type"), Column("SIZE", "Size"),
                Column("CREATED", "Created"), Column("LAST USED", "LastUsed"), Column("USAGE", "Usage"),
                Column("SHARED", "Shared"),
            ),
            cache,
        ),
    ]  # fmt: skip


def _image_row(image: Json) -> Json:
    """Under its first name, for its size counts once."""
    row = listing.image_rows(image, whole=False, digests=False)[0]
    shared = image.get("SharedSize", -1)
    if shared >= 0:
        row |= {"SharedSize": size(shared, digits=4), "UniqueSize": size(image.get("Size", 0) - shared, digits=4)}
    return row


def _cache_row(row: Json) -> Json:
    last = epoch(row.get("LastUsedAt") or "")
    return {
        "ID": short_id(row["ID"]), "Type": row.get("Type", ""), "Size": size(row.get("Size", 0)),
        "Created": ago(epoch(row.get("CreatedAt") or "")), "LastUsed": ago(last) if last else "",
        "Usage": str(row.get("UsageCount", 0)), "Shared": str(bool(row.get("Shared"))).lower(),
    }  # fmt: skip


def prune(shell: Shell, options: Options) -> int:
    """Containers, networks, volumes if asked, images, build cache: in docker's order."""
    every, volumes, wanted = options.on("all"), options.on("volumes"), filters(options)
    losses = ["all stopped containers", "all networks not used by at least one container"]
    losses += ["all anonymous volumes not used by at least one container"] if volumes else []
    losses += ["all images without at least one container associated to them" if every else "all dangling images"]
    losses += ["unused build cache"]
    warning = "This will remove:\n" + "\n".join(f"  - {loss}" for loss in losses) + "\n"
    if not shell.confirm(warning, options):
        return 0
    images = (wanted or {}) | {"dangling": {"false" if every else "true": True}}
    reclaimed = 0
    told = shell.client.request("POST", "/containers/prune", {"filters": wanted}, timeout=PATIENCE)
    reclaimed += told.get("SpaceReclaimed", 0)
    _say_list(shell, "Deleted Containers:", told.get("ContainersDeleted"))
    say_pruned_networks(shell, shell.client.request("POST", "/networks/prune", {"filters": wanted}, timeout=PATIENCE))
    if volumes:
        told = shell.client.request("POST", "/volumes/prune", {"filters": wanted}, timeout=PATIENCE)
        reclaimed += told.get("SpaceReclaimed", 0)
        _say_list(shell, "Deleted Volumes:", told.get("VolumesDeleted"))
    told = shell.client.request("POST", "/images/prune", {"filters": images}, timeout=PATIENCE)
    reclaimed += told.get("SpaceReclaimed", 0)
    say_pruned_images(shell, told)
    reclaimed += _prune_cache(shell, every, wanted)
    shell.say(f"Total reclaimed space: {size(reclaimed)}")
    return 0


def _prune_cache(shell: Shell, every: bool, wanted: Json | None) -> int:
    try:
        told = shell.client.request("POST", "/build/prune", {"all": every or None, "filters": wanted}, timeout=PATIENCE)
    except NotImplementedYet:
        return 0  # an engine without a builder has no cache
    _say_list(shell, "Deleted build cache objects:", told.get("CachesDeleted"))
    return int(told.get("SpaceReclaimed", 0))


def _say_list(shell: Shell, title: str, names: list[str] | None) -> None:
    if names:
        shell.say(title)
        for name in names:
            shell.say(name)
        shell.say()
