"""Nouns of the network room. Records are JSON in network.db; addresses stay text in records, parsed where computed."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from dockyard.model import EndpointSettings, PortBinding

DEFAULT_POOLS = (("172.16.0.0/12", 16, "172.17.0.0/16"), ("192.168.0.0/16", 20, ""))
"""(base, prefix length, first): Docker's local pools."""


FAMILIES = ("ip", "ip6")
"""As nft says; the value of every ``family`` here."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """dockerd's flags of the same names. ``mtu`` 0: that of the host's uplink."""

    bridge: str = ""
    bip: str = ""
    fixed_cidr: str = ""
    default_gateway: str = ""
    mtu: int = 0
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    iptables: bool = True
    ip6tables: bool = True
    ipv6: bool = False
    fixed_cidr_v6: str = ""
    default_gateway_v6: str = ""
    respect_host_firewall: bool = False
    """Published ports are open to those only whom the host's own input rules let in on that port."""
    host_ip: str = "0.0.0.0"
    default_address_pools: tuple[tuple[str, int], ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()


class Subnet(msgspec.Struct, frozen=True):
    subnet: str
    gateway: str
    ip_range: str = ""
    auxiliary: dict[str, str] = {}


class Network(msgspec.Struct, frozen=True):
    id: str
    name: str
    driver: str
    created: str
    subnets: tuple[Subnet, ...] = ()
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
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

    def option(self, name: str, default: str = "") -> str:
        return self.options.get(name) or default

    def subnet(self, family: str) -> Subnet | None:
        """``family`` is "ip" or "ip6", as nft says."""
        return next((item for item in self.subnets if (":" in item.subnet) == (family == "ip6")), None)

    def gateway_mode(self, family: str) -> str:
        """nat, nat-unprotected, routed or isolated."""
        return self.option(f"com.docker.network.bridge.gateway_mode_{'ipv4' if family == 'ip' else 'ipv6'}", "nat")

    @property
    def bridge(self) -> str:
        return self.option("com.docker.network.bridge.name", f"br-{self.id[:12]}")

    @property
    def parent(self) -> str:
        """The host's interface that endpoints hang on."""
        if self.driver == "macvlan":
            return self.option("parent", f"dm-{self.id[:12]}")
        return self.bridge

    @property
    def predefined(self) -> bool:
        return self.name in {"bridge", "host", "none"}

    @property
    def icc(self) -> bool:
        return self.options.get("com.docker.network.bridge.enable_icc", "true") == "true"

    @property
    def masquerade(self) -> bool:
        return not self.internal and self.options.get("com.docker.network.bridge.enable_ip_masquerade", "true") == "true"


class Endpoint(msgspec.Struct, frozen=True):
    id: str
    network: str
    container: str
    name: str
    """The container's name."""
    wish: EndpointSettings = EndpointSettings()
    address: str = ""
    """Held while the container runs, or for good where the user gave it. With its prefix length."""
    address6: str = ""
    mac: str = ""
    interface: str = ""
    names: tuple[str, ...] = ()

    @property
    def sysctls(self) -> dict[str, str]:
        """From ``com.docker.network.endpoint.sysctls``, for this interface: net.ipv4.conf.IFNAME.log_martians=1,..."""
        text = (self.wish.driver_opts or {}).get("com.docker.network.endpoint.sysctls", "")
        rows = [row.partition("=") for row in text.split(",") if row.strip()]
        return {name.strip().replace("IFNAME", self.interface): value.strip() for name, _, value in rows}

    @property
    def addresses(self) -> list[str]:
        """Without prefix lengths."""
        return [item.partition("/")[0] for item in (self.address, self.address6) if item]


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
    sysctls: dict[str, str] = field(default_factory=dict)


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
