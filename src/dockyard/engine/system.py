"""``docker info``, ``docker version``, ``docker system df`` and the event stream."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dockyard
from dockyard.engine.kit import Kit
from dockyard.engine.plan.select import Filters
from dockyard.errors import Code, NotImplementedYet
from dockyard.lib import clock

Json = dict[str, Any]
API_VERSION = "1.51"
MIN_API_VERSION = "1.24"
COMPAT_VERSION = "28.5.2"
"""Clients compare ``Version`` with Docker's release numbers (Ansible, Compose), so the engine shows the release whose
API it serves; its own version stands in Components and in ServerVersion's build data."""

Part = Callable[[], Awaitable[Json]]
Login = Callable[[Json], Awaitable[Any]]
NO_REGISTRY = Code("DY-ENG-060", NotImplementedYet, "this engine reaches no registry")


@dataclass(frozen=True, slots=True)
class HostReport:
    """What was probed at start, in Docker's ``info`` words."""

    engine_id: str
    storage: Json = field(default_factory=dict)
    """Driver, DriverStatus."""
    runtime: Json = field(default_factory=dict)
    """Runtimes, DefaultRuntime, RuncCommit, CgroupDriver, CgroupVersion, SecurityOptions and the limits supported."""
    network: Json = field(default_factory=dict)
    """BridgeNfIptables, DefaultAddressPools, Plugins.Network, Firewall…"""
    labels: Sequence[str] = ()
    min_api_version: str = MIN_API_VERSION
    authorization: Sequence[str] = ()
    """Names of authorization plugins."""
    registry: Json = field(default_factory=dict)
    warnings: Sequence[str] = ()
    components: Sequence[Json] = ()


class System:
    def __init__(
        self, kit: Kit, report: HostReport, count_images: Callable[[], int], usage: Mapping[str, Part],
        login: Login | None = None,
    ) -> None:  # fmt: skip
        self._kit = kit
        self._report = report
        self._count_images = count_images
        self._usage = usage
        self._login = login

    async def info(self) -> Json:
        states = [container.record.state.status for container in self._kit.containers.values()]
        memory, report = _memory_total(), self._report
        return {
            "ID": report.engine_id,
            "Containers": len(states),
            "ContainersRunning": sum(state in {"running", "restarting"} for state in states),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": sum(state in {"created", "exited", "dead", "removing"} for state in states),
            "Images": self._count_images(),
            "IPv4Forwarding": _sysctl("net/ipv4/ip_forward") == "1",
            "Debug": False,
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": len(asyncio.all_tasks()),
            "SystemTime": clock.rfc3339(self._kit.now()),
            "LoggingDriver": "json-file",
            "NEventsListener": self._kit.events.statistics()["listeners"],
            "KernelVersion": platform.release(),
            "OperatingSystem": _os_release().get("PRETTY_NAME", "Linux"),
            "OSVersion": _os_release().get("VERSION_ID", ""),
            "OSType": "linux",
            "Architecture": platform.machine(),
            "IndexServerAddress": "https://index.docker.io/v1/",
            "NCPU": len(os.sched_getaffinity(0)),
            "MemTotal": memory,
            "DockerRootDir": str(self._kit.root),
            "HttpProxy": os.environ.get("HTTP_PROXY", ""),
            "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
            "NoProxy": os.environ.get("NO_PROXY", ""),
            "Name": platform.node(),
            "Labels": list(report.labels),
            "ExperimentalBuild": False,
            "ServerVersion": COMPAT_VERSION,
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "docker-init",
            "ProductLicense": "Apache-2.0",
            "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False,
                      "Error": "", "RemoteManagers": None},
            "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
                        "Authorization": list(report.authorization) or None,
                        "Log": ["json-file", "local", "none"]},
            "GenericResources": None,
            "RegistryConfig": report.registry,
            "Warnings": list(report.warnings) or None,
        } | report.storage | report.runtime | report.network  # fmt: skip

    async def version(self) -> Json:
        build = {
            "ApiVersion": API_VERSION, "MinAPIVersion": self._report.min_api_version, "Os": "linux", "Arch": _go_arch(),
            "KernelVersion": platform.release(), "GitCommit": dockyard.__version__, "GoVersion": "",
            "BuildTime": "", "Experimental": "false",
        }  # fmt: skip
        engine = {"Name": "Engine", "Version": COMPAT_VERSION, "Details": build}
        own = {"Name": "Dockyard", "Version": dockyard.__version__, "Details": {"Python": platform.python_version()}}
        top = {key: value for key, value in build.items() if key != "Experimental"}
        return {
            "Platform": {"Name": f"Dockyard {dockyard.__version__}"},
            "Version": COMPAT_VERSION,
            "Components": [engine, own, *self._report.components],
        } | top

    async def disk_usage(self, types: Sequence[str]) -> Json:
        """``types`` of container, image, volume, build-cache; empty means all (API 1.42)."""
        document: Json = {"LayersSize": 0, "Images": None, "Containers": None, "Volumes": None, "BuildCache": None}
        for name, part in self._usage.items():
            if not types or name in types:
                document |= await part()
        return document

    async def auth(self, credentials: Json) -> Json:
        if self._login is None:
            raise NO_REGISTRY()
        result = await self._login(credentials)
        return {"Status": result.status, "IdentityToken": result.identity_token}

    async def events(self, since: int, until: int, filters: Filters) -> AsyncIterator[Json]:
        return await self._kit.events.stream(since, until, filters)


def _go_arch() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _memory_total() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _sysctl(name: str) -> str:
    try:
        with open(f"/proc/sys/{name}") as file:
            return file.read().strip()
    except OSError:
        return ""


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
