"""Connection tracking over netlink: forgetting flows that a change of NAT would otherwise outlive (ctnetlink).

A UDP flow has no end: as long as a client keeps sending, its packets go where the first one was translated to, though
the port now belongs to another container (moby#8795, #44742, #53384).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection

from dockyard.kernel.netlink import DUMP, Message, NetlinkSocket, attributes, pack_attributes

__all__ = ["forget_udp"]

NETLINK_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE = 1, 2, 18
_IP, _PROTO = 1, 2
_NESTED = 0x8000


def _tuple(data: bytes) -> tuple[int, int, bytes]:
    """(protocol, destination port, source address)."""
    parts = attributes(data)
    address, proto = attributes(parts.get(_IP, b"")), attributes(parts.get(_PROTO, b""))
    port = struct.unpack("!H", proto[3])[0] if 3 in proto else 0
    return (proto.get(1) or b"\0")[0], port, address.get(1) or address.get(3) or b""


def forget_udp(host_ports: Collection[int], addresses: Collection[str]) -> int:
    """Ends UDP flows sent to ``host_ports`` or answered by ``addresses``; returns how many."""
    packed = {
        socket.inet_pton(socket.AF_INET6 if ":" in item else socket.AF_INET, item) for item in addresses
    }
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        doomed = []
        head = struct.pack("!BBH", socket.AF_UNSPEC, 0, 0)
        for _, body in netlink.request(Message(_GET, DUMP, head, "list connections")):
            parts = attributes(body[4:])
            if _TUPLE_ORIG not in parts or _TUPLE_REPLY not in parts:
                continue
            protocol, port, _ = _tuple(parts[_TUPLE_ORIG])
            _, _, answered_by = _tuple(parts[_TUPLE_REPLY])
            if protocol == socket.IPPROTO_UDP and (port in host_ports or answered_by in packed):
                wanted = pack_attributes([(_TUPLE_ORIG | _NESTED, parts[_TUPLE_ORIG])])
                doomed.append(Message(_DELETE, 0, body[:4] + wanted, "forget connection", frozenset({errno.ENOENT})))
        netlink.batch(doomed)
        return len(doomed)
