"""Packets that a rule of the firewall names (``log group N``), one message each (nfnetlink_log).

The kernel sends each at once (``queue-threshold 1`` in the rule) and drops those that nobody takes in time.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from dockyard.kernel.netlink import Message, NetlinkSocket, attributes, pack_attributes

__all__ = ["LoggedPacket", "PacketLog"]

NETLINK_NETFILTER = 12
_PACKET, _CONFIG = 4 << 8, 4 << 8 | 1
_COMMAND, _MODE = 1, 2
_BIND, _COPY_PACKET = 1, 2
_HEADER, _INTERFACE, _PAYLOAD, _LINK_HEADER = 1, 4, 9, 16
LARGEST = 65535


@dataclass(frozen=True, slots=True)
class LoggedPacket:
    interface: int
    """Index of the interface it came in by; 0 if none."""
    protocol: int
    """EtherType."""
    link_header: bytes
    """b"" on interfaces without one (tun, WireGuard)."""
    packet: bytes
    """From the IP header on."""


class PacketLog:
    """The one listener of a group in this thread's network namespace. Raises OSError: EBUSY if there is another."""

    def __init__(self, group: int) -> None:
        self._netlink = NetlinkSocket(NETLINK_NETFILTER, blocking=False)
        head = struct.pack("!BBH", socket.AF_UNSPEC, 0, group)
        mode = struct.pack("!IBx", LARGEST, _COPY_PACKET)
        try:
            # The kernel answers within the send, so a socket that does not wait has the answers.
            self._netlink.batch([
                Message(_CONFIG, 0, head + pack_attributes([(_COMMAND, bytes([_BIND]))]), f"listen to packet log {group}"),
                Message(_CONFIG, 0, head + pack_attributes([(_MODE, mode)]), f"set packet log {group}"),
            ])  # fmt: skip
        except OSError:
            self._netlink.close()
            raise

    def fileno(self) -> int:
        return self._netlink.fileno()

    def close(self) -> None:
        self._netlink.close()

    def take(self) -> list[LoggedPacket]:
        """What has come; [] if nothing. Raises OSError (ENOBUFS: some were lost)."""
        return [_parsed(body) for kind, body in self._netlink.notifications() if kind == _PACKET]


def _parsed(body: bytes) -> LoggedPacket:
    parts = attributes(body[4:])
    interface = struct.unpack("!I", parts[_INTERFACE])[0] if _INTERFACE in parts else 0
    protocol = struct.unpack_from("!H", parts.get(_HEADER, b"\0\0"))[0]
    return LoggedPacket(interface, protocol, parts.get(_LINK_HEADER, b""), parts.get(_PAYLOAD, b""))
