"""With respect-host-firewall: the first packet of a client whom the host's input rules let in is not lost.

Translation is decided before routing, the host's input rules come after it. So a client's first packet goes to them
untranslated, and where they let it in, the table writes the client down and drops the packet (``firewall._GUARD``). TCP
sends again after 1 s, a UDP client maybe never. Here that packet is put before its interface once more, unchanged: it
passes every rule of the host as any retransmission does, and is translated now.

``client -> eth0 -> prerouting (not approved) -> input: host's rules, ours -> drop, log -> here -> eth0 -> ...dnat``

What the kernel lacks (BPF, 5.18) costs that second again and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct

from dockyard.kernel.netlink_log import LoggedPacket, PacketLog
from dockyard.kernel.xdp import FrameInjector

log = logging.getLogger(__name__)
_NO_ADDRESSES = bytes(12)
"""Both MACs, on an interface that has none."""
_CHECKSUM = {socket.IPPROTO_TCP: 16, socket.IPPROTO_UDP: 6}
"""Where in the header."""


class Admission:
    """On the daemon's loop, in the host's namespace. Raises OSError."""

    def __init__(self, group: int) -> None:
        self._injector = FrameInjector()
        try:
            self._packets = PacketLog(group)
        except OSError:
            self._injector.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._packets.fileno(), self._readable)
        self._told = False

    def close(self) -> None:
        self._loop.remove_reader(self._packets.fileno())
        self._packets.close()
        self._injector.close()

    def _readable(self) -> None:
        with contextlib.suppress(OSError):  # ENOBUFS: some were lost; their clients send again
            for item in self._packets.take():
                self._admit(item)

    def _admit(self, item: LoggedPacket) -> None:
        try:
            self._injector.inject(frame(item), item.interface)
        except OSError as error:
            if not self._told:
                log.warning("the first packet of a client to a guarded port is lost: %s", error)
            self._told = True


def frame(item: LoggedPacket) -> bytes:
    return (item.link_header or _NO_ADDRESSES + struct.pack("!H", item.protocol)) + summed(item.packet)


def summed(packet: bytes) -> bytes:
    """With its TCP or UDP checksum complete: a neighbour on the same machine leaves that to a card that never sees it,
    and a frame from outside is not believed. (RFC 9293 section 3.1, RFC 8200 section 8.1.) Other packets as they are."""
    if len(packet) < 20:
        return packet
    if packet[0] >> 4 == 4:
        begin, protocol, addresses = (packet[0] & 0xF) * 4, packet[9], packet[12:20]
    else:
        begin, protocol, addresses = 40, packet[6], packet[8:40]
    place = _CHECKSUM.get(protocol)
    if place is None or len(packet) < begin + place + 2:
        return packet
    at, size = begin + place, len(packet) - begin
    body = packet[begin:at] + b"\0\0" + packet[at + 2 :] + bytes(size % 2)
    # A sum of 16-bit words with the carry added is the number modulo 0xFFFF.
    total = int.from_bytes(addresses + struct.pack("!II", size, protocol) + body) % 0xFFFF
    return packet[:at] + struct.pack("!H", (0xFFFF - total) or 0xFFFF) + packet[at + 2 :]


def opened(group: int) -> Admission | None:
    """None where the kernel cannot, or another engine has the group."""
    try:
        return Admission(group)
    except OSError as error:
        log.warning("first packets of clients to guarded ports are lost, TCP comes again after 1 s: %s", error)
        return None
