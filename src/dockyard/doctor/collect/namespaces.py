"""Visit another process's network namespace: a thread of its own enters it, works there and ends.

setns on one thread moves only that thread (setns(2)); the thread never comes back to a pool, so nothing that runs
later can find itself in the wrong namespace.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from dockyard.doctor.collect import rtnetlink
from dockyard.doctor.facts import Listener, NetNs

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
VISIT_TIMEOUT = 10.0
_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ping_group_range",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv6/conf/all/disable_ipv6",
    "net/bridge/bridge-nf-call-iptables",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_count",
)
_LISTEN, _UDP_OPEN = "0A", "07"


def inside(pid: int, work: Callable[[], T], timeout: float = VISIT_TIMEOUT) -> T:
    """Run ``work`` in the network namespace of ``pid`` and give its result. Raises OSError, TimeoutError."""
    results: list[T] = []
    errors: list[BaseException] = []

    def visit() -> None:
        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(fd, _CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code), f"/proc/{pid}/ns/net")
            finally:
                os.close(fd)
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=visit, daemon=True, name=f"netns-of-{pid}")
    thread.start()
    thread.join(timeout)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"the visit to the namespace of {pid} took over {timeout} s")
    return results[0]


def read_netns(pid: int, resolv_conf: str | None = None) -> NetNs:
    """All facts of the network namespace of ``pid``."""
    return inside(pid, lambda: _read_here(pid, resolv_conf))


def _read_here(pid: int, resolv_conf: str | None) -> NetNs:
    links, addresses, routes, neighbours = rtnetlink.read_all()
    sysctls = {}
    names = [*_SYSCTLS, *(f"net/ipv4/conf/{link.name}/forwarding" for link in links)]
    names += [f"net/ipv4/conf/{link.name}/rp_filter" for link in links]
    for name in names:
        try:
            with open(f"/proc/sys/{name}") as file:
                sysctls[name.replace("/", ".")] = file.read().strip()
        except OSError:
            continue
    return NetNs(
        inode=os.stat(f"/proc/{pid}/ns/net").st_ino,
        links=links,
        addresses=addresses,
        routes=routes,
        neighbours=neighbours,
        listeners=read_listeners(f"/proc/{pid}/net"),
        sysctls=sysctls,
        resolv_conf=resolv_conf,
    )


def read_listeners(directory: str) -> list[Listener]:
    """Listening TCP and bound UDP sockets of ``/proc/PID/net``."""
    found = []
    for proto, state in (("tcp", _LISTEN), ("tcp6", _LISTEN), ("udp", _UDP_OPEN), ("udp6", _UDP_OPEN)):
        try:
            with open(f"{directory}/{proto}") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[3] == state:
                address, port = fields[1].split(":")
                found.append(Listener(proto, hex_address(address), int(port, 16), int(fields[9])))
    return found


def hex_address(text: str) -> str:
    """Address of /proc/net/tcp: 32-bit words in host byte order."""
    import socket

    raw = bytes.fromhex(text)
    ordered = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, ordered)
