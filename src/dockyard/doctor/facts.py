"""Facts: what the collectors saw, typed, and nothing concluded. The same document comes from a live host or a bundle.

Documents of the Engine API are kept as the engine sent them (dictionaries): they are evidence, and engines differ.
What could not be read is named in `Facts.missing` by section, so that a rule that needs it says "could not check".

Sections (keys of `missing`)::

    engine      reachability, /version, /info, daemon.json, the process     caller     uid, groups, environment
    containers  networks  volumes  images  events                           usage      /system/df (deep)
    host        sysctls, disks, memory, kernel log                          host_net   the engine's network namespace
    firewall    nft ruleset and both iptables back ends                     nets       that of each running container
    processes   cgroups   files   logs   mounts                             probes     packets sent (deep)
    registries  handshake, challenge, clocks (asked for, or deep)
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

FORMAT = 1


class Link(Struct, frozen=True):
    index: int
    name: str
    kind: str = ""
    mac: str = ""
    mtu: int = 0
    master: int = 0
    up: bool = False
    operstate: str = ""
    peer: int = 0  # IFLA_LINK: for a veth the index of the other end, in its own namespace


class Address(Struct, frozen=True):
    link: int
    address: str
    prefix: int


class Route(Struct, frozen=True):
    destination: str  # "0.0.0.0/0" for the default
    link: int
    gateway: str = ""
    source: str = ""
    metric: int = 0
    kind: str = "unicast"
    table: int = 254


class Neighbour(Struct, frozen=True):
    link: int
    address: str
    mac: str
    state: str


class Listener(Struct, frozen=True):
    proto: str  # tcp, tcp6, udp, udp6
    address: str
    port: int
    inode: int = 0


class NetNs(Struct, frozen=True):
    """One network namespace. ``inode`` identifies it."""

    inode: int
    links: list[Link] = field(default_factory=list)
    addresses: list[Address] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    resolv_conf: str | None = None


class Firewall(Struct, frozen=True):
    """Raw rule sets; `dockyard.doctor.firewall` reads them. None: the tool is missing or refused."""

    nft: list[dict[str, Any]] | None = None
    iptables_nft: str | None = None
    iptables_legacy: str | None = None


class Process(Struct, frozen=True):
    """The first process of a container."""

    pid: int
    name: str = ""
    state: str = ""
    uid: int = 0
    gid: int = 0
    groups: list[int] = field(default_factory=list)
    capabilities: int = 0
    signals_caught: int = 0
    signals_ignored: int = 0
    seccomp: int = 0
    no_new_privs: int = 0
    threads: int = 0
    fds: int = 0
    fd_soft: int = 0
    fd_hard: int = 0
    children: int = 0
    zombies: int = 0
    namespaces: dict[str, int] = field(default_factory=dict)


class Cgroup(Struct, frozen=True):
    memory_limit: int = 0
    memory_usage: int = 0
    oom_kills: int = 0
    pids_limit: int = 0
    pids_current: int = 0
    pids_refused: int = 0
    pids_peak: int = 0
    """The most at one time; 0 where the kernel does not say."""
    periods: int = 0
    throttled: int = 0


class Disk(Struct, frozen=True):
    """A mounted file system, in bytes and inodes."""

    path: str
    kind: str
    options: str
    total: int = 0
    available: int = 0
    inodes: int = 0
    inodes_free: int = 0
    device: int = 0


class FileFact(Struct, frozen=True):
    """One path as a container or the engine's host sees it. ``error`` is an errno name, empty when it exists."""

    path: str
    kind: str = ""  # file, dir, link, other
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    target: str = ""
    head: bytes = b""
    entries: int = -1
    error: str = ""
    mount: str = ""  # options of the file system it lies on, where known


class MountLeak(Struct, frozen=True):
    pid: int
    name: str
    mount_point: str


class Probe(Struct, frozen=True):
    """One packet exchange that was tried. ``outcome``: answered, refused, timeout, unreachable, error."""

    source: str  # container id, or "host"
    kind: str  # tcp, udp, dns, icmp
    target: str
    outcome: str
    detail: str = ""
    ms: float = 0.0


class Certificate(Struct, frozen=True):
    subject: str
    issuer: str
    not_before: float
    not_after: float
    names: list[str] = field(default_factory=list)
    self_signed: bool = False
    ca: bool = False


class Registry(Struct, frozen=True):
    """What a registry answered when asked from the engine's network namespace."""

    host: str
    addresses: list[str] = field(default_factory=list)
    connect: str = ""  # ok, or the error
    speaks: str = ""  # tls, http, other, ""
    verify: str = ""  # ok, or the verification error of OpenSSL
    chain: list[Certificate] = field(default_factory=list)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    challenge: str = ""
    by_proxy: str = ""  # how the connection went through the caller's proxy: ok, or why not; empty: not tried
    realm_connect: str = ""
    token: dict[str, Any] = field(default_factory=dict)
    date: float = 0.0
    asked_at: float = 0.0
    certs_d: list[str] = field(default_factory=list)
    repository: str = ""
    reference: str = ""
    actions: str = ""  # what the token was asked for: "pull", or "pull,push" where a push was refused
    manifest_status: int = 0
    manifest_code: str = ""
    tags: list[str] = field(default_factory=list)
    platforms: list[str] = field(default_factory=list)


class Engine(Struct, frozen=True):
    host: str = ""
    source: str = ""
    reach: str = ""  # ok, or: absent, refused, denied, silent, tls, error
    reach_detail: str = ""
    socket: FileFact | None = None
    version: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    pid: int = 0
    executable: str = ""
    command: list[str] = field(default_factory=list)
    proxies: dict[str, str] = field(default_factory=dict)
    config_path: str = ""
    config_text: str | None = None
    others: list[str] = field(default_factory=list)  # command lines of other engines on this machine
    listens: list[str] = field(default_factory=list)  # tcp addresses of its API
    tls_probe: dict[str, str] = field(default_factory=dict)  # address: "clear" when /_ping is answered unprotected


class Caller(Struct, frozen=True):
    uid: int = 0
    groups: list[int] = field(default_factory=list)
    group_file: list[int] = field(default_factory=list)  # groups of this user by /etc/group
    environ: dict[str, str] = field(default_factory=dict)  # DOCKER_* and proxies only
    context: str = ""
    terminal: bool | None = None  # is standard input one?


class Host(Struct, frozen=True):
    release: str = ""
    machine: str = ""
    modules: bool = True  # /lib/modules has a directory for the running release (or the kernel has no modules)
    memory_total: int = 0
    memory_available: int = 0
    cgroup: str = ""  # v1, v2, hybrid
    controllers: list[str] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    disks: list[Disk] = field(default_factory=list)
    kernel_log: list[str] = field(default_factory=list)
    binfmt: list[str] = field(default_factory=list)
    resolv_conf: str | None = None
    resolv_link: str = ""  # target when it is a dangling link
    processes: dict[int, str] = field(default_factory=dict)  # pid: command of docker-proxy and port owners


class Facts(Struct, frozen=True):
    taken_at: float
    deep: bool = False
    format: int = FORMAT
    engine: Engine = field(default_factory=Engine)
    caller: Caller = field(default_factory=Caller)
    host: Host = field(default_factory=Host)
    containers: list[dict[str, Any]] = field(default_factory=list)
    networks: list[dict[str, Any]] = field(default_factory=list)
    volumes: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    host_net: NetNs | None = None
    firewall: Firewall = field(default_factory=Firewall)
    nets: dict[str, NetNs] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    cgroups: dict[str, Cgroup] = field(default_factory=dict)
    files: dict[str, FileFact] = field(default_factory=dict)  # key: "<container id>:<path>" or "host:<path>"
    logs: dict[str, str] = field(default_factory=dict)
    leaks: list[MountLeak] = field(default_factory=list)
    port_owners: dict[str, str] = field(default_factory=dict)  # "tcp/8080": "pid 12 (nginx)"
    log_sizes: dict[str, int] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)
    registries: list[Registry] = field(default_factory=list)
    said: str = ""  # the message, with the command if given, that the user asks about
    missing: dict[str, str] = field(default_factory=dict)
    collect_ms: dict[str, float] = field(default_factory=dict)
