"""The doctor room: what is wrong with a container host, why, and what cures it; on dockerd, podman and Dockyard.

Nouns: Facts (what collectors saw), View (facts with indices, and what must exist by the Engine API), Rule (one fault: a
pure function from a View to Findings), Finding (evidence, cause, cure), Report (roots with their consequences folded).

::

    collectors ─► Facts ─► View ─► rules ─► findings ─► fold ─► Report ─► text, JSON, SARIF
    (read-only)   (bundle)          (pure)               (causal tree)

Invariants: facts and rules are apart, so a saved bundle is examined like a live host. Rules never read the machine,
collectors never conclude. Nothing is changed without ``--apply``. A check that could not be made is reported as such
and never counts as passed. It runs no container and imports no room above client. A cure never weakens more than the
fault needs (no 0.0.0.0, no --privileged, no TLS switched off).
"""

from dockyard.doctor.examine import examine
from dockyard.doctor.facts import Facts
from dockyard.doctor.finding import Finding, Report

__all__ = ["Facts", "Finding", "Report", "examine"]
