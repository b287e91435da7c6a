"""Trace: why A does or does not reach B, hop by hop.

Nouns: Flow (from, to, protocol, port), Step (one hop: where, verdict, what was read, rule and cure if lost),
Path (the steps and the last word).

The static half walks a modelled packet through facts (pure). The dynamic half sends one connection from A's own
namespace and compares the counters of rules that drop, before and after: a path that looks sound and yet loses the
packet ends as "unknown, lost after hop X", with whatever counter moved.
"""

from dockyard.doctor.trace.model import Flow, Path, Step
from dockyard.doctor.trace.walk import parse_flow, walk_flow

__all__ = ["Flow", "Path", "Step", "parse_flow", "walk_flow"]
