"""Settings of the transfer room, and the pure plan of where a name is fetched from (``endpoints_for``).

For one domain the endpoints are tried in this order, as dockerd's registry/service_v2.go does for docker.io alone::

    mirrors of the domain (pull only, without credentials)  →  the registry itself, or default_registry for docker.io

``default_registry`` stands in for Docker Hub: names typed without a domain keep their name and are fetched from, and
pushed to, that host. Insecure registries (loopback always is one, moby registry/config.go) are tried with unverified
TLS and then with plain HTTP.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dockyard.oci import DEFAULT_DOMAIN

HUB_HOST = "registry-1.docker.io"
HUB_INDEX = "index.docker.io"
HUB_AUTH_KEY = "https://index.docker.io/v1/"
CERTS_DIR = Path("/etc/docker/certs.d")

CONNECT_TIMEOUT = 10.0
"""Seconds for the TCP connection and the TLS handshake."""
READ_TIMEOUT = 60.0
"""Seconds without a single byte before a transfer counts as broken."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxy URLs, as daemon.json's http-proxy, https-proxy and no-proxy; empty means none."""

    http: str = ""
    https: str = ""
    no_proxy: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Proxies:
        def get(name: str) -> str:
            return environ.get(name) or environ.get(name.lower()) or ""

        return cls(get("HTTP_PROXY"), get("HTTPS_PROXY"), get("NO_PROXY"))

    def for_url(self, scheme: str, host: str, port: int) -> str:
        """The proxy for a URL, or "". Loopback is never proxied (Go's httpproxy rule, which dockerd follows)."""
        proxy = self.https if scheme == "https" else self.http
        if not proxy or host == "localhost" or _is_loopback(host):
            return ""
        rules = (rule.strip().lower() for rule in self.no_proxy.split(","))
        return "" if any(_exempt(rule, host.lower(), port) for rule in rules if rule) else proxy


@dataclass(frozen=True, slots=True)
class Settings:
    insecure_registries: tuple[str, ...] = ()
    """``host[:port]`` or CIDR blocks."""
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Domain → URLs; daemon.json's registry-mirrors is the entry ``docker.io``."""
    default_registry: str = ""
    """Host that serves the names without a domain; empty means Docker Hub."""
    certs_dirs: tuple[Path, ...] = (CERTS_DIR,)
    proxies: Proxies = Proxies()
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    push_compression: str = "gzip"
    """``gzip`` (Docker schema 2, which every registry takes) or ``zstd`` (OCI manifest)."""
    push_chunk: int = 0
    """Bytes of one upload request; 0 streams a blob in one, as dockerd does."""
    user_agent: str = "docker/28.2.2 dockyard/0.1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server that may hold a repository. ``base`` has a scheme and no final slash."""

    host: str
    base: str
    insecure: bool = False
    mirror: bool = False

    @property
    def probes_plain_http(self) -> bool:
        return self.insecure and self.base.startswith("https://")


def endpoints_for(settings: Settings, domain: str, *, push: bool = False) -> list[Endpoint]:
    mirrors = () if push else settings.mirrors.get(domain, ())
    plan = [_endpoint_of_url(settings, url) for url in mirrors]
    host = registry_host(settings, domain)
    plan.append(Endpoint(host, f"https://{host}", is_insecure(settings, host)))
    return plan


def registry_host(settings: Settings, domain: str) -> str:
    return (settings.default_registry or HUB_HOST) if domain == DEFAULT_DOMAIN else domain


def is_insecure(settings: Settings, host: str) -> bool:
    """Whether TLS of ``host[:port]`` may be unverified or absent."""
    name = _hostname(host)
    if name == "localhost" or _is_loopback(name) or host in settings.insecure_registries:
        return True
    if name in settings.insecure_registries:
        return True
    blocks = [rule for rule in settings.insecure_registries if "/" in rule]
    return any(_in_block(name, block) for block in blocks)


def _endpoint_of_url(settings: Settings, url: str) -> Endpoint:
    base = url.rstrip("/") if "://" in url else f"https://{url.rstrip('/')}"
    host = base.partition("://")[2].partition("/")[0]
    return Endpoint(host, base, is_insecure(settings, host), mirror=True)


def _hostname(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _in_block(name: str, block: str) -> bool:
    try:
        return ipaddress.ip_address(name) in ipaddress.ip_network(block, strict=False)
    except ValueError:
        return False


def _exempt(rule: str, host: str, port: int) -> bool:
    if rule == "*" or _in_block(host, rule):
        return True
    name, _, rule_port = rule.partition(":") if rule.count(":") == 1 else (rule, "", "")
    if rule_port and rule_port != str(port):
        return False
    bare = name.removeprefix("*").lstrip(".")
    return host.endswith("." + bare) or (host == bare and not name.startswith((".", "*")))
