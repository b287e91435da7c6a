"""Disks, logs, volumes and mounts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from dockyard.doctor.finding import Confidence, Evidence, Finding, Fix, Object, Severity
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import Container, View

FULL_LEAST = 16 << 20  # bytes below which writes of an engine fail in practice
TIGHT_SHARE = 0.03
BIG_LOG = 1 << 30
MANY_VOLUMES = 20
BIG_CACHE = 10 << 30


def full(view: View) -> Iterator[Finding]:
    info = view.facts.engine.info
    root = str(info.get("DockerRootDir", ""))
    disk = next((disk for disk in view.facts.host.disks if disk.path == root), None)
    if disk is None or not disk.total:
        return
    where = Object("host", root)
    if disk.available < FULL_LEAST or disk.available / disk.total < TIGHT_SHARE:
        gone = disk.available < FULL_LEAST
        yield finding(
            "STO-01",
            "the disk of the engine is full" if gone else "the disk of the engine is nearly full",
            where,
            '"no space left on device" in pulls, builds and containers' if gone else "it will be full soon",
            [
                Evidence("file", f"statvfs {root}", f"{disk.available >> 20} of {disk.total >> 20} MiB free", "room"),
                *_biggest(view),
            ],
            severity=Severity.FAULT if gone else Severity.RISK,
            ruled_out={"STO-02": f"{disk.inodes_free} inodes are free"} if disk.inodes_free else {},
            fix=Fix(
                "free space, the cheapest class first",
                ["docker builder prune", "docker image prune", "docker container prune"],
                risk="each asks first and lists what it removes",
            ),
            verify=f"df -h {root}",
        )
    elif disk.inodes and disk.inodes_free / disk.inodes < 0.005:
        yield finding(
            "STO-02",
            "the disk of the engine has no free inodes",
            where,
            '"no space left on device" although df shows space',
            [Evidence("file", f"statvfs {root}", f"{disk.inodes_free} of {disk.inodes} inodes free", "room")],
            ruled_out={"STO-01": f"{disk.available >> 20} MiB are free"},
            fix=Fix("remove images with many small files", ["docker image prune -a"]),
            verify=f"df -i {root}",
        )


def _biggest(view: View) -> list[Evidence]:
    usage = view.facts.usage
    sizes = {
        "images": int(usage.get("LayersSize") or 0),
        "build cache": sum(int(item.get("Size") or 0) for item in usage.get("BuildCache") or []),
        "volumes": sum(int((item.get("UsageData") or {}).get("Size") or 0) for item in usage.get("Volumes") or []),
        "logs": sum(view.facts.log_sizes.values()),
    }
    text = ", ".join(
        f"{name} {size >> 20} MiB" for name, size in sorted(sizes.items(), key=lambda item: -item[1]) if size
    )
    return [Evidence("api", "GET /system/df", text)] if text else []


def read_only(view: View) -> Iterator[Finding]:
    root = str(view.facts.engine.info.get("DockerRootDir", ""))
    disk = next((disk for disk in view.facts.host.disks if disk.path == root), None)
    if disk is not None and "ro" in disk.options.split(","):
        line = next((line for line in reversed(view.facts.host.kernel_log) if "Remounting filesystem" in line), "")
        seen = [Evidence("file", f"mount options of {root}", disk.options, "rw")]
        yield finding(
            "STO-08",
            "the disk of the engine is read-only",
            Object("host", root),
            '"Read-only file system" in everything the engine does',
            seen + ([Evidence("log", "kernel log", line)] if line else []),
            cause=["the kernel remounted it after an error"] if line else [],
            fix=Fix("check the disk (fsck), then mount it read-write"),
            verify=f"findmnt -T {root}",
        )
    for container in view.containers:
        line = view.log_line(container, r"read-only file system")
        if line and container.host_config.get("ReadonlyRootfs") and "sysctl" not in line:
            yield finding(
                "STO-08",
                "the program writes to its root file system, which is read-only",
                container.object,
                f"{container.name} fails to write",
                [
                    Evidence("log", f"docker logs {container.name}", line),
                    Evidence("api", "HostConfig.ReadonlyRootfs", "true"),
                ],
                affects=[container.id],
                fix=Fix("give it a tmpfs or volume where it writes: --tmpfs /tmp", risk="keep --read-only"),
            )


def big_logs(view: View) -> Iterator[Finding]:
    for container in view.containers:
        size = view.facts.log_sizes.get(container.id, 0)
        config = container.host_config.get("LogConfig") or {}
        if size < BIG_LOG or (config.get("Config") or {}).get("max-size"):
            continue
        yield finding(
            "STO-03",
            "a log grows without limit",
            container.object,
            f"the log of {container.name} takes {size >> 20} MiB",
            [
                Evidence("file", str(container.document.get("LogPath", "log")), f"{size} bytes", f"below {BIG_LOG}"),
                Evidence("api", "HostConfig.LogConfig", f"{config.get('Type')}, no max-size", "max-size"),
            ],
            severity=Severity.RISK,
            affects=[container.id],
            fix=Fix("set log-opts max-size and max-file in daemon.json (for new containers) and create this one again"),
            verify=f"du -h {container.document.get('LogPath', '')}",
        )


def loose_volumes(view: View) -> Iterator[Finding]:
    used = {str(mount.get("Name")) for container in view.containers for mount in container.mounts}
    loose = [v for v in view.facts.volumes if str(v.get("Name")) not in used and _anonymous(v)]
    if len(loose) >= MANY_VOLUMES:
        yield finding(
            "STO-05",
            "anonymous volumes are left behind",
            Object("engine", "volumes"),
            f"{len(loose)} volumes that no container uses take space",
            [Evidence("api", "GET /volumes", f"{len(loose)} unused anonymous volumes", "few")],
            severity=Severity.RISK,
            fix=Fix(
                "look at the list, then prune",
                ["docker volume ls -f dangling=true", "docker volume prune"],
                risk="what is in them is lost",
            ),
        )


def _anonymous(volume: dict[str, Any]) -> bool:
    name = str(volume.get("Name", ""))
    return len(name) == 64 and all(letter in "0123456789abcdef" for letter in name)


def build_cache(view: View) -> Iterator[Finding]:
    size = sum(int(item.get("Size") or 0) for item in view.facts.usage.get("BuildCache") or [] if not item.get("InUse"))
    if size >= BIG_CACHE:
        yield finding(
            "STO-06",
            "the build cache is big",
            Object("engine", "build cache"),
            f"{size >> 30} GiB of build cache are not in use",
            [Evidence("api", "GET /system/df BuildCache", f"{size} bytes", f"below {BIG_CACHE}")],
            severity=Severity.RISK,
            fix=Fix("prune it, and set builder.gc in daemon.json", ["docker builder prune"]),
        )


def hidden_content(view: View) -> Iterator[Finding]:
    for container in view.containers:
        troubled = not container.running and bool(container.exit_code)
        for mount in container.mounts:
            target, source = str(mount.get("Destination", "")), str(mount.get("Source", ""))
            inside = view.facts.files.get(f"image:{container.id}:{target}")
            fact = view.facts.files.get(f"host:{source}")
            if mount.get("Type") != "bind" or inside is None or fact is None or fact.error:
                continue
            if inside.kind != "dir" or fact.kind != "dir" or fact.entries != 0 or inside.entries < 1:
                continue
            yield finding(
                "STO-14",
                "an empty directory hides what the image has",
                container.object,
                f"{target} is empty in {container.name}, in its image it is not",
                [
                    Evidence("file", source, "empty", "the files"),
                    Evidence("file", f"{target} in the image", f"{inside.entries} entries"),
                ],
                severity=Severity.FAULT if troubled else Severity.RISK,
                confidence=Confidence.PROVED if troubled else Confidence.LIKELY,
                cause=["a bind mount lies over the image's directory and never copies; a new named volume does"],
                affects=[container.id],
                fix=Fix(f"use a named volume for {target}, fill {source}, or mount a deeper directory"),
            )


def mount_failed(view: View) -> Iterator[Finding]:
    for container in view.containers:
        error = container.error
        if "failed to mount local volume" in error:
            name = next((str(m.get("Name")) for m in container.mounts if str(m.get("Name") or "-") in error), "")
            options = next((v.get("Options") for v in view.facts.volumes if v.get("Name") == name), None)
            seen = [Evidence("api", "State.Error", error[:250]), Evidence("api", f"options of {name}", str(options))]
            fix = "correct device, type and o of the volume (docker volume inspect), or bring the server back"
            yield _mount(container, "STO-15", "a volume cannot be mounted", seen, fix)
        elif "bind source path does not exist" in error or "invalid mount config" in error:
            seen = [Evidence("api", "State.Error", error[:250])]
            fix = "create it on the engine's host, or correct the path"
            yield _mount(container, "STO-13", "the source of a bind does not exist", seen, fix)
        elif gone := _source_gone(view, container):
            seen = [Evidence("file", gone, "absent on the host", "the directory or file")]
            fix = "create it on the engine's host, or correct the path"
            found = _mount(container, "STO-13", "the source of a bind does not exist", seen, fix)
            yield replace(found, severity=Severity.RISK, symptom=f"{container.name} cannot be started again")


def _source_gone(view: View, container: Container) -> str:
    """A source that --mount asked for (-v would make it) and that is not there for the next start."""
    if container.running:
        return ""
    sources = [str(item.get("Source")) for item in container.host_config.get("Mounts") or [] if item.get("Type") == "bind"]
    facts = ((source, view.facts.files.get(f"host:{source}")) for source in sources)
    return next((source for source, fact in facts if fact is not None and fact.error == "ENOENT"), "")


def _mount(container: Container, rule: str, title: str, evidence: list[Evidence], fix: str) -> Finding:
    return finding(rule, title, container.object, f"{container.name} does not start", evidence,
                   affects=[container.id], fix=Fix(fix), verify=f"docker start {container.name}")  # fmt: skip


_ENOSPC = (r"no space left on device",)
RULES = (
    Rule(
        "STO-01",
        "the disk of the engine is full",
        "ENOSPC comes from blocks, inodes, quota, or inotify watches.",
        full,
        ("host",),
        causes=("CTR-16", "CMP-10", "IMG-10", "CTR-17"),
        lookalikes=("STO-02",),
        messages=_ENOSPC,
        decides="statvfs of the data root: blocks or inodes",
    ),
    Rule(
        "STO-02",
        "the disk of the engine has no free inodes",
        "Many small files use inodes before blocks.",
        lookalikes=("STO-01",),
        messages=_ENOSPC,
        decides="df -i",
    ),
    Rule(
        "STO-03",
        "a log grows without limit",
        "json-file keeps everything unless max-size is set.",
        big_logs,
        ("containers",),
        severity=Severity.RISK,
        causes=("STO-01",),
        messages=_ENOSPC,
        decides="the size of LogPath",
    ),
    Rule(
        "STO-05",
        "anonymous volumes are left behind",
        "docker rm without -v leaves them.",
        loose_volumes,
        ("volumes", "containers"),
        severity=Severity.RISK,
        messages=_ENOSPC,
        decides="docker volume ls -f dangling=true",
    ),
    Rule(
        "STO-06",
        "the build cache is big",
        "It grows until a limit is set.",
        build_cache,
        (),
        severity=Severity.RISK,
        messages=_ENOSPC,
        decides="docker system df",
    ),
    Rule(
        "STO-08",
        "a file system is read-only",
        "After an error, by --read-only, or by a :ro mount.",
        read_only,
        ("host", "containers", "logs"),
        causes=("CTR-16", "CMP-10"),
        messages=(r"read-only file system",),
        decides="mount options, ReadonlyRootfs",
    ),
    Rule(
        "STO-13",
        "the source of a bind does not exist",
        "--mount refuses, -v makes an empty directory.",
        mount_failed,
        ("containers", "files"),
        messages=(r"bind source path does not exist",),
        decides="stat on the engine's host",
    ),
    Rule(
        "STO-14",
        "an empty directory hides what the image has",
        "A mount covers what lies below it.",
        hidden_content,
        ("containers", "files"),
        severity=Severity.RISK,
        causes=("CTR-16", "CTR-03", "CTR-17"),
        messages=(r"cannot find module", r"no such file or directory"),
        decides="both directories compared",
    ),
    Rule(
        "STO-15",
        "a volume cannot be mounted",
        "The local driver calls mount(2) with the volume's options.",
        messages=(r"failed to mount local volume",),
        decides="the errno and the options",
    ),
)
