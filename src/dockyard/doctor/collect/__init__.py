"""Collectors: read-only, bounded, and never in the way of each other.

Nouns: a section (one key of `Facts.missing`), read by one collector in a thread of its own. A section that fails or
takes longer than the time left is named in `missing` with its reason; the others are not disturbed.

Invariants: nothing on the host is changed (no write to /proc or /sys, no link, rule or mount made; outside programs
are only `nft list` and `iptables-save`). No waiting without a bound: a file system that hangs keeps its thread, which
is a daemon thread, and the report goes on without it.
"""

from dockyard.doctor.collect.gather import DEEP_SECONDS, QUICK_SECONDS, collect

__all__ = ["DEEP_SECONDS", "QUICK_SECONDS", "collect"]
