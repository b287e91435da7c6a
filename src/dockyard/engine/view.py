"""Records as the Engine API shows them: the document of ``inspect`` and the row of ``ps`` (API 1.51). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dockyard.engine.model import Health, MountPoint, Record, State
from dockyard.engine.plan.status import status_text
from dockyard.lib import clock

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an inspect tells beyond the record."""

    network: Json = field(default_factory=dict)
    """Docker's NetworkSettings."""
    graph_driver: Json = field(default_factory=dict)
    exec_ids: Sequence[str] | None = None
    directory: str = ""
    driver: str = "overlay2"
    size_rw: int | None = None
    size_root: int | None = None
    image_descriptor: Json | None = None


def inspect_document(record: Record, around: Surroundings) -> Json:
    document: Json = {
        "Id": record.id,
        "Created": clock.rfc3339(record.created),
        "Path": record.path,
        "Args": list(record.args),
        "State": state_document(record.state),
        "Image": record.image_id,
        "ResolvConfPath": _file(record, around, "resolv.conf"),
        "HostnamePath": _file(record, around, "hostname"),
        "HostsPath": _file(record, around, "hosts"),
        "LogPath": "" if record.host.log_config.type == "none" else f"{around.directory}/container.log",
        "Name": f"/{record.name}",
        "RestartCount": record.restart_count,
        "Driver": around.driver,
        "Platform": record.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(around.exec_ids) if around.exec_ids else None,
        "HostConfig": record.host,
        "GraphDriver": around.graph_driver,
        "Mounts": [mount_document(point) for point in record.mounts if shown(point)],
        "Config": record.config,
        "NetworkSettings": around.network,
    }
    if around.size_rw is not None:
        document |= {"SizeRw": around.size_rw, "SizeRootFs": around.size_root}
    if around.image_descriptor is not None:
        document["ImageManifestDescriptor"] = around.image_descriptor
    return document


def _file(record: Record, around: Surroundings, name: str) -> str:
    # Docker shows these paths only once the container has been started.
    return f"{around.directory}/{name}" if record.state.started_at else ""


def state_document(state: State) -> Json:
    document: Json = {
        "Status": state.status,
        "Running": state.status in {"running", "paused", "restarting"},
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error or state.why,
        "StartedAt": clock.rfc3339(state.started_at),
        "FinishedAt": clock.rfc3339(state.finished_at),
    }
    if state.health is not None:
        document["Health"] = health_document(state.health)
    return document


def health_document(health: Health) -> Json:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": clock.rfc3339(result.start),
                "End": clock.rfc3339(result.end),
                "ExitCode": result.exit_code,
                "Output": result.output,
            }
            for result in health.log
        ],
    }


def shown(point: MountPoint) -> bool:
    """--tmpfs mounts are told in HostConfig.Tmpfs only; those of --mount also here."""
    return point.type != "tmpfs" or point.from_mounts


def mount_document(point: MountPoint) -> Json:
    document: Json = {"Type": point.type}
    if point.name:
        document["Name"] = point.name
    document |= {"Source": point.source, "Destination": point.target}
    if point.driver:
        document["Driver"] = point.driver
    return document | {"Mode": point.mode, "RW": point.rw, "Propagation": point.propagation}


def list_row(record: Record, network: Json, now: int, *, links: Sequence[str] = ()) -> Json:
    return {
        "Id": record.id,
        "Names": [f"/{record.name}", *links],
        "Image": record.config.image,
        "ImageID": record.image_id,
        "Command": command_line(record),
        "Created": record.created // 1_000_000_000,
        "Ports": port_rows(record, network.get("Ports") or {}),
        "Labels": record.config.labels or {},
        "State": record.state.status,
        "Status": status_text(record.state, now),
        "HostConfig": {"NetworkMode": record.host.network_mode or "bridge"},
        "NetworkSettings": {"Networks": network.get("Networks") or {}},
        "Mounts": [mount_document(point) for point in record.mounts if shown(point)],
    }


def command_line(record: Record) -> str:
    """Docker quotes an argument with a blank in it by single quotes, escaping those inside."""
    arguments = [
        f"'{item.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'" if " " in item else item for item in record.args
    ]
    return " ".join([record.path, *arguments])


def port_rows(record: Record, ports: Mapping[str, Sequence[Mapping[str, str]] | None]) -> list[Json]:
    rows: list[Json] = []
    if record.live:
        for spec, bindings in ports.items():
            number, _, protocol = spec.partition("/")
            if not bindings:
                rows.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
            rows += [
                {
                    "IP": binding.get("HostIp", ""),
                    "PrivatePort": int(number),
                    "PublicPort": int(binding["HostPort"]),
                    "Type": protocol or "tcp",
                }
                for binding in bindings or ()
            ]
    return rows
