"""Reading the host's resolver files and writing a container's: the doing half of ``files``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from dockyard.network import files
from dockyard.network.model import NetworkSettings, SandboxSpec

RESOLV_CONF = Path("/etc/resolv.conf")
SYSTEMD_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")
HOSTS = Path("/etc/hosts")
MAX_HOSTS = 1 << 20
"""Characters of a container's hosts file that are kept: it is the container's to write."""


def host_resolv_conf() -> str:
    """The host's file; where it names only systemd's stub, that of systemd-resolved itself."""
    try:
        text = RESOLV_CONF.read_text()
    except OSError:
        return ""
    if files.all_servers(text) == ["127.0.0.53"] and SYSTEMD_RESOLV_CONF.exists():
        return SYSTEMD_RESOLV_CONF.read_text()
    return text


def write(
    spec: SandboxSpec, settings: NetworkSettings, linked: Sequence[tuple[str, Sequence[str]]], own: Sequence[str],
    gateways: Sequence[str], *, embedded: bool, live: bool,
) -> None:  # fmt: skip
    """hosts, hostname and resolv.conf. ``linked``: (address, names) of links; ``own``: the container's addresses;
    ``live``: the container runs, and lines that it added to hosts stay."""
    if spec.mode == "host":
        hosts = HOSTS.read_text() if HOSTS.exists() else ""
        hosts += "".join(f"{address}\t{name}\n" for name, address in map(files.split_extra_host, spec.extra_hosts))
    else:
        name = f"{spec.hostname}.{spec.domainname}" if spec.domainname else spec.hostname
        # A name with dots may have been given as the host name: the bare one is known, too, as in Docker.
        names = [name, name.partition(".")[0]]
        hosts = files.hosts([*linked, *((address, names) for address in own)], spec.extra_hosts, gateways)
    resolv = files.resolv_conf(
        host_resolv_conf(), dns=spec.dns or settings.dns, search=spec.dns_search or settings.dns_search,
        options=spec.dns_options or settings.dns_opts, embedded=embedded,
    )  # fmt: skip
    where = Path(spec.files_dir)
    # In place: the files are bind mounted into the container, new ones would not be seen there.
    where.joinpath("hosts").write_text(hosts + (_added_lines(where) if live else ""))
    where.joinpath("hosts.last").write_text(hosts)
    where.joinpath("hostname").write_text(spec.hostname + "\n")
    _write_resolv_conf(where, resolv)
    if spec.owner != (0, 0):
        for name in ("hosts", "hostname", "resolv.conf"):
            os.chown(where / name, *spec.owner)


def _added_lines(where: Path) -> str:
    """What others wrote into hosts since we did."""
    path, last = where / "hosts", where / "hosts.last"
    if not (path.exists() and last.exists()):
        return ""
    known = set(last.read_text(errors="replace").splitlines())
    with path.open(errors="replace") as current:
        rows = current.read(MAX_HOSTS).splitlines()
    return "".join(f"{row}\n" for row in rows if row not in known)


def _write_resolv_conf(where: Path, text: str) -> None:
    """Follows the host's file at each start, unless somebody has edited the container's: then it is theirs. The hash of
    what we wrote is beside it, as Docker has it."""
    path, mark = where / "resolv.conf", where / "resolv.conf.hash"
    if path.exists() and mark.exists() and mark.read_text() != _digest(path.read_bytes()):
        return
    path.write_text(text)
    mark.write_text(_digest(text.encode()))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def only_loopback_servers() -> bool:
    """The host names servers, but none that a container can reach by itself."""
    text = host_resolv_conf()
    return bool(files.all_servers(text)) and not files.name_servers(text)
