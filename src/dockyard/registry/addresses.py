"""Addresses that people give us to connect to: webhooks, mirrors, upstreams."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from dockyard.registry.errors import VALUE_INVALID


def check_url(url: str) -> str:
    """http or https with a host. Raises VALUE_INVALID."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is none
        whole = False
    if not whole:
        raise VALUE_INVALID(what="URL", reason="http:// or https:// and a host")
    return url


def forbidden(url: str) -> str:
    """Why nobody may make us connect there, or "". Link-local addresses hold the credentials of cloud machines
    (169.254.169.254), and what is answered is shown to whoever gave the address."""
    try:
        host = urlsplit(url).hostname or ""
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except (OSError, ValueError) as error:  # ValueError: a name that IDNA refuses
        return f"no such host: {getattr(error, 'strerror', None) or error}"
    if any(ipaddress.ip_address(str(address).partition("%")[0]).is_link_local for address in found):
        return f"{host} is a link-local address"
    return ""
