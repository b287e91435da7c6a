"""Numbers of ``stats`` and ``system df``, lines of ``events``, moments of ``--since``. Pure but for the clock."""

from __future__ import annotations

import time
from typing import Any

from dockyard.cli.flags import UsageError
from dockyard.cli.output import binary_size, short_id, size
from dockyard.cli.request.values import span

Json = dict[str, Any]


def moment_of(word: str, now: float | None = None) -> str | None:
    """``--since`` as the API takes it: seconds since the epoch with nanoseconds. Takes a date (RFC 3339, parts may be
    left out; no zone means this machine's), seconds since the epoch, or a span back from now (``10m``)."""
    if not word:
        return None
    if word.replace(".", "", 1).isdigit():
        return word
    if word[0].isdigit() and word[-1] in "smh" and "-" not in word:
        past = int((time.time() if now is None else now) * 1e9) - span(word, "--since")
        return f"{past // 10**9}.{past % 10**9:09d}"
    from datetime import datetime

    head, dot, tail = word.partition(".")
    digits = tail.rstrip("Zz").split("+")[0].split("-")[0] if dot else ""
    zone = tail[len(digits) :]
    try:
        date = datetime.fromisoformat(head + zone)
    except ValueError:
        raise UsageError(f'invalid value for "--since" or "--until": failed to parse value as time or duration: "{word}"') from None
    return f"{int(date.timestamp())}.{digits[:9].ljust(9, '0')}"


def event_line(event: Json) -> str:
    """``2026-01-02T03:04:05.000000006Z container start ID (image=..., name=...)``."""
    nanoseconds = event.get("timeNano") or event.get("time", 0) * 10**9
    seconds, rest = divmod(nanoseconds, 10**9)
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    zone = time.strftime("%z", time.localtime(seconds))
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    actor = event.get("Actor") or {}
    about = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    parts = [f"{date}.{rest:09d}{zone}", event.get("Type", ""), event.get("Action", ""), actor.get("ID", "")]
    return " ".join(parts) + (f" ({about})" if about else "")


def stats_row(name: str, document: Json, *, whole: bool) -> Json:
    """A row of ``stats`` (docker/cli container/stats_helpers.go)."""
    memory = document.get("memory_stats") or {}
    used, limit = memory_used(memory), memory.get("limit", 0)
    identifier = document.get("id", name)
    received, sent = _network(document.get("networks") or {})
    read, written = _block(document.get("blkio_stats") or {})
    return {
        "Container": name if len(name) < 64 or whole else short_id(name),
        "ID": identifier if whole else short_id(identifier),
        "Name": (document.get("name") or "").removeprefix("/"),
        "CPUPerc": f"{cpu_percent(document):.2f}%",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{size(received)} / {size(sent)}",
        "BlockIO": f"{size(read)} / {size(written)}",
        "PIDs": str((document.get("pids_stats") or {}).get("current", 0)),
    }  # fmt: skip


def cpu_percent(document: Json) -> float:
    """Of one CPU: 200 means two CPUs busy."""
    now, before = document.get("cpu_stats") or {}, document.get("precpu_stats") or {}
    used = _total(now) - _total(before)
    system = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    cpus = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or ())
    return used / system * cpus * 100 if system > 0 and used > 0 else 0.0


def _total(cpu: Json) -> int:
    return int((cpu.get("cpu_usage") or {}).get("total_usage", 0))


def memory_used(memory: Json) -> int:
    """Without the page cache that can be given back (cgroup v1 total_inactive_file, v2 inactive_file)."""
    usage, details = memory.get("usage", 0), memory.get("stats") or {}
    for key in ("total_inactive_file", "inactive_file"):
        if 0 < details.get(key, 0) < usage:
            return int(usage - details[key])
    return int(usage)


def _network(networks: Json) -> tuple[int, int]:
    return sum(row.get("rx_bytes", 0) for row in networks.values()), sum(row.get("tx_bytes", 0) for row in networks.values())


def _block(stats: Json) -> tuple[int, int]:
    rows = stats.get("io_service_bytes_recursive") or ()
    read = sum(row["value"] for row in rows if row["op"].lower() == "read")
    return read, sum(row["value"] for row in rows if row["op"].lower() == "write")


def disk_rows(df: Json) -> list[Json]:
    """The four rows of ``system df``."""
    images, containers = df.get("Images") or [], df.get("Containers") or []
    volumes, cache = df.get("Volumes") or [], df.get("BuildCache") or []
    layers = df.get("LayersSize", 0)
    in_use = [image for image in images if image.get("Containers", 0) > 0]
    used_layers = sum(image["Size"] - max(image.get("SharedSize", 0), 0) for image in in_use)
    written = sum(row.get("SizeRw") or 0 for row in containers)
    stopped = sum(row.get("SizeRw") or 0 for row in containers if row.get("State") not in _ALIVE)
    sizes = [(row.get("UsageData") or {}).get("Size", 0) for row in volumes]
    volume_bytes = sum(number for number in sizes if number > 0)
    free_volumes = sum(
        number for row, number in zip(volumes, sizes, strict=True) if not _references(row) and number > 0
    )
    cached = sum(row.get("Size", 0) for row in cache if not row.get("Shared"))
    free_cache = sum(row.get("Size", 0) for row in cache if not row.get("InUse") and not row.get("Shared"))
    return [
        _disk("Images", len(images), len(in_use), layers, layers - used_layers if layers else 0),
        _disk("Containers", len(containers), sum(row.get("State") in _ALIVE for row in containers), written, stopped),
        _disk("Local Volumes", len(volumes), sum(_references(row) > 0 for row in volumes), volume_bytes, free_volumes),
        _disk("Build Cache", len(cache), sum(bool(row.get("InUse")) for row in cache), cached, free_cache, False),
    ]


_ALIVE = frozenset({"running", "paused", "restarting"})


def _references(volume: Json) -> int:
    return int((volume.get("UsageData") or {}).get("RefCount", 0))


def _disk(kind: str, total: int, active: int, used: int, free: int, share: bool = True) -> Json:
    percent = f" ({free * 100 // used}%)" if used > 0 and share else ""
    return {
        "Type": kind, "TotalCount": str(total), "Active": str(active), "Size": size(used, digits=4),
        "Reclaimable": f"{size(free, digits=4)}{percent}",
    }  # fmt: skip
