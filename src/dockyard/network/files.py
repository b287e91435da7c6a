"""hosts, hostname and resolv.conf of a container, as text. Pure (moby daemon/libnetwork/etchosts, internal/resolvconf)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from dockyard.network.errors import BAD

EMBEDDED_DNS = "127.0.0.11"
LOOPBACK = "127.0.0.1"
_STATIC = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


def hosts(entries: Iterable[tuple[str, Sequence[str]]], extra: Iterable[str], gateways: Sequence[str]) -> str:
    """``extra`` is --add-host (``name:address`` or ``name=address``; host-gateway stands for ``gateways``)."""
    lines = [_STATIC]
    for row in extra:
        name, address = split_extra_host(row)
        lines += [f"{item}\t{name}\n" for item in (gateways if address == "host-gateway" else [address])]
    lines += [f"{address}\t{' '.join(dict.fromkeys(names))}\n" for address, names in entries]
    return "".join(lines)


def split_extra_host(row: str) -> tuple[str, str]:
    separator = "=" if "=" in row else ":"
    name, found, address = row.partition(separator)
    address = address.strip("[]")
    if not found or not name:
        raise BAD(cause=f'bad format for add-host: "{row}"')
    if address != "host-gateway":
        try:
            ip_address(address)
        except ValueError:
            raise BAD(cause=f'invalid IP address in add-host: "{address}"') from None
    return name, address


def all_servers(host: str) -> list[str]:
    return _words(host, "nameserver")


def is_loopback(server: str) -> bool:
    return server.startswith("127.") or server == "::1"


def name_servers(host: str) -> list[str]:
    """Servers that a container can use: the host's own loopback resolvers mean nothing inside (127.0.0.53)."""
    return [server for server in all_servers(host) if not is_loopback(server)]


def resolv_conf(host: str, *, dns: Sequence[str], search: Sequence[str], options: Sequence[str], embedded: bool) -> str:
    """From the host's file and the container's wishes. Without any server the public ones of Docker's past are not
    put in: a file without servers says what is wrong, a wrong server hides it (moby#49665)."""
    servers = [EMBEDDED_DNS] if embedded else list(dns) or name_servers(host)
    domains = [] if list(search) == ["."] else list(search) or _search(host)
    wanted = list(options) or [option for line in _lines(host, "options") for option in line.split()]
    if embedded and not any(option.startswith("ndots:") for option in wanted):
        wanted.append("ndots:0")
    text = "# Made by Dockyard\n" + "".join(f"nameserver {server}\n" for server in servers)
    text += f"search {' '.join(domains)}\n" if domains else ""
    return text + (f"options {' '.join(wanted)}\n" if wanted else "")


def _lines(text: str, keyword: str) -> list[str]:
    return [line.split(None, 1)[1].strip() for line in text.splitlines() if line.split()[:1] == [keyword] and len(line.split()) > 1]


def _words(text: str, keyword: str) -> list[str]:
    return [line.split()[0] for line in _lines(text, keyword)]


def _search(text: str) -> list[str]:
    rows = _lines(text, "search") or _lines(text, "domain")
    return rows[-1].split() if rows else []


def link_variables(name: str, alias: str, address: str, ports: Sequence[str], env: Sequence[str]) -> list[str]:
    """What a linked container is told of another: ``DB_PORT_5432_TCP_ADDR`` and its kin (moby daemon/links)."""
    prefix = alias.replace("-", "_").upper()
    made = [f"{prefix}_NAME=/{name}/{alias}"]
    if ports:
        number, _, protocol = min(ports, key=lambda item: (int(item.partition("/")[0]), item)).partition("/")
        made.append(f"{prefix}_PORT={protocol or 'tcp'}://{address}:{number}")
    for port in ports:
        number, _, protocol = port.partition("/")
        base = f"{prefix}_PORT_{number}_{(protocol or 'tcp').upper()}"
        made += [
            f"{base}={protocol or 'tcp'}://{address}:{number}", f"{base}_ADDR={address}", f"{base}_PORT={number}",
            f"{base}_PROTO={protocol or 'tcp'}",
        ]  # fmt: skip
    skipped = {"HOME", "PATH"}
    made += [f"{prefix}_ENV_{item}" for item in env if "=" in item and item.partition("=")[0] not in skipped]
    return made
