"""A container's place in a network, in Docker's words (Engine API 1.51: EndpointSettings, IPAM, NetworkingConfig)."""

from __future__ import annotations

from msgspec import field

from dockyard.model.wire import Document


class EndpointIPAMConfig(Document, frozen=True):
    ipv4_address: str = field(default="", name="IPv4Address")
    ipv6_address: str = field(default="", name="IPv6Address")
    link_local_ips: list[str] | None = field(default=None, name="LinkLocalIPs")


class EndpointSettings(Document, frozen=True):
    ipam_config: EndpointIPAMConfig | None = field(default=None, name="IPAMConfig")
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = ""
    endpoint_id: str = ""
    gateway: str = ""
    ip_address: str = ""
    ip_prefix_len: int = 0
    ipv6_gateway: str = field(default="", name="IPv6Gateway")
    global_ipv6_address: str = field(default="", name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = field(default=0, name="GlobalIPv6PrefixLen")
    dns_names: list[str] | None = None


class NetworkingConfig(Document, frozen=True):
    endpoints_config: dict[str, EndpointSettings] | None = None


class IPAMConfig(Document, frozen=True):
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IPAM(Document, frozen=True):
    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IPAMConfig] | None = None
