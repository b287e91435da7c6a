"""Nouns of the network room. Records are JSON in network.db; addresses stay text in records, parsed where computed."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from dockyard.model import EndpointSettings, PortBinding

DEFAULT_POOLS = (("172.16.0.0/12", 16, "172.17.0.0/16"), ("192.168.0.0/16", 20, ""))
"""(base, prefix length, first): Docker's local pools."""


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
    enable_ipv6: bool = False
    configured: bool = False
    """The subnet was given by the user, so addresses may be, too."""

    @property
    def bridge(self) -> str:
        return self.options.get("com.docker.network.bridge.name") or f"br-{self.id[:12]}"

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
    """Held while the container runs, or for good where the user gave it."""
    mac: str = ""
    interface: str = ""
    names: tuple[str, ...] = ()


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


class Published(msgspec.Struct, frozen=True):
    """One published port of a running container."""

    port: int
    protocol: str
    host_ip: str
    host_port: int
    address: str
    """The container's."""


class Sandbox(msgspec.Struct, frozen=True):
    """A live container's namespace and what is published for it."""

    container: str
    netns: str
    published: tuple[Published, ...] = ()
    exposed: tuple[str, ...] = ()
