"""The engine daemon: settings to rooms, listeners, and an orderly end. ``kill -9`` is as good an end as any other."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import grp
import logging
import os
import re
import resource
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from dockyard.api.authz import Authorizer
from dockyard.api.ports import Engine as ApiEngine
from dockyard.api.server import listen, make_server, remove_sockets
from dockyard.api.settings import BAD_SETTING, Settings, api_version, notes
from dockyard.build.service import BuilderSettings
from dockyard.engine import remap
from dockyard.engine.settings import Defaults
from dockyard.engine.system import COMPAT_VERSION
from dockyard.engine.wiring import EngineSettings, open_engine
from dockyard.errors import Code, Forbidden, InvalidParameter, System
from dockyard.kernel.syscalls import libc
from dockyard.model import Ulimit
from dockyard.network import NetworkSettings
from dockyard.runtime.seccomp import load_profile
from dockyard.transfer import Proxies
from dockyard.transfer import Settings as TransferSettings

NEEDS_ROOT = Code(
    "DY-API-032", Forbidden, "cannot run containers: the engine needs root",
    hint="sudo dockyard engine; without root: dockyard dryrun",
)  # fmt: skip
CANNOT_START = Code(
    "DY-API-033", System, "cannot start the engine in {root}: {cause}",
    hint="look at that place (df -h, ls -ld), or give another --data-root; dockyard --debug engine tells the whole",
)  # fmt: skip
CLOSE_SECONDS = 5.0
M_ARENA_MAX = -8  # malloc.h
_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

_log = logging.getLogger("dockyard.daemon")


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT. Errors of set-up are raised as DockyardError."""
    import uvloop

    configure_logging(settings)
    if os.geteuid() != 0:
        raise NEEDS_ROOT()
    for note in notes(settings):
        _log.warning(note)
    nofile = raise_descriptor_limit()
    limit_malloc()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, nofile))
    return 0


def limit_malloc() -> None:
    """glibc keeps an arena for each of eight threads a core, and what a layer's tree or a window of bytes took in one
    stays there: 30 MB more after each image moved. With one, memory stays flat; the interpreter's lock waits more anyway.
    """
    with contextlib.suppress(AttributeError):  # musl has no mallopt, and no arenas
        libc.mallopt(M_ARENA_MAX, 1)


def raise_descriptor_limit() -> Ulimit:
    """To the hard limit: a container with names and a port takes four descriptors of ours, and the usual soft limit
    ends at 250 of them. (dockerd's unit sets LimitNOFILE for the same.) Returns what it was: containers get that."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return Ulimit(name="nofile", soft=soft, hard=most)


async def _serve(settings: Settings, nofile: Ulimit) -> None:
    wanted = remapped(engine_settings(settings), settings.userns_remap)
    ulimits = {"nofile": nofile, **wanted.defaults.ulimits}
    wanted = dataclasses.replace(wanted, defaults=dataclasses.replace(wanted.defaults, ulimits=ulimits))
    try:
        engine = await open_engine(wanted)
    except OSError as error:
        raise CANNOT_START(root=settings.data_root, cause=str(error)) from error
    await serve_until_signal(engine, settings, engine.close)
    _log.info("engine ended; containers go on")


async def serve_until_signal(engine: ApiEngine, settings: Settings, close: Callable[[], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    authorizer = Authorizer(settings.authorization_plugins) if settings.authorization_plugins else None
    server = make_server(
        engine, server_name=f"Docker/{COMPAT_VERSION} (linux)", builder_version="2", authorizer=authorizer,
        oldest=api_version(settings.min_api_version), experimental=settings.experimental,
        # gRPC without a request around it is something that no plugin would see: then only POST /grpc leads there.
        on_h2=None if authorizer else engine.builds.adopt_h2,
    )  # fmt: skip
    pidfile = Path(settings.pidfile) if settings.pidfile else None
    opened: list[str] = []
    try:
        opened = await listen(server, settings.hosts, group=group_id(settings.group), tls=tls_context(settings))
        if pidfile:
            pidfile.parent.mkdir(parents=True, exist_ok=True)
            pidfile.write_text(f"{os.getpid()}\n")
        _log.info("API listens on %s", ", ".join(opened))
        await stop.wait()
    finally:
        await server.close(CLOSE_SECONDS)
        await close()
        if pidfile and opened:  # else it is that of the engine that has our address
            pidfile.unlink(missing_ok=True)
        remove_sockets(opened)


def configure_logging(settings: Settings) -> None:
    level = logging.DEBUG if settings.debug else _LEVELS.get(settings.log_level, 20)
    form = "%(asctime)s level=%(levelname)s room=%(name)s msg=%(message)s"
    if settings.log_format == "json":
        form = '{"time":"%(asctime)s","level":"%(levelname)s","room":"%(name)s","msg":"%(message)s"}'
    logging.basicConfig(level=level, format=form, stream=sys.stderr, force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def engine_settings(settings: Settings) -> EngineSettings:
    return EngineSettings(
        root=Path(settings.data_root), run_dir=Path(settings.exec_root), defaults=_defaults(settings),
        cgroup_parent=settings.cgroup_parent or "/dockyard", labels=tuple(settings.labels),
        authorization_plugins=tuple(settings.authorization_plugins), min_api_version=settings.min_api_version,
        hosts=settings.hosts, tls=settings.tls_wanted,
        network=_network(settings),
        transfer=_transfer(settings), build=_builder(settings), snapshotter=_snapshotter(settings.storage_opts),
    )  # fmt: skip


def remapped(wanted: EngineSettings, wish: str) -> EngineSettings:
    """``userns-remap``: ids of containers, and a data root of their own below the daemon's. Makes dockremap if need be."""
    if not wish:
        return wanted
    found = remap.resolve(wish)
    if not found.ids:
        _log.warning("User namespaces: root cannot be remapped with itself; user namespaces are OFF")
        return wanted
    _log.info("User namespaces: ID ranges will be mapped to subuid/subgid ranges of: %s", found.user)
    return dataclasses.replace(wanted, ids=found.ids, root=remap.data_root(wanted.root, found.ids))


def _snapshotter(options: Sequence[str]) -> str:
    """``layers=erofs`` or ``layers=extract``; else what the kernel can do decides."""
    return next((option.partition("=")[2] for option in options if option.startswith("layers=")), "auto")


def _builder(settings: Settings) -> BuilderSettings:
    """``builder`` of daemon.json: gc.enabled, gc.defaultKeepStorage (or maxUsedSpace), entitlements."""
    gc, wishes = settings.builder.get("gc") or {}, settings.builder.get("entitlements") or {}
    limit = parse_size(gc.get("maxUsedSpace") or gc.get("defaultKeepStorage") or "0")
    allowed = {"network.host"} if wishes.get("network-host", True) else set()
    allowed |= {"security.insecure"} if wishes.get("security-insecure") else set()
    return BuilderSettings(max_cache=limit if gc.get("enabled", True) else -1, allowed=frozenset(allowed))


def _defaults(settings: Settings) -> Defaults:
    base = Defaults()
    options = {**base.log_options, **settings.log_opts} if settings.log_driver == "json-file" else dict(settings.log_opts)
    ulimits = {
        name: Ulimit(name=name, soft=int(row.get("Soft", 0)), hard=int(row.get("Hard", 0)))
        for name, row in settings.default_ulimits.items()
    }
    return Defaults(
        hostname=os.uname().nodename, log_driver=settings.log_driver, log_options=options,
        ipc_mode=settings.default_ipc_mode, cgroupns_mode=settings.default_cgroupns_mode,
        shm_size=parse_size(settings.default_shm_size), runtime=_runtime(settings), ulimits=ulimits,
        init=settings.init, init_path=settings.init_path, security_opt=_security(settings),
    )  # fmt: skip


def _runtime(settings: Settings) -> str:
    """Name or path of the OCI runtime to prefer; "" for the best one found."""
    row = settings.runtimes.get(settings.default_runtime, {})
    return str(row.get("path", "")) or settings.default_runtime


def _security(settings: Settings) -> tuple[str, ...]:
    """What every container gets as if it had asked (--security-opt); what it does ask for wins."""
    options = ("no-new-privileges=true",) if settings.no_new_privileges else ()
    profile = settings.seccomp_profile
    if profile in ("", "builtin"):
        return options
    if profile == "unconfined":
        return (*options, "seccomp=unconfined")
    try:
        text = Path(profile).read_text()
        load_profile(text)
    except (OSError, UnicodeDecodeError, InvalidParameter) as error:
        raise BAD_SETTING(cause=f"cannot use the seccomp profile {profile}: {error}") from None
    return (*options, f"seccomp={text}")


def parse_size(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([kmg]?)(?:i?b)?", str(text).strip().lower())
    if not match:
        raise BAD_SETTING(cause=f"invalid size: '{text}'")
    return int(match[1]) * _UNITS[match[2]]


def _network(settings: Settings) -> NetworkSettings:
    pools = tuple((str(pool["Base"]), int(pool["Size"])) for pool in settings.default_address_pools)
    options = {
        driver: {str(key): str(value) for key, value in rows.items()}
        for driver, rows in settings.default_network_opts.items()
        if isinstance(rows, dict)
    }
    return NetworkSettings(
        bridge=settings.bridge, bip=settings.bip, bip6=settings.bip6, fixed_cidr=settings.fixed_cidr,
        fixed_cidr_v6=settings.fixed_cidr_v6, default_gateway=settings.default_gateway,
        default_gateway_v6=settings.default_gateway_v6, mtu=settings.mtu, icc=settings.icc, ipv6=settings.ipv6,
        ip_forward=settings.ip_forward, ip_forward_no_drop=settings.ip_forward_no_drop, ip_masq=settings.ip_masq,
        iptables=settings.iptables, ip6tables=settings.ip6tables, firewall_backend=settings.firewall_backend,
        userland_proxy=settings.userland_proxy, allow_direct_routing=settings.allow_direct_routing,
        bridge_accept_fwmark=settings.bridge_accept_fwmark, respect_host_firewall=settings.respect_host_firewall,
        host_ip=settings.ip, host_gateway_ips=tuple(settings.host_gateway_ips), default_address_pools=pools,
        default_network_opts=options, dns=tuple(settings.dns), dns_search=tuple(settings.dns_search),
        dns_opts=tuple(settings.dns_opts),
    )  # fmt: skip


def _transfer(settings: Settings) -> TransferSettings:
    environment = Proxies.from_environment()
    return TransferSettings(
        insecure_registries=tuple(settings.insecure_registries),
        mirrors={"docker.io": tuple(settings.registry_mirrors)} if settings.registry_mirrors else {},
        proxies=Proxies(
            settings.http_proxy or environment.http, settings.https_proxy or environment.https,
            settings.no_proxy or environment.no_proxy,
        ),
        max_concurrent_downloads=settings.max_concurrent_downloads,
        max_concurrent_uploads=settings.max_concurrent_uploads, max_download_attempts=settings.max_download_attempts,
    )  # fmt: skip


def group_id(name: str) -> int | None:
    """The socket's group; a missing ``docker`` group means root alone, another missing one is an error."""
    if not name:
        return None
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name == "docker":
            return None
        raise BAD_SETTING(cause=f"group {name} not found") from None


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    if not settings.tls_wanted:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tlscert, settings.tlskey)
        if settings.tlsverify:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(settings.tlscacert)
    except (OSError, ssl.SSLError) as error:
        raise BAD_SETTING(cause=f"cannot read the TLS files: {error}") from None
    return context
