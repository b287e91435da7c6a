"""`dockyard trace A B[:PORT][/PROTO]`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from dockyard.client import Client
from dockyard.doctor.collect import collect
from dockyard.doctor.facts import Facts
from dockyard.doctor.trace import Flow, Path, parse_flow, walk_flow
from dockyard.doctor.trace.follow import follow, last
from dockyard.doctor.trace.probe import FOLLOWED_TIMEOUT, counters, moved, send
from dockyard.doctor.trace.walk import find
from dockyard.doctor.view import View

DESCRIPTION = "Follow a connection from A (a container, host, outside) to B (a container, name, address), hop by hop."
_MARK = {"ok": "✓", "lost": "✗", "unknown": "?", "note": "·"}
EXIT = {"arrives": 0, "lost": 2, "unknown": 3}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help='container, "host" or "outside"')
    parser.add_argument("target", help="NAME[:PORT][/tcp|/udp]; NAME is a container, host, address or name")
    parser.add_argument("--static", action="store_true", help="send nothing, walk the model only")
    parser.add_argument("--from-bundle", default="", metavar="FILE", help="walk saved facts (nothing is sent)")


def run(options: argparse.Namespace) -> int:
    flow = parse_flow(options.source, options.target)
    if options.from_bundle:
        from dockyard.doctor.bundle import load

        facts, static = load(options.from_bundle), True
    else:
        facts, static = collect(Client.from_env(host=options.host), os.environ), options.static
    path = trace(facts, flow, static=static)
    print(msgspec.json.encode(path).decode() if options.json else render(path))
    return EXIT[path.verdict]


def trace(facts: Facts, flow: Flow, *, static: bool) -> Path:
    """Walk, and where there is a namespace to send from, send."""
    view = View(facts)
    path = walk_flow(view, flow)
    container = find(view, flow.source)
    process = view.process(container) if container else None
    pid = process.pid if process else facts.engine.pid if flow.source == "host" else 0
    if static or not pid or not path.flow.address or not path.flow.port or flow.proto not in ("tcp", "udp"):
        return path
    wanted = _probe_flow(path, flow)
    outcome, spent = send(pid, wanted)
    path = replace(path, probe=outcome, probe_ms=spent)
    return path if outcome == "answered" else _follow(facts, path, pid, wanted)


def _follow(facts: Facts, path: Path, pid: int, flow: Flow) -> Path:
    """Send once more with the kernel's trace on; where that cannot be, compare the counters of dropping rules."""
    engine = facts.engine.pid or os.getpid()
    source = _source_address(View(facts), path) if pid != facts.engine.pid else ""
    try:
        _, hops = follow(engine, flow, source, lambda: send(pid, flow, FOLLOWED_TIMEOUT))
    except (OSError, TimeoutError):
        hops = []
    if last(hops) is not None:
        return replace(path, followed=hops)
    return replace(path, followed=hops, moved=moved(facts.firewall, counters(engine)))


def _source_address(view: View, path: Path) -> str:
    """The address that the source sends from, where it has only one; empty: any."""
    container = find(view, path.flow.source)
    addresses = {str(value.get("IPAddress")) for value in container.networks.values()} if container else set()
    return addresses.pop() if len(addresses) == 1 else ""


def _probe_flow(path: Path, asked: Flow) -> Flow:
    """What a program would connect to: the address before translation."""
    return replace(path.flow, address=asked.target, port=asked.port) if asked.target[:1].isdigit() else path.flow


def render(path: Path) -> str:
    return "\n".join(_lines(path))


def _lines(path: Path) -> Iterator[str]:
    flow = path.flow
    yield f"{flow.source} → {flow.target}{f':{flow.port}' if flow.port else ''} {flow.proto}: {path.verdict}"
    for step in path.steps:
        yield f"  {_MARK[step.verdict]} {step.where:<12}{step.detail}{f'   [{step.code}]' if step.code else ''}"
        if step.rule and step.verdict != "ok":
            yield f"    {'rule':<12}{step.rule}"
        if step.fix:
            for text in (step.fix.text, *step.fix.commands):
                yield f"    {'fix':<12}{text}"
    if path.probe:
        yield f"  {'✓' if path.probe == 'answered' else '✗'} {'probe':<12}{path.probe} after {path.probe_ms} ms"
    stop = last(path.followed)
    if stop is not None:
        yield f"    {'followed':<12}{len(path.followed)} steps, ended by {stop}"
    for place in path.moved:
        yield f"    {'counted by':<12}{place}"
    if path.verdict == "unknown":
        where = path.steps[-1].where if path.steps else "source"
        yield f"  ? unknown: every hop of this host looks right; lost after hop {where}"
