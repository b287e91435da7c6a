"""From facts to a report: run every rule, then fold consequences below their root, then rank. Pure.

A rule that fails on odd facts ends as "could not check" (with the failure as reason) and disturbs no other rule.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from msgspec.structs import replace

from dockyard.doctor.facts import Facts
from dockyard.doctor.finding import Check, Confidence, Finding, Report, Severity, State
from dockyard.doctor.rule import Rule
from dockyard.doctor.view import View
from dockyard.errors import NotFound

_SEVERITY = {Severity.FAULT: 0, Severity.RISK: 1, Severity.ADVICE: 2}
_CONFIDENCE = {Confidence.PROVED: 0, Confidence.LIKELY: 1, Confidence.POSSIBLE: 2}
_LISTS = {"container": "ps -a", "network": "network ls"}
API_SECTIONS = {"containers", "networks", "volumes", "images", "events", "usage"}


def examine(facts: Facts, rules: Iterable[Rule], *, subject: str = "") -> Report:
    """Run ``rules`` over ``facts``. ``subject`` ("container:web") keeps only findings that concern it."""
    start = time.perf_counter()
    view = View(facts)
    findings: list[Finding] = []
    checks: list[Check] = []
    table = {}
    for rule in rules:
        table[rule.id] = rule
        if rule.detect is not None:
            check, found = _run(rule, view)
            checks.append(check)
            findings.extend(found)
    if subject:
        findings = [item for item in findings if concerns(item, subject, view)]
    return Report(
        rank(fold(findings, table)),
        checks,
        subject,
        collect_ms=round(sum(facts.collect_ms.values()), 1),
        rules_ms=round((time.perf_counter() - start) * 1000, 1),
        missing=facts.missing,
    )


def check_name(facts: Facts, kind: str, name: str) -> None:
    """Raises NotFound for a container or network that the engine, which answered, does not have: to say "nothing found"
    of it would be a lie."""
    asked = facts.engine.reach == "ok" and f"{kind}s" not in facts.missing
    if name and asked and kind in _LISTS and not View(facts).knows(kind, name):
        raise NotFound(f"no such {kind}: {name}", hint=f"dockyard {_LISTS[kind]} lists them")


def _run(rule: Rule, view: View) -> tuple[Check, list[Finding]]:
    start = time.perf_counter()
    lacking = unavailable(rule.needs, view.facts)
    if lacking is not None:
        return Check(rule.id, State.UNKNOWN, lacking), []
    assert rule.detect is not None
    try:
        found = list(rule.detect(view))
    except Exception as error:  # noqa: BLE001 - facts come from hostile hosts; one rule must not end the report
        return Check(rule.id, State.UNKNOWN, f"the check itself failed: {type(error).__name__}: {error}"), []
    spent = round((time.perf_counter() - start) * 1000, 2)
    if found:
        return Check(rule.id, State.FINDING, "", spent), found
    partly = _partly_missing(rule.needs, view.facts)
    return Check(rule.id, State.UNKNOWN if partly else State.OK, partly, spent), []


def unavailable(needs: tuple[str, ...], facts: Facts) -> str | None:
    """Why the needed sections cannot be used, None if they can."""
    for need in needs:
        if need in facts.missing:
            return f"{need}: {facts.missing[need]}"
        if need in API_SECTIONS and facts.engine.reach != "ok":
            return f"{need}: the engine does not answer ({facts.engine.reach})"
    return None


def _partly_missing(needs: tuple[str, ...], facts: Facts) -> str:
    lost = [key for key in facts.missing if "." in key and key.split(".")[0] in needs]
    return f"not seen: {', '.join(sorted(lost)[:5])}" if lost else ""


def concerns(found: Finding, subject: str, view: View) -> bool:
    """Is this finding about the subject, or about what it stands on (its networks, the host)?"""
    kind, _, name = subject.partition(":")
    if found.object.kind == kind and (name in (found.object.name, found.object.id)):
        return True
    if kind == "container":
        match = next((c for c in view.containers if c.name == name or (name and c.id.startswith(name))), None)
        if match is None:
            return False
        own = {match.id, *(str(value.get("NetworkID", "")) for value in match.networks.values())}
        around = found.object.kind in ("host", "engine") and not found.affects and found.severity is Severity.FAULT
        return bool(own & set(found.affects)) or around
    if kind == "network":
        match_ids = {network.id for network in view.networks if name in (network.name, network.id[:12], network.id)}
        return bool(match_ids & set(found.affects)) or (found.object.kind == "host" and found.id.startswith("NET"))
    return False


def fold(findings: list[Finding], rules: dict[str, Rule]) -> list[Finding]:
    """One root, its consequences below it: B folds under A when A's rule causes B and they share an object."""
    roots = rank(findings)
    reach = {key: _reach(key, rules) for key in {item.id for item in roots}}
    by_id: dict[str, list[tuple[int, Finding]]] = {}
    for place, item in enumerate(roots):
        by_id.setdefault(item.id, []).append((place, item))
    below: dict[str, list[Finding]] = {}
    gone: set[str] = set()
    for child in roots:
        able = [key for key in by_id if child.id in reach[key] and key not in reach[child.id]]
        sharing = (pair for key in able for pair in by_id[key] if pair[1] is not child and _share(pair[1], child))
        parent = min(sharing, key=lambda pair: pair[0], default=None)
        if parent is not None:
            below.setdefault(parent[1].key, []).append(child)
            gone.add(child.key)
    return [replace(root, folded=_descend(root, below)) for root in roots if root.key not in gone]


def _descend(root: Finding, below: dict[str, list[Finding]]) -> list[Finding]:
    found: list[Finding] = []
    for child in below.get(root.key, []):
        found.append(child)
        found.extend(_descend(child, below))
    return found


def _reach(rule_id: str, rules: dict[str, Rule]) -> set[str]:
    """Everything that a fault can bring about, at any distance."""
    seen: set[str] = set()
    todo = [rule_id]
    while todo:
        rule = rules.get(todo.pop())
        for effect in rule.causes if rule else ():
            if effect not in seen:
                seen.add(effect)
                todo.append(effect)
    return seen


def _share(parent: Finding, child: Finding) -> bool:
    return not parent.affects or not child.affects or bool(set(parent.affects) & set(child.affects))


def rank(findings: list[Finding]) -> list[Finding]:
    return sorted(
        findings,
        key=lambda item: (_SEVERITY[item.severity], _CONFIDENCE[item.confidence], -len(item.folded)),
    )
