"""Delay without netem, as a program: what a network namespace sends goes through a TUN device that waits.

::

    program of the container ─► rule: not marked ─► table 7077 ─► chaos0 (TUN) ─► here: wait ─► raw socket, marked
                                                                                                      │
                                 eth0 ◄──────────────────────── main table ◄── rule does not match ◄──┘

``python -m dockyard.compose.hop PID SECONDS JITTER`` says "ready" and works until its input ends. Should it be killed, the
device goes with it, table 7077 is empty, and the rule leads on to the main table: nothing is lost or late any more.
IPv4 only; what stays inside the container (127.0.0.0/8, its own addresses) is not late.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from dockyard.kernel import netns

DEVICE, TABLE, MARK, PRIORITY = "chaos0", "7077", 0x0C4A05, "10"
QUEUE = 20_000
"""Packets that wait at most; more are lost, as in a real queue."""
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_LARGEST = 1 << 16
_LOOSE = "2"
_RP_FILTER = Path("/proc/sys/net/ipv4/conf/all/rp_filter")
_RULE = ("priority", PRIORITY, "not", "fwmark", str(MARK), "lookup", TABLE)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def routes(table: list[dict[str, str]], addresses: dict[str, str]) -> list[tuple[str, str]]:
    """(destination, source address) of the main table's routes, for the detour to have the same. ``addresses``: device to
    its first address. Pure."""
    found = []
    for row in table:
        source = row.get("prefsrc") or addresses.get(row.get("dev", ""), "")
        if source and row.get("type", "unicast") == "unicast":
            found.append((row["dst"], source))
    return found


def _detour() -> None:
    main = json.loads(_ip("-4", "-j", "route", "show", "table", "main") or "[]")
    links = json.loads(_ip("-4", "-j", "address", "show"))
    addresses = {
        link["ifname"]: link["addr_info"][0]["local"] for link in links if link.get("addr_info") and link["ifname"] != "lo"
    }
    mtu = min(link["mtu"] for link in links if link["ifname"] in addresses)
    _ip("link", "set", DEVICE, "mtu", str(mtu), "up")
    for destination, source in routes(main, addresses):
        _ip("-4", "route", "add", destination, "dev", DEVICE, "src", source, "table", TABLE)
    _ip("-4", "rule", "add", *_RULE)


def _tun() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def _carry(device: int, seconds: float, jitter: float) -> None:
    """Until stdin ends."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    waiting: list[tuple[float, int, bytes]] = []
    number = 0
    while True:
        limit = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([device, 0], [], [], limit)
        if 0 in ready and not os.read(0, 1):
            return
        if device in ready:
            packet = os.read(device, _LARGEST)
            if packet[0] >> 4 == 4 and len(waiting) < QUEUE:
                number += 1
                due = time.monotonic() + max(0.0, seconds + random.uniform(-jitter, jitter))
                heapq.heappush(waiting, (due, number, packet))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            packet = heapq.heappop(waiting)[2]
            with contextlib.suppress(OSError):  # no way there: the packet is lost, as it would have been
                raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))


def main(pid: str, seconds: str, jitter: str) -> int:
    with netns.entered(f"/proc/{pid}/ns/net"):
        before = _RP_FILTER.read_text().strip()
        try:
            device = _tun()
            if before == "1":  # answers come by another device than a packet to their sender would take
                _RP_FILTER.write_text(_LOOSE)
            _detour()
            print("ready", flush=True)
            _carry(device, float(seconds), float(jitter))
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{getattr(error, 'stderr', '') or error}".strip().replace("\n", " "), flush=True)
            return 1
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("-4", "rule", "del", *_RULE)
            if before == "1":
                _RP_FILTER.write_text(before)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
