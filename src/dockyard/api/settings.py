"""What an administrator sets: dockerd's flags and the keys of ``daemon.json``, read into one frozen value. Pure.

Every setting is one field of `Settings`; its flag, its key in the file and its help follow from the field, so that
parser, file reader and the settings page cannot differ. Rules are dockerd's (daemon/config/config.go): a key unknown
is an error, a setting given both as a flag and in the file is an error, and so are contradictions.
"""

# ruff: noqa: RUF009 - `_s` makes a dataclass field, as `field` does
from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dockyard.api.routes import NEWEST, OLDEST
from dockyard.errors import Code, InvalidParameter
from dockyard.lib.notjson import NOT_JSON

BAD_FILE = Code("DY-API-040", InvalidParameter, "unable to configure the daemon with file {file}: {cause}")
BAD_SETTING = Code("DY-API-041", InvalidParameter, "{cause}", hint="dockyard engine --help lists the settings")

DEFAULT_FILE = "/etc/docker/daemon.json"
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
PLAIN_PORT, TLS_PORT = 2375, 2376


def _s(default: Any, text: str, *, flag: str = "", short: str = "", note: str = "") -> Any:
    """A setting. ``flag`` where dockerd's flag differs from the key; ``note`` where it is accepted without effect."""
    metadata = {"help": text, "flag": flag, "short": short, "note": note}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


Lines = tuple[str, ...]
Map = Mapping[str, Any]
_CONTAINERD = "Dockyard runs containers with conmon, without containerd"


@dataclass(frozen=True, slots=True)
class Settings:
    # where
    hosts: Lines = _s((DEFAULT_SOCKET,), "address to serve: unix://, tcp://, fd://", flag="host", short="H")
    data_root: str = _s("/var/lib/dockyard", "root of the persistent state")
    exec_root: str = _s("/run/dockyard", "root of the state that a reboot may lose")
    pidfile: str = _s("/run/dockyard/engine.pid", "file for the daemon's process ID", short="p")
    group: str = _s("docker", "group of the unix socket", short="G")
    # TLS
    tls: bool = _s(False, "use TLS on tcp addresses; implied by --tlsverify")
    tlsverify: bool = _s(False, "use TLS and verify the client")
    tlscacert: str = _s("", "trust only certificates signed by this CA (PEM)")
    tlscert: str = _s("", "the daemon's certificate (PEM)")
    tlskey: str = _s("", "the daemon's key (PEM)")
    # log of the daemon
    debug: bool = _s(False, "log at debug level", short="D")
    log_level: str = _s("info", f"one of {', '.join(LOG_LEVELS)}", short="l")
    log_format: str = _s("text", "text or json")
    raw_logs: bool = _s(False, "log without colour", note="the log has no colour")
    # containers
    cgroup_parent: str = _s("", "parent cgroup of all containers")
    default_cgroupns_mode: str = _s("host", "cgroup namespace: host or private")
    default_ipc_mode: str = _s("private", "IPC namespace: private or shareable")
    default_runtime: str = _s("", "OCI runtime; empty: the best one found")
    default_shm_size: str = _s("64MiB", "size of /dev/shm")
    default_ulimits: Map = _s({}, "ulimits of containers (nofile=1024:2048)", flag="default-ulimit")
    exec_opts: Lines = _s((), "runtime options (native.cgroupdriver=cgroupfs)", flag="exec-opt")
    init: bool = _s(False, "run an init in every container")
    init_path: str = _s("", "path of that init")
    log_driver: str = _s("json-file", "log driver of containers: json-file, local, none")
    log_opts: Map = _s({}, "options of the log driver (max-size=10m)", flag="log-opt")
    no_new_privileges: bool = _s(False, "set no-new-privileges for every container")
    runtimes: Map = _s({}, "another OCI runtime (name=path)", flag="add-runtime")
    seccomp_profile: str = _s("", "seccomp profile: a path, builtin or unconfined")
    selinux_enabled: bool = _s(False, "SELinux labels")
    userns_remap: str = _s("", "user whose subordinate ids containers get: default, user[:group] or uid[:gid]")
    cpu_rt_period: int = _s(0, "limit of CPU real-time period in microseconds", note="real-time scheduling is set per container only")
    cpu_rt_runtime: int = _s(0, "limit of CPU real-time runtime in microseconds", note="real-time scheduling is set per container only")
    shutdown_timeout: int = _s(15, "seconds for containers to stop at shutdown", note="containers outlive the daemon")
    live_restore: bool = _s(True, "containers outlive the daemon", note="always on")
    # images and registries
    storage_driver: str = _s("", "storage driver (overlay2)", short="s")
    storage_opts: Lines = _s((), "options of the storage driver (layers=auto, erofs or extract)", flag="storage-opt")
    registry_mirrors: Lines = _s((), "mirror of Docker Hub", flag="registry-mirror")
    insecure_registries: Lines = _s((), "registry without verified TLS (host or CIDR)", flag="insecure-registry")
    allow_nondistributable_artifacts: Lines = _s((), "registries that get foreign layers", note="pushed as any other")
    max_concurrent_downloads: int = _s(3, "layers downloaded at once per pull")
    max_concurrent_uploads: int = _s(5, "layers uploaded at once per push")
    max_download_attempts: int = _s(5, "tries of a download")
    proxies: Map = _s({}, "http-proxy, https-proxy, no-proxy of the daemon", flag="-")
    http_proxy: str = _s("", "proxy for http", flag="http-proxy")
    https_proxy: str = _s("", "proxy for https", flag="https-proxy")
    no_proxy: str = _s("", "hosts without proxy", flag="no-proxy")
    # network
    bridge: str = _s("", "bridge to attach containers to; none: no default bridge", short="b")
    bip: str = _s("", "address of the default bridge (CIDR)")
    bip6: str = _s("", "IPv6 address of the default bridge (CIDR)")
    fixed_cidr: str = _s("", "IPv4 addresses for containers on it")
    fixed_cidr_v6: str = _s("", "IPv6 addresses for containers on it")
    default_gateway: str = _s("", "IPv4 gateway of containers")
    default_gateway_v6: str = _s("", "IPv6 gateway of containers")
    default_address_pools: tuple[Map, ...] = _s(
        (), "pool for new networks (base=172.30.0.0/16,size=24)", flag="default-address-pool"
    )
    default_network_opts: Map = _s({}, "default options of networks by driver", flag="default-network-opt")
    dns: Lines = _s((), "DNS server of containers")
    dns_opts: Lines = _s((), "DNS options", flag="dns-opt")
    dns_search: Lines = _s((), "DNS search domains")
    host_gateway_ips: Lines = _s((), "what host-gateway stands for in --add-host", flag="host-gateway-ip")
    icc: bool = _s(True, "containers on the default bridge reach each other")
    ip: str = _s("0.0.0.0", "default address of published ports")
    ip_forward: bool = _s(True, "switch on net.ipv4.ip_forward")
    ip_forward_no_drop: bool = _s(False, "leave the FORWARD policy alone")
    ip_masq: bool = _s(True, "masquerade containers")
    iptables: bool = _s(True, "make firewall rules")
    ip6tables: bool = _s(True, "make IPv6 firewall rules")
    firewall_backend: str = _s("", "iptables or nftables; empty: the best one found")
    allow_direct_routing: bool = _s(False, "let other hosts reach containers by address")
    bridge_accept_fwmark: str = _s("", "packets with this mark pass the firewall")
    ipv6: bool = _s(False, "IPv6 on the default bridge")
    mtu: int = _s(0, "MTU of networks; 0: that of the host's uplink")
    userland_proxy: bool = _s(True, "a proxy process for published ports on loopback")
    userland_proxy_path: str = _s("", "path of that proxy", note="Dockyard has its own")
    respect_host_firewall: bool = _s(False, "published ports obey the host's input rules (Dockyard's own)")
    # the daemon itself
    labels: Lines = _s((), "label of the daemon (key=value)", flag="label")
    features: Map = _s({}, "switches (buildkit, containerd-snapshotter)", flag="feature")
    builder: Map = _s({}, "settings of the builder (gc, entitlements)", flag="-")
    metrics_addr: str = _s("", "address of the metrics", note="no metrics are served")
    experimental: bool = _s(False, "let the docker CLI offer what it calls experimental (build --squash)")
    min_api_version: str = _s("1.24", "oldest API version served", flag="-")
    authorization_plugins: Lines = _s((), "authorization plugins", flag="authorization-plugin")
    cdi_spec_dirs: Lines = _s((), "directories of CDI specifications", flag="cdi-spec-dir", note="CDI devices are not served")
    # swarm, containerd: accepted, so that existing files and units carry over
    containerd: str = _s("", "containerd's socket", note=_CONTAINERD)
    containerd_namespace: str = _s("moby", "containerd's namespace", note=_CONTAINERD)
    containerd_plugin_namespace: str = _s(
        "plugins.moby", "its namespace for plugins", flag="containerd-plugins-namespace", note=_CONTAINERD
    )
    network_control_plane_mtu: int = _s(1500, "MTU of the control plane", note="swarm is not served")
    node_generic_resources: Lines = _s((), "resources", flag="node-generic-resource", note="swarm is not served")
    swarm_default_advertise_addr: str = _s("", "address to advertise", note="swarm is not served")

    @property
    def tls_wanted(self) -> bool:
        return self.tls or self.tlsverify


@dataclass(frozen=True, slots=True)
class Option:
    """One setting as parsers see it. ``kind``: bool, int, str, list, map, pools."""

    name: str
    key: str
    flag: str
    short: str
    kind: str
    default: Any
    help: str
    note: str


def _kind(default: Any, name: str) -> str:
    if name == "default_address_pools":
        return "pools"
    return {bool: "bool", int: "int", str: "str", tuple: "list", dict: "map"}[type(default)]


def _options() -> tuple[Option, ...]:
    blank, rows = Settings(), []
    for item in dataclasses.fields(Settings):
        default, meta = getattr(blank, item.name), item.metadata
        key = item.name.replace("_", "-")
        flag = "" if meta["flag"] == "-" else meta["flag"] or key
        rows.append(Option(item.name, key, flag, meta["short"], _kind(default, item.name), default, meta["help"],
                           meta["note"]))  # fmt: skip
    return tuple(rows)


OPTIONS = _options()
_BY_KEY = {option.key: option for option in OPTIONS}
_RETIRED = {
    "graph": "data-root", "cluster-store": "", "cluster-advertise": "", "cluster-store-opts": "", "api-cors-header": "",
    "oom-score-adjust": "", "deprecated-key-path": "",
}  # fmt: skip


def load(flags: Mapping[str, Any], text: bytes | None = None, *, file: str = DEFAULT_FILE) -> Settings:
    """Settings from flags given (field names to strings, lists or booleans) and the file's text (None: no file).

    Raises InvalidParameter with dockerd's wording.
    """
    from_file = _read_file(text, file) if text is not None and text.strip() else {}
    given = {name: _of_flag(_BY_KEY[name.replace("_", "-")], value) for name, value in flags.items()}
    twice = sorted(set(given) & set(from_file) - {"debug"})
    if twice:
        told = ", ".join(
            f"{name.replace('_', '-')}: (from flag: {_shown(given[name])}, from file: {_shown(from_file[name])})"
            for name in twice
        )
        cause = f"the following directives are specified both as a flag and in the configuration file: {told}"
        raise BAD_FILE(file=file, cause=cause)
    settings = Settings(**{**from_file, **given})
    proxies = settings.proxies
    settings = dataclasses.replace(
        settings,
        http_proxy=settings.http_proxy or str(proxies.get("http-proxy", "")),
        https_proxy=settings.https_proxy or str(proxies.get("https-proxy", "")),
        no_proxy=settings.no_proxy or str(proxies.get("no-proxy", "")),
        hosts=tuple(normal_host(host, tls=settings.tls_wanted) for host in settings.hosts),
    )
    check(settings)
    return settings


def notes(settings: Settings) -> list[str]:
    """What was set and has no effect here, as sentences for the log."""
    told = ["native.cgroupdriver=systemd is accepted without effect: Dockyard keeps its cgroups itself (cgroupfs)"]
    return told * ("native.cgroupdriver=systemd" in settings.exec_opts) + [
        f"{option.key} is accepted without effect: {option.note}"
        for option in OPTIONS
        if option.note and getattr(settings, option.name) != option.default
    ]


def _shown(value: Any) -> str:
    return f"[{' '.join(map(str, value))}]" if isinstance(value, tuple) else str(value).lower()


def _read_file(text: bytes, file: str) -> dict[str, Any]:
    try:
        tree = msgspec.json.decode(text)
    except NOT_JSON as broken:
        raise BAD_FILE(file=file, cause=f"invalid JSON: {broken}") from None
    if not isinstance(tree, dict):
        raise BAD_FILE(file=file, cause="it must be a JSON object")
    unknown = [key for key in tree if key not in _BY_KEY]
    if unknown:
        cause = f"the following directives don't match any configuration option: {', '.join(sorted(unknown))}"
        instead = [f"{key} is retired, use {_RETIRED[key]}" for key in unknown if _RETIRED.get(key)]
        raise BAD_FILE(file=file, cause="; ".join([cause, *instead]))
    try:
        return {_BY_KEY[key].name: _of_file(_BY_KEY[key], value) for key, value in tree.items()}
    except TypeError as wrong:
        raise BAD_FILE(file=file, cause=str(wrong)) from None


_JSON_KINDS: dict[str, type[Any]] = {"bool": bool, "int": int, "str": str, "list": list, "pools": list, "map": dict}


def _of_file(option: Option, value: Any) -> Any:
    wanted = _JSON_KINDS[option.kind]
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise TypeError(f"{option.key} must be a {wanted.__name__}, not {type(value).__name__}")
    if option.kind == "pools":
        return tuple(_pool(str(item.get("base", "")), item.get("size", 0)) for item in value if isinstance(item, dict))
    if option.kind == "list":
        return tuple(str(item) for item in value)
    return value


def _of_flag(option: Option, value: Any) -> Any:
    if option.kind == "map":
        return {key: _map_value(option, item) for key, item in (_pair(option, word) for word in value)}
    if option.kind == "pools":
        pairs = [dict(_pair(option, part) for part in word.split(",")) for word in value]
        return tuple(_pool(pair.get("base", ""), pair.get("size", "")) for pair in pairs)
    if option.kind == "list":
        return tuple(value)
    if option.kind == "int":
        try:
            return int(value)
        except ValueError:
            raise BAD_SETTING(cause=f'invalid argument "{value}" for "--{option.flag}": not a number') from None
    return value


def _pair(option: Option, word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not (key and equals):
        raise BAD_SETTING(cause=f'invalid argument "{word}" for "--{option.flag}": key=value is expected')
    return key, value


def _map_value(option: Option, text: str) -> Any:
    if option.key == "runtimes":
        return {"path": text}
    if option.key == "default-ulimits":
        soft, _, hard = text.partition(":")
        try:
            return {"Soft": int(soft), "Hard": int(hard or soft)}
        except ValueError:
            raise BAD_SETTING(cause=f"invalid ulimit: {text}: SOFT[:HARD] is expected") from None
    return text


def _pool(base: str, size: Any) -> dict[str, Any]:
    try:
        network, prefix = ipaddress.ip_network(base), int(size)
    except ValueError:
        raise BAD_SETTING(cause=f"invalid default address pool: base={base},size={size}") from None
    if not network.prefixlen <= prefix <= network.max_prefixlen:
        raise BAD_SETTING(cause=f"invalid default address pool: size {prefix} does not fit into {base}")
    return {"Base": str(network), "Size": prefix}


def normal_host(host: str, *, tls: bool) -> str:
    """``:2375``, ``tcp://``, ``/path`` as whole addresses (dockerd's opts.ParseHost). Raises InvalidParameter."""
    text = host.strip()
    if text.startswith("/"):
        text = f"unix://{text}"
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = ("tcp", text) if text else ("unix", "")
    if scheme == "unix":
        return f"unix://{rest}" if rest else DEFAULT_SOCKET
    if scheme == "fd":
        return f"fd://{rest}"
    if scheme != "tcp":
        raise BAD_SETTING(cause=f"invalid bind address ({host}): unsupported proto {scheme}")
    name, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        name, port = rest, ""
    port = port or str(TLS_PORT if tls else PLAIN_PORT)
    if not port.isdigit() or int(port) > 65535 or "/" in name:
        raise BAD_SETTING(cause=f"invalid bind address ({host}): HOST:PORT is expected")
    return f"tcp://{name or 'localhost'}:{port}"


def api_version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def check(settings: Settings) -> None:
    """Contradictions and values that cannot be. Raises InvalidParameter."""
    for broken, cause in _contradictions(settings):
        if broken:
            raise BAD_SETTING(cause=cause)
    for label in settings.labels:
        if "=" not in label:
            raise BAD_SETTING(cause=f"bad attribute format: {label}: a label is key=value")
    for name in ("bip", "bip6", "fixed_cidr", "fixed_cidr_v6", "default_gateway", "default_gateway_v6", "ip"):
        _address(name, getattr(settings, name))
    for address in settings.dns:
        _address("dns", address)


def _contradictions(s: Settings) -> Iterable[tuple[bool, str]]:
    yield bool(s.bridge and s.bip), ("You specified -b & --bip, mutually exclusive options. Please specify only one")
    yield (
        not s.iptables and not s.icc,
        (
            "You specified --iptables=false with --icc=false. ICC=false uses iptables to function. "
            "Please set --icc or --iptables to true"
        ),
    )
    yield s.log_level not in LOG_LEVELS, f"invalid logging level: {s.log_level}"
    yield s.log_format not in ("text", "json"), f"invalid log format: {s.log_format}"
    yield s.default_ipc_mode not in ("private", "shareable"), f"IPC mode {s.default_ipc_mode} is not supported"
    yield (
        s.default_cgroupns_mode not in ("host", "private"),
        (f"cgroup namespace mode {s.default_cgroupns_mode} is not supported"),
    )
    yield (
        s.storage_driver not in ("", "overlay2", "overlay", "overlayfs", "erofs"),
        (f"storage driver {s.storage_driver} is not supported: Dockyard stores layers for overlay2"),
    )
    yield s.mtu < 0, f"invalid default MTU: {s.mtu}"
    yield s.max_concurrent_downloads < 0, f"invalid max concurrent downloads: {s.max_concurrent_downloads}"
    yield s.max_concurrent_uploads < 0, f"invalid max concurrent uploads: {s.max_concurrent_uploads}"
    yield s.max_download_attempts < 1, f"invalid max download attempts: {s.max_download_attempts}"
    yield s.selinux_enabled, "selinux-enabled is not implemented by Dockyard yet"
    for option in s.exec_opts:
        key, _, value = option.partition("=")
        yield key != "native.cgroupdriver", f"invalid option {key} in exec-opts: only native.cgroupdriver is known"
        yield value not in ("cgroupfs", "systemd"), f"invalid cgroup driver {value}: cgroupfs or systemd"
    yield (
        not re.fullmatch(r"1\.\d{1,3}", s.min_api_version) or not OLDEST <= api_version(s.min_api_version) <= NEWEST,
        f"invalid minimum API version {s.min_api_version}: between {OLDEST[0]}.{OLDEST[1]} and {NEWEST[0]}.{NEWEST[1]} are served",
    )
    for name, row in s.runtimes.items():
        yield not (isinstance(row, dict) and row.get("path")), f"runtime {name}: either a runtimeType or a path must be configured"
    yield (
        s.tlsverify and not (s.tlscacert and s.tlscert and s.tlskey),
        ("tlsverify needs tlscacert, tlscert and tlskey"),
    )
    yield s.tls and not (s.tlscert and s.tlskey), "tls needs tlscert and tlskey"
    yield not s.hosts, "no address to serve: give --host"
    yield (
        s.default_runtime not in ("", "runc", "crun", *s.runtimes),
        (f"specified default runtime '{s.default_runtime}' does not exist"),
    )


def _address(name: str, value: str) -> None:
    if value:
        try:
            ipaddress.ip_interface(value)
        except ValueError:
            raise BAD_SETTING(cause=f"invalid {name.replace('_', '-')}: {value} is not an address") from None


def flags_of(words: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Repeated (field name, value) pairs as ``load`` takes them: lists and maps are gathered, the last scalar wins."""
    kinds = {option.name: option.kind for option in OPTIONS}
    out: dict[str, Any] = {}
    for name, value in words:
        if kinds[name] in ("list", "map", "pools"):
            out.setdefault(name, []).append(value)
        else:
            out[name] = value
    return out
