"""Kernel settings under /proc/sys. ``net.*`` belongs to the namespace of the calling thread.

Names are as sysctl(8) takes them; an interface name with a dot in it (eth0.10) is written with a slash there:
``net.ipv4.conf.eth0/10.forwarding``.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["path_of", "read", "write", "write_if_present"]


def path_of(name: str) -> Path:
    """Raises ValueError for a name that would leave /proc/sys."""
    if "/" in name.split(".", 1)[0]:
        parts = [part.replace(".", "\0") for part in name.split("/")]  # the slash form: net/ipv4/ip_forward
    else:
        parts = [part.replace("/", "\0") for part in name.split(".")]
    parts = [part.replace("\0", ".") for part in parts]
    if not all(parts) or any(part in (".", "..") or "/" in part for part in parts):
        raise ValueError(f"invalid sysctl name {name!r}")
    return Path("/proc/sys", *parts)


def read(name: str) -> str | None:
    """None if this kernel or namespace does not have it."""
    try:
        return path_of(name).read_text().strip()
    except FileNotFoundError:
        return None


def write(name: str, value: str) -> None:
    """Raises OSError. Writes only a change: some files cost an RTNL lock and a notification even if nothing differs."""
    path = path_of(name)
    if path.read_text().strip() != value:
        path.write_text(value)


def write_if_present(name: str, value: str) -> bool:
    try:
        write(name, value)
    except FileNotFoundError:
        return False
    return True
