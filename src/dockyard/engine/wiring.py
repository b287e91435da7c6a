"""Wiring: opens the rooms below and joins them into an engine. The only place that knows them all."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from dockyard.build.doors.buildkit.door import BuildKitDoor
from dockyard.build.doors.buildkit.ports import HostFacts
from dockyard.build.plan import host_platform
from dockyard.build.records import Records
from dockyard.build.service import Builder, BuilderSettings
from dockyard.engine import recovery
from dockyard.engine.adapters import build_run
from dockyard.engine.adapters.build import BuildImages, BuildLayers
from dockyard.engine.adapters.build_cache import BuildRegistries
from dockyard.engine.adapters.build_shelf import BuildShelf
from dockyard.engine.adapters.network import NetworkAdapter, Networks
from dockyard.engine.adapters.rootfs import RootfsAdapter
from dockyard.engine.adapters.runtime import RuntimeAdapter
from dockyard.engine.adapters.volumes import VolumeAdapter, Volumes
from dockyard.engine.builds import Builds
from dockyard.engine.container import Container
from dockyard.engine.containers import Containers
from dockyard.engine.engine import Engine
from dockyard.engine.execs import Execs
from dockyard.engine.images import Images
from dockyard.engine.kit import Kit
from dockyard.engine.lock import RootLock
from dockyard.engine.plan.report import limits
from dockyard.engine.plan.report import warnings as settings_warnings
from dockyard.engine.remap import reachable
from dockyard.engine.reserve import START_SIZE, Reserve
from dockyard.engine.settings import Defaults
from dockyard.engine.store import Store
from dockyard.engine.system import MIN_API_VERSION, HostReport, System
from dockyard.engine.usernamespace import opened
from dockyard.errors import NotFound
from dockyard.kernel import binfmt
from dockyard.model import new_id
from dockyard.model.idmap import UNCHANGED, IdMaps
from dockyard.network import Controller, NetworkSettings
from dockyard.oci import Digest
from dockyard.runtime import Runtime, probe
from dockyard.storage import Store as Storage
from dockyard.transfer import Settings as TransferSettings
from dockyard.transfer import Transfer
from dockyard.transfer.adapter import StorageImages

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DOCKERS_NAMES = ("runc", "io.containerd.runc.v2")
"""What clients write when they mean the usual runtime."""
EXIT_HELPER = """#!/bin/sh
# Run by conmon after a container has ended. While a daemon serves, it settles the end itself; flock tells.
exec 9<"{root}/daemon.lock" && flock -n -s 9 || exit 0
exec 9<&-
exec {python} -m dockyard.engine.orphan "{settings}" "$1"
"""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    root: Path
    run_dir: Path
    defaults: Defaults = field(default_factory=Defaults)
    cgroup_parent: str = "/dockyard"
    labels: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    tls: bool = False
    """Where the API is served, and whether tcp addresses speak TLS: for the warnings of ``info``."""
    authorization_plugins: tuple[str, ...] = ()
    min_api_version: str = MIN_API_VERSION
    snapshotter: str = "auto"
    ids: IdMaps = UNCHANGED
    """``userns-remap``: what the ids of containers are here; ``root`` is a data root of its own then."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    build: BuilderSettings = field(default_factory=BuilderSettings)


def save_settings(settings: EngineSettings) -> None:
    """For the exit helper, which is started by conmon and knows nothing but this file."""
    (settings.run_dir / "settings.json").write_bytes(msgspec.json.encode(settings, enc_hook=str))


def load_settings(path: Path) -> EngineSettings:
    return msgspec.json.decode(path.read_bytes(), type=EngineSettings, dec_hook=lambda kind, value: kind(value))


async def open_engine(settings: EngineSettings, *, daemon: bool = True) -> Engine:
    """Everything opened, recovered and watched. Raises Conflict when the data root is in use.

    ``daemon=False`` (the exit helper) opens the same without recovering: it looks after one container only.
    """
    settings.root.mkdir(mode=0o710, parents=True, exist_ok=True)
    if settings.ids:
        reachable(settings.root, settings.ids)
    settings.run_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    lock = RootLock(settings.root)
    await lock.acquire(daemon=daemon)
    starting = Reserve(settings.root / "reserve.start", START_SIZE)
    if daemon:
        starting.spend_if_full()
    namespace = opened(settings.run_dir, settings.ids)
    kept = Reserve(settings.root / "reserve")

    def spare() -> bool:
        return kept.spend() or starting.spend()

    records = Records(settings.root / "build" / "cache.db", spare)
    storage = await Storage.open(
        settings.root / "storage", snapshotter=settings.snapshotter, holders=[lambda: map(Digest, records.layers())],
        ids=settings.ids, spare=spare,
    )  # fmt: skip
    facts = await probe(settings.defaults.runtime)
    if settings.defaults.init_path:
        facts = dataclasses.replace(facts, init_path=settings.defaults.init_path)
    names = frozenset({facts.runtime.name, *DOCKERS_NAMES, *(each.name for each in facts.runtimes if each.works)})
    defaults = dataclasses.replace(settings.defaults, runtime=facts.runtime.name, runtimes=names)
    runtime = Runtime(facts, str(settings.run_dir / "runtime"))
    adapter = RuntimeAdapter(
        runtime,
        ulimits=settings.defaults.ulimits,
        cgroup_parent=settings.cgroup_parent,
        init=settings.defaults.init,
        log_options=settings.defaults.log_options,
        security_opt=settings.defaults.security_opt,
        namespace=namespace,
    )
    controller = await Controller.open(
        settings.root / "network", settings.run_dir, settings.network, userns=namespace.path, spare=spare
    )
    transfer = Transfer(settings.transfer, StorageImages(storage), settings.root)
    store = Store(settings.root / "engine.db")
    known: dict[str, Container] = {}
    network = NetworkAdapter(controller, known, namespace)
    kit = Kit(
        root=settings.root, store=store, rootfs=RootfsAdapter(storage), volumes=VolumeAdapter(storage), network=network,
        runtime=adapter, boot_id=BOOT_ID.read_text().strip(), exit_command=_exit_helper(settings), containers=known,
        namespace=namespace,
    )  # fmt: skip
    containers = Containers(kit, defaults)
    images, volumes = Images(storage, transfer, kit, containers.find), Volumes(storage, kit)
    engine_id = _engine_id(store)
    network.listen(kit.events, (engine_id, os.uname().nodename))
    report = _report(settings, storage, runtime, engine_id)
    layers = BuildLayers(storage)
    runs = settings.root / "build" / "run"
    executor = build_run.BuildExecutor(facts, settings.run_dir / "build", runs, settings.cgroup_parent, namespace)
    places = build_run.BuildNetworks(controller, runs, containers.find, namespace)
    bases = BuildImages(storage, transfer, kit.events.emit)
    builder = Builder(
        settings.root / "build", bases, layers, executor, places, records, settings.build, registries=BuildRegistries(transfer)
    )
    shelf = BuildShelf(storage, transfer, bases)
    hostname, here = platform.node(), host_platform(platform.machine())
    facts_of_host = HostFacts(engine_id, hostname, here, lambda: _host_gateway(controller), binfmt.emulated)
    door = BuildKitDoor(
        builder, shelf, facts_of_host, spool_directory=builder.spool, socket_directory=settings.run_dir / "ssh"
    )
    builds = Builds(builder, kit.events, door)
    usage = {
        "image": images.usage, "container": containers.usage, "volume": volumes.usage, "build-cache": builds.usage,
    }  # fmt: skip
    engine = Engine(
        kit=kit,
        containers=containers,
        execs=Execs(kit, containers),
        images=images,
        builds=builds,
        volumes=volumes,
        networks=Networks(controller, network, kit, containers.find),
        system=System(kit, report, lambda: len(storage.images.ids()), usage, transfer.login),
        closers=[builds.close, _closer(transfer.close), controller.close, runtime.close, storage.close, _closer(lock.release)],
    )
    if daemon:
        save_settings(settings)
        kit.reserve.hold()
        await recovery.recover(kit)
        await build_run.sweep(executor, places, runs)
        starting.hold()
    else:
        recovery.load(kit)
    return engine


def _closer(close: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def closed() -> None:
        close()

    return closed


def _host_gateway(controller: Controller) -> str:
    """What ``--add-host NAME:host-gateway`` stands for: this host, seen from the default bridge."""
    try:
        subnet = controller.network("bridge").subnet("ip")
    except NotFound:
        return ""
    return subnet.gateway if subnet is not None else ""


def _engine_id(store: Store) -> str:
    known = store.meta("engine-id")
    if not known:
        known = new_id()
        store.set_meta("engine-id", known)
    return known


def _exit_helper(settings: EngineSettings) -> tuple[str, ...]:
    script = settings.run_dir / "exit-helper"
    text = EXIT_HELPER.format(root=settings.root, python=sys.executable, settings=settings.run_dir / "settings.json")
    if not script.exists() or script.read_text() != text:
        script.write_text(text)
        os.chmod(script, 0o700)
    return ("/bin/sh", str(script))


def _report(settings: EngineSettings, storage: Storage, runtime: Runtime, engine_id: str) -> HostReport:
    facts = runtime.facts
    warnings = [
        f"OCI runtime {item.name} does not work here: {item.reason}" for item in facts.runtimes if not item.works
    ]
    if not facts.can_raise_limits:
        warnings.append("This host cannot raise limits (no CAP_SYS_RESOURCE): ulimits are clamped to the daemon's own")
    able = limits(facts.cgroup)
    warnings += settings_warnings(able, hosts=settings.hosts, tls=settings.tls, ip_forward=settings.network.ip_forward)
    return HostReport(
        engine_id=engine_id,
        storage={"Driver": "overlay2", "DriverStatus": [list(row) for row in storage.driver_status()]},
        runtime={
            **able,
            "Runtimes": {item.name: {"path": item.path} for item in facts.runtimes if item.works},
            "DefaultRuntime": facts.runtime.name,
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if str(facts.cgroup.layout) == "v2" else "1",
            "SecurityOptions": (["name=seccomp,profile=builtin"] if facts.seccomp else [])
            + (["name=apparmor"] if facts.apparmor else [])
            + (["name=userns"] if settings.ids else [])
            + ["name=cgroupns"],
            "InitBinary": facts.init_path or "",
        },
        labels=settings.labels,
        authorization=settings.authorization_plugins,
        min_api_version=settings.min_api_version,
        warnings=warnings,
        components=[
            {"Name": facts.runtime.name, "Version": facts.runtime.version, "Details": {}},
            {"Name": "conmon", "Version": facts.conmon_version, "Details": {}},
            {"Name": "linux", "Version": platform.release(), "Details": {}},
        ],
    )
