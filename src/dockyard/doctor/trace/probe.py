"""The dynamic half: one connection from the source's own namespace, and the counters that it moved."""

from __future__ import annotations

import errno
import socket
import time

from dockyard.doctor.collect.firewall import read_firewall_of
from dockyard.doctor.collect.namespaces import inside
from dockyard.doctor.facts import Firewall
from dockyard.doctor.firewall import read_firewall
from dockyard.doctor.trace.model import Flow

PROBE_TIMEOUT = 0.5  # a lost SYN is sent again after 1 s; a trace ends within a second
FOLLOWED_TIMEOUT = 0.2  # a second probe, only to be seen on its way: what drops it does so at once
_DNS_QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01"


def send(pid: int, flow: Flow, seconds: float = PROBE_TIMEOUT) -> tuple[str, float]:
    """Connect from the namespace of ``pid``: answered, refused, timeout or unreachable; and milliseconds."""
    start = time.perf_counter()
    try:
        outcome = inside(pid, lambda: _tcp(flow, seconds) if flow.proto == "tcp" else _udp(flow, seconds), seconds * 3)
    except (OSError, TimeoutError):
        outcome = "timeout"
    return outcome, round((time.perf_counter() - start) * 1000, 1)


def _tcp(flow: Flow, seconds: float) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        return _outcome(sock.connect_ex((flow.address, flow.port)))


def _udp(flow: Flow, seconds: float) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(seconds)
        try:
            sock.connect((flow.address, flow.port))
            sock.send(_DNS_QUERY if flow.port == 53 else b"\0")
            sock.recv(512)
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return _outcome(error.errno or 0)
    return "answered"


def _outcome(code: int) -> str:
    if code == 0:
        return "answered"
    if code == errno.ECONNREFUSED:
        return "refused"
    return "timeout" if code in (errno.EAGAIN, errno.ETIMEDOUT, errno.EINPROGRESS) else "unreachable"


def counters(pid: int) -> Firewall:
    return read_firewall_of(pid)[0]


def moved(before: Firewall, after: Firewall) -> list[str]:
    """Dropping rules and policies whose packet counters rose."""
    old, found = read_firewall(before), []
    for key, chain in read_firewall(after).chains.items():
        was = old.chains.get(key)
        if was is None:
            continue
        if chain.policy in ("drop", "reject") and (chain.policy_packets or 0) > (was.policy_packets or 0):
            found.append(f"{chain.place}: policy {chain.policy}")
        for rule, earlier in zip(chain.rules, was.rules, strict=False):
            if rule.verdict.kind in ("drop", "reject") and (rule.packets or 0) > (earlier.packets or 0):
                found.append(f"{chain.place}: {rule.text}")
    return found
