"""The scale cube in one table: which service is reached how (``x-dockyard.balance``, or labels), and HAProxy's file for it. Pure.

::

    X  clones      every healthy instance of a service behind one address
    Y  functions   host and path choose the service
    Z  shards      a header, cookie, query value or piece of the path chooses the instance, by consistent hash; ``pin``
                   names exceptions

A backend has a fixed number of slots, one for an instance number, so that instances come and go over HAProxy's runtime
socket: no reload, and the same key stays with the same instance. What a file says goes into a configuration language,
so every word is checked against what that word may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dockyard.compose.canonical import duration
from dockyard.compose.errors import BAD_VALUE
from dockyard.compose.haproxy import EMPTY
from dockyard.compose.observe import Container
from dockyard.compose.project import Project

Json = dict[str, Any]
SLOTS = 64
KEY = "x-dockyard"
LABEL = "dockyard.balance."
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,255}")
_KNOWN = frozenset({
    "listen", "port", "host", "path", "algorithm", "shard", "pin", "check", "retries", "errors", "slowstart", "timeout",
    "breaker", "volume", "window", "pause", "eject", "budget",
})  # fmt: skip
LATENCIES = "t_latency"
"""The table with each service's histogram of latencies."""
BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds; the counter behind the last one counts all answers."""
_SAMPLES = {
    "header": "req.hdr({})",
    "cookie": "req.cook({})",
    "query": "url_param({})",
}


@dataclass(frozen=True, slots=True)
class Balanced:
    """One service behind the balancer. ``sample`` is HAProxy's expression of the shard key, "" without shards.

    ``errors``: so many failed answers in a row take an instance out until a check passes. What else answers by judgement
    (`compose/circuit.py`): ``breaker`` percent of failed answers among at least ``volume`` in ``window`` open the
    service's circuit for ``pause``; an instance that fails so often while others do not stays out for ``eject``, longer
    each time; more than ``budget`` percent of retries and there are none. Times in seconds.
    """

    service: str
    listen: str
    port: int
    host: str = ""
    path: str = ""
    algorithm: str = "roundrobin"
    sample: str = ""
    pins: tuple[tuple[str, int], ...] = ()
    check: str = ""
    retries: int = 3
    errors: int = 10
    slowstart: float = 0.0
    timeout: float = 30.0
    breaker: int = 50
    volume: int = 20
    window: float = 10.0
    pause: float = 5.0
    eject: float = 10.0
    budget: int = 20

    @property
    def backend(self) -> str:
        return f"b_{self.service}"

    @property
    def refusing(self) -> str:
        """The backend that answers for this one while its circuit is open."""
        return f"o_{self.service}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Listen address to its services, the most particular route first."""

    project: str
    fronts: Mapping[str, list[Balanced]] = field(default_factory=dict)

    @property
    def services(self) -> dict[str, Balanced]:
        return {one.service: one for rows in self.fronts.values() for one in rows}


def layout_of(project: Project) -> Layout:
    """Raises InvalidParameter with the service and the key."""
    fronts: dict[str, list[Balanced]] = {}
    for name, service in project.services.items():
        told = _labelled(service.get("labels") or {}) | dict((service.get(KEY) or {}).get("balance") or {})
        if told:
            one = _balanced(project, name, service, told)
            fronts.setdefault(one.listen, []).append(one)
    for rows in fronts.values():
        rows.sort(key=lambda one: (-len(one.path), not one.host, one.host, one.service))
        plain = [one.service for one in rows if not one.host and not one.path]
        if len(plain) > 1:
            raise _wrong(project, plain[1], "listen", f"{plain[0]} has this address already; give one of them a host or a path")
    return Layout(project.name, fronts)


def _labelled(labels: Mapping[str, Any]) -> Json:
    """``dockyard.balance.listen=8080`` says what ``x-dockyard: {balance: {listen: 8080}}`` does; pins are
    ``dockyard.balance.pin.acme=2``."""
    found: Json = {}
    pins: Json = {}
    for key, value in labels.items():
        if not key.startswith(LABEL):
            continue
        name = key.removeprefix(LABEL)
        if name.startswith("pin."):
            pins[name.removeprefix("pin.")] = value
        else:
            found[name] = value
    return found | ({"pin": pins} if pins else {})


def _wrong(project: Project, service: str, key: str, cause: str) -> Exception:
    where = project.files[0] if project.files else project.directory
    return BAD_VALUE(where=where, path=f"services.{service}.{KEY}.balance.{key}", cause=cause)


def _balanced(project: Project, name: str, service: Mapping[str, Any], told: Mapping[str, Any]) -> Balanced:
    def fail(key: str, cause: str) -> Exception:
        return _wrong(project, name, key, cause)

    def number(key: str, default: int, most: int) -> int:
        text = str(told.get(key, default))
        if not text.isdigit() or not 0 <= int(text) <= most:
            raise fail(key, f"must be a number up to {most}")
        return int(text)

    def seconds(key: str, default: float) -> float:
        try:
            return duration(told.get(key, default))
        except ValueError as wrong:
            raise fail(key, str(wrong)) from None

    def text(key: str, pattern: re.Pattern[str]) -> str:
        value = str(told.get(key) or "")
        if value and not pattern.fullmatch(value):
            raise fail(key, f"cannot be {value!r}")
        return value

    if not _WORD.fullmatch(name):
        raise fail("", "the service's name has characters that a balancer cannot have")
    for key in told:
        if key not in _KNOWN:
            raise fail(key, f"unknown key; known are {', '.join(sorted(_KNOWN))}")
    algorithm = str(told.get("algorithm", "roundrobin"))
    if algorithm not in {"roundrobin", "leastconn", "random"}:
        raise fail("algorithm", "must be roundrobin, leastconn or random")
    sample = _sample(str(told.get("shard") or ""), fail) if told.get("shard") else ""
    pins = tuple((str(value), int(slot) if str(slot).isdigit() else 0) for value, slot in (told.get("pin") or {}).items())
    for value, slot in pins:
        if not sample or not _WORD.fullmatch(value) or not 0 < slot <= SLOTS:
            raise fail("pin", f"{value!r}: needs a shard, a plain value and an instance number up to {SLOTS}")
    return Balanced(
        name, _address(str(told.get("listen") or ""), fail), number("port", _port_of(service), 65535), text("host", _HOST),
        text("path", _PATH).rstrip("/"), algorithm, sample, pins, text("check", _PATH), number("retries", 3, 20),
        number("errors", 10, 10000), seconds("slowstart", 0.0), seconds("timeout", 30.0), number("breaker", 50, 100),
        number("volume", 20, 1_000_000), max(1.0, seconds("window", 10.0)), seconds("pause", 5.0), seconds("eject", 10.0),
        number("budget", 20, 100),
    )  # fmt: skip


def _sample(text: str, fail: Any) -> str:
    kind, _, name = text.partition(":")
    if kind == "path" and name.isdigit() and 0 < int(name) < 32:
        return f"path,field({int(name) + 1},/)"
    if kind not in _SAMPLES or not _WORD.fullmatch(name):
        raise fail("shard", f"{text!r}: expected header:NAME, cookie:NAME, query:NAME or path:NUMBER")
    return _SAMPLES[kind].format(name)


def _address(text: str, fail: Any) -> str:
    """``8080`` or ``127.0.0.1:8080``."""
    match = re.fullmatch(r"(?:(\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:]+\]|\*):)?(\d{1,5})", text)
    if not match or not 0 < int(match[2]) < 65536:
        raise fail("listen", "must be PORT or ADDRESS:PORT")
    return f"{match[1] or '*'}:{int(match[2])}"


def _port_of(service: Mapping[str, Any]) -> int:
    """The first port that the service publishes or exposes; 80 otherwise."""
    for port in service.get("ports") or []:
        return int(port["target"])
    for item in service.get("expose") or []:
        return int(str(item).partition("/")[0].partition("-")[0])
    return 80


def render(layout: Layout, socket: str, metrics: str = "", states: str = "") -> str:
    """HAProxy's configuration; every slot is empty and in maintenance until the runtime socket fills it. ``states``: the
    file of the map in which circuits and retries are switched."""
    lines = [
        "global", f"    stats socket {socket} mode 600 level admin", "    stats timeout 30s", "    maxconn 4096", "",
        "defaults", "    mode http", "    timeout connect 2s", "    timeout http-request 30s", "    timeout queue 10s",
        "    timeout http-keep-alive 30s", "    option redispatch 1", "",
    ]  # fmt: skip
    if metrics:
        lines += ["frontend metrics", f"    bind {metrics}", "    timeout client 30s",
                  "    http-request use-service prometheus-exporter if { path /metrics }", ""]  # fmt: skip
    for number, (listen, rows) in enumerate(sorted(layout.fronts.items())):
        lines += [f"frontend f{number}", f"    bind {listen}", "    timeout client 60s", "    option forwardfor",
                  "    http-request set-var(txn.began) date(0,us)"]  # fmt: skip
        for one in rows:
            lines += _route(one, states)
        lines.append("")
    lines += [f"backend {LATENCIES}", f"    stick-table type string len 130 size 1k store gpc({len(BUCKETS) + 1})", ""]
    for one in layout.services.values():
        lines += [*_backend(one, states), "", *(_refusing(one) if states else ())]
    return "\n".join(lines)


def _route(one: Balanced, states: str) -> list[str]:
    conditions = []
    if one.host.startswith("*."):
        conditions.append(f"{{ req.hdr(host),field(1,:) -i -m end {one.host[1:]} }}")
    elif one.host:
        conditions.append(f"{{ req.hdr(host),field(1,:) -i {one.host} }}")
    paths = [f"{{ path {one.path} }}", f"{{ path_beg {one.path}/ }}"] if one.path else [""]
    lines = []
    for path in paths:
        where = " ".join(filter(None, [*conditions, path]))
        if states:
            state = f"{{ str({one.backend}),map_str({states}) -m str"
            # Half open: one request at a time is the probe, the others are refused as before.
            lines += [f"    use_backend {one.refusing} if {where} {state} open }}",
                      f"    use_backend {one.refusing} if {where} {state} half-open }} {{ be_conn({one.backend}) ge 1 }}"]  # fmt: skip
        lines.append(f"    use_backend {one.backend} if {where}" if where else f"    default_backend {one.backend}")
    return ["    " + " ".join(line.split()) for line in lines]


def _backend(one: Balanced, states: str) -> list[str]:
    algorithm = f"balance hash {one.sample}" if one.sample else f"balance {one.algorithm}"
    lines = [f"backend {one.backend}", f"    {algorithm}", f"    timeout server {int(one.timeout * 1000)}ms",
             f"    retries {one.retries}", "    retry-on conn-failure empty-response 503",
             # What a server has begun to do must not be done twice (RFC 9110, 9.2.2); a connection that failed may be.
             "    http-request disable-l7-retry unless { method GET HEAD PUT DELETE OPTIONS TRACE }"]  # fmt: skip
    if states:
        lines.append(f"    http-request disable-l7-retry if {{ str({one.backend}/retries),map_str({states}) -m str spent }}")
    lines += [f"    http-request track-sc0 str({one.backend}) table {LATENCIES}",
              "    http-response set-var(txn.took) date(0,us),sub(txn.began)"]  # fmt: skip
    lines += [
        f"    http-response sc-inc-gpc({index},0) if {{ var(txn.took) -m int le {int(limit * 1_000_000)} }}"
        for index, limit in enumerate(BUCKETS)
    ]
    lines.append(f"    http-response sc-inc-gpc({len(BUCKETS)},0)")
    if one.sample:
        lines += ["    hash-type consistent", "    hash-balance-factor 150"]
        lines += [f"    use-server s{slot} if {{ {one.sample} -m str {value} }}" for value, slot in one.pins]
    if one.check:
        lines += ["    option httpchk", f"    http-check send meth GET uri {one.check}"]
    slow = f" slowstart {int(one.slowstart * 1000)}ms" if one.slowstart else ""
    lines.append(
        f"    default-server check inter 500ms fall 2 rise 1 observe layer7 error-limit {one.errors} on-error mark-down{slow}"
    )
    return [*lines, f"    server-template s 1-{SLOTS} {EMPTY} disabled"]


def _refusing(one: Balanced) -> list[str]:
    told = f"the circuit of {one.service} is open: too many of its answers failed"
    return [
        f"backend {one.refusing}",
        f'    http-request return status 503 content-type text/plain string "{told}" hdr Retry-After '
        f"{max(1, int(one.pause))} hdr X-Dockyard-Circuit open", "",
    ]  # fmt: skip


def wanted(layout: Layout, containers: Iterable[Container]) -> dict[tuple[str, int], tuple[str, int]]:
    """(backend, slot) to (address, port) of each instance that should get requests: running, and healthy where it has a
    health check. While an update has two of one number, the newer one has the slot."""
    found = {}
    for item in sorted(containers, key=lambda one: (one.row.get("Created") or 0, one.name.startswith("new_"))):
        one = layout.services.get(item.service)
        if one is None or item.oneoff or item.state != "running" or not 0 < item.number <= SLOTS:
            continue
        status = str(item.row.get("Status") or "")
        if "(health: starting)" in status or "(unhealthy)" in status:
            continue
        addresses = [
            str((terms or {}).get("IPAddress") or "")
            for _, terms in sorted(((item.row.get("NetworkSettings") or {}).get("Networks") or {}).items())
        ]
        address = next((one for one in addresses if one), "")
        if address:
            found[(one.backend, item.number)] = (address, one.port)
    return found


def commands(
    before: Mapping[tuple[str, int], tuple[str, int]], after: Mapping[tuple[str, int], tuple[str, int]]
) -> list[str]:
    """Lines for the runtime socket that make of one filling of the slots the other."""
    lines = []
    for backend, slot in before:
        if (backend, slot) not in after:
            lines.append(f"set server {backend}/s{slot} state maint")
    for (backend, slot), (address, port) in after.items():
        if before.get((backend, slot)) != (address, port):
            server = f"{backend}/s{slot}"
            lines += [f"set server {server} addr {address} port {port}", f"set server {server} state ready",
                      f"set server {server} health up"]  # fmt: skip
    return lines
