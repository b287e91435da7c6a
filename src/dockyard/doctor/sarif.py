"""SARIF 2.1.0 (OASIS), so that findings show up where code scanners' do."""

from __future__ import annotations

from typing import Any

from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Finding, Report, Severity

_LEVEL = {Severity.FAULT: "error", Severity.RISK: "warning", Severity.ADVICE: "note"}


def to_sarif(report: Report, version: str) -> dict[str, Any]:
    used = {item.id for item in report.findings}
    rules = [
        {"id": rule.id, "shortDescription": {"text": rule.title}, "fullDescription": {"text": rule.explain}}
        for rule in all_rules()
        if rule.id in used
    ]
    driver = {"name": "dockyard-doctor", "version": version, "rules": rules}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": [_result(item) for item in report.findings]}],
    }


def _result(found: Finding) -> dict[str, Any]:
    lines = [f"{found.title}: {found.symptom}"]
    lines += [f"{item.locator}: {item.observed} (expected {item.expected})" for item in found.evidence]
    if found.fix:
        lines.append(f"fix: {found.fix.text}")
    place = {"name": found.object.name, "kind": found.object.kind, "fullyQualifiedName": found.key}
    return {
        "ruleId": found.id,
        "level": _LEVEL[found.severity],
        "message": {"text": "\n".join(lines)},
        "locations": [{"logicalLocations": [place]}],
        "partialFingerprints": {"finding/v1": found.key},
        "properties": {"confidence": found.confidence.value, "folded": [item.key for item in found.folded]},
    }
