"""The faults: one rule each, look-alikes side by side in one module because the same observation decides between them.

A module exports ``RULES``. Injectors and symptom probes are not here but in bench/faults: the product carries no code
that breaks things.
"""

from __future__ import annotations

import importlib
from functools import lru_cache

from dockyard.doctor.rule import Rule

FAMILIES: dict[str, tuple[str, ...]] = {
    "engine": ("daemon",),
    "net": ("forwarding", "links", "addresses"),
    "dns": ("resolvers",),
    "ports": ("published",),
    "storage": ("disk",),
    "resources": ("limits",),
    "privileges": ("access",),
    "start": ("exec", "ends", "depends"),
    "registry": ("reach",),
    "build": ("context",),
    "requests": ("refused", "compose"),
}


@lru_cache(maxsize=1)
def all_rules() -> tuple[Rule, ...]:
    """Every rule, in the order in which equal findings are shown. Raises ValueError if an id is used twice."""
    found: dict[str, Rule] = {}
    for family, modules in FAMILIES.items():
        for name in modules:
            for rule in importlib.import_module(f"dockyard.doctor.faults.{family}.{name}").RULES:
                if rule.id in found:
                    raise ValueError(f"rule {rule.id} is declared twice")
                found[rule.id] = rule
    return tuple(found.values())
