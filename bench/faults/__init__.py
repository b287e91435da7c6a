"""ContainerFaultBench: host-level faults of container hosts, injected for real, validated, and scored.

Nouns: a Lab (a throw-away host: own mount and network namespace, an uplink to an outside host, a private engine), a
Case (topology, symptom probe, injection, undo, the fault and object that a diagnosis must name), a Verdict.

A case counts only when its probe passes before, fails after the injection, and passes again after undo.
"""
