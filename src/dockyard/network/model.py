"""Nouns of the network room. Records are JSON in network.db; addresses stay text in records, parsed where computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from dockyard.model import EndpointSettings, PortBinding

DEFAULT_POOLS = (("172.16.0.0/12", 16, "172.17.0.0/16"), ("192.168.0.0/16", 20, ""))
"""(base, prefix length, first): Docker's local pools."""

FAMILIES = ("ip", "ip6")
"""As nft says; the value of every ``family`` here."""
BRIDGE_OPTION = "com.docker.network.bridge."
OWN_DRIVERS = frozenset({"bridge", "macvlan", "ipvlan", "host", "null"})


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """dockerd's flags of the same names. ``mtu`` 0: that of the host's uplink."""

    bridge: str = ""
    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_gateway: str = ""
    default_gateway_v6: str = ""
    mtu: int = 0
    icc: bool = True
    ip_forward: bool = True
    ip_forward_no_drop: bool = False
    ip_masq: bool = True
    iptables: bool = True
    ip6tables: bool = True
    firewall_backend: str = ""
    """nftables, iptables, or "" for the best one found."""
    userland_proxy: bool = True
    allow_direct_routing: bool = False
    bridge_accept_fwmark: str = ""
    """MARK or MARK/MASK, as iptables takes it."""
    ipv6: bool = False
    respect_host_firewall: bool = False
    """Published ports are open to those only whom the host's own input rules let in on that port."""
    host_ip: str = "0.0.0.0"
    host_gateway_ips: tuple[str, ...] = ()
    default_address_pools: tuple[tuple[str, int], ...] = ()
    default_network_opts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()

    @property
    def families(self) -> tuple[str, ...]:
        """Those that get firewall rules."""
        chosen = (("ip", self.iptables), ("ip6", self.iptables and self.ip6tables))
        return tuple(family for family, on in chosen if on)


class Subnet(msgspec.Struct, frozen=True):
    subnet: str
    gateway: str
    """"" where the driver needs none (gateway mode isolated)."""
    ip_range: str = ""
    auxiliary: dict[str, str] = {}
    pool: str = ""
    """A remote IPAM driver's PoolID."""


class Network(msgspec.Struct, frozen=True):
    id: str
    name: str
    driver: str
    created: str
    subnets: tuple[Subnet, ...] = ()
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = {}
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: str = ""
    configured: bool = False
    """The subnet was given by the user, so addresses may be, too."""
    adopted: bool = False
    """The bridge or parent was there before us: it is left as it is, and is never removed."""
    scope: str = "local"
    idle: tuple[Subnet, ...] = ()
    """Subnets that were given for a family that is off."""

    def option(self, name: str, default: str = "") -> str:
        return self.options.get(name) or default

    def subnet(self, family: str) -> Subnet | None:
        """``family`` is "ip" or "ip6", as nft says."""
        return next((item for item in self.subnets if (":" in item.subnet) == (family == "ip6")), None)

    def gateway_mode(self, family: str) -> str:
        """nat, nat-unprotected, routed or isolated."""
        return self.option(f"{BRIDGE_OPTION}gateway_mode_{'ipv4' if family == 'ip' else 'ipv6'}", "nat")

    @property
    def bridge(self) -> str:
        return self.option(f"{BRIDGE_OPTION}name", f"br-{self.id[:12]}")

    @property
    def parent(self) -> str:
        """The host's interface that endpoints hang on."""
        if self.driver in {"macvlan", "ipvlan"}:
            return self.option("parent", f"d{self.driver[0]}-{self.id[:12]}")
        return self.bridge

    @property
    def predefined(self) -> bool:
        return self.name in {"bridge", "host", "none"}

    @property
    def remote(self) -> bool:
        return self.driver not in OWN_DRIVERS

    @property
    def wired(self) -> bool:
        """Its endpoints have interfaces."""
        return self.driver not in {"host", "null"}

    @property
    def icc(self) -> bool:
        return self.options.get(f"{BRIDGE_OPTION}enable_icc", "true") == "true"

    @property
    def masquerade(self) -> bool:
        return not self.internal and self.options.get(f"{BRIDGE_OPTION}enable_ip_masquerade", "true") == "true"

    @property
    def trusted_interfaces(self) -> list[str]:
        """Interfaces of the host from which containers may be reached directly."""
        return [item for item in self.option(f"{BRIDGE_OPTION}trusted_host_interfaces").split(":") if item]


class StaticRoute(msgspec.Struct, frozen=True):
    destination: str
    next_hop: str = ""
    """"" for a destination that is on the link."""


class Joined(msgspec.Struct, frozen=True):
    """What a remote driver answered to Join."""

    source: str
    """The interface on the host that is moved into the sandbox; "" if the driver gives none."""
    prefix: str = "eth"
    gateway: str = ""
    gateway6: str = ""
    routes: tuple[StaticRoute, ...] = ()
    no_gateway_service: bool = False


class Endpoint(msgspec.Struct, frozen=True):
    id: str
    network: str
    container: str
    name: str
    """The container's name."""
    wish: EndpointSettings = EndpointSettings()
    address: str = ""
    """Held while the container runs. With its prefix length."""
    address6: str = ""
    mac: str = ""
    interface: str = ""
    names: tuple[str, ...] = ()
    joined: Joined | None = None

    @property
    def sysctls(self) -> dict[str, str]:
        """From ``com.docker.network.endpoint.sysctls``, for this interface: net.ipv4.conf.IFNAME.log_martians=1,..."""
        return {
            name.replace("IFNAME", self.interface).replace("ifname", self.interface): value
            for name, value in self.sysctl_wishes
        }

    @property
    def sysctl_wishes(self) -> list[tuple[str, str]]:
        text = (self.wish.driver_opts or {}).get("com.docker.network.endpoint.sysctls", "")
        rows = [row.partition("=") for row in text.split(",") if row.strip()]
        return [(name.strip(), value.strip()) for name, _, value in rows]

    @property
    def addresses(self) -> list[str]:
        """Without prefix lengths."""
        return [item.partition("/")[0] for item in (self.address, self.address6) if item]

    @property
    def wished(self) -> list[str]:
        """Addresses that the user gave."""
        wish = self.wish.ipam_config
        return [item for item in (wish.ipv4_address, wish.ipv6_address) if item] if wish else []


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What a container's networking is made of."""

    container_id: str
    name: str
    hostname: str
    files_dir: str
    mode: str = "bridge"
    """bridge, host, none, container:ID, or a network's name."""
    domainname: str = ""
    exposed: tuple[str, ...] = ()
    bindings: dict[str, list[PortBinding] | None] = field(default_factory=dict)
    publish_all: bool = False
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    """(container ID, alias)."""
    userns: str = ""
    """Path of the user namespace that the sandbox belongs to; "" the host's."""
    owner: tuple[int, int] = (0, 0)
    """Of the files in ``files_dir``: the container's root, as the host's uid and gid."""


@dataclass(frozen=True, slots=True)
class Door:
    """The default route of a sandbox for one family."""

    family: str
    gateway: str
    interface: str


class Published(msgspec.Struct, frozen=True):
    """One published port of a running container."""

    port: int
    protocol: str
    host_ip: str
    host_port: int
    address: str
    """The container's."""
    direct: bool = False
    """Routed networks: reached at the container's own address and port, nothing is translated."""
    trusted: tuple[str, ...] = ()
    """Interfaces of the host whose packets may go to the container's address itself; "*" stands for all."""
    proxied: bool = False
    """A process carries it: the kernel cannot (from IPv6 to IPv4), or may not (--iptables=false)."""


class LinkRule(msgspec.Struct, frozen=True):
    """With icc=false: ``source`` may open connections to this port of ``target``."""

    source: str
    target: str
    protocol: str
    port: int


class Sandbox(msgspec.Struct, frozen=True):
    """A live container's namespace and what is published for it."""

    container: str
    netns: str
    published: tuple[Published, ...] = ()
    exposed: tuple[str, ...] = ()
    links: tuple[LinkRule, ...] = ()
