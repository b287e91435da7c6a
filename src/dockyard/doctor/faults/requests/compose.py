"""What compose refuses or warns of, explained from its message (`Facts.said`) and, where it is about the engine's objects,
from what the engine has. The words are those of Docker Compose v2 (compose-go, pkg/compose) and of the house's own command.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from dockyard.doctor.finding import Evidence, Finding, Fix, Object, Severity
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import View

TITLES = {
    "CMP-03": "the project file refers to something that it does not define",
    "CMP-04": "a variable of the project file has no value",
    "CMP-05": "an external network or volume does not exist",
    "CMP-06": "containers of a service that the project no longer has",
    "CMP-07": "a network or volume of that name was made by hand",
    "CMP-08": "services wait for each other in a circle",
}
_PROJECT = "com.docker.compose.project"
UNDEFINED = r'(?:service )?"?([\w.-]+)"? (?:refers to|depends on) undefined (\w+) "?([\w.-]+)"?'
UNSET = r'"?(\w+)\\?"? variable is not set'
EXTERNAL = r'(?:(network|volume) )?"?([\w.-]+)"? declared as external, but could not be found'
ORPHANS = r"Found orphan containers \(\[?([^\])]*)\]?\)"
BY_HAND = r'(network|volume) (?:with name )?"?([\w.-]+)"? (?:already )?(?:exists but )?was not created by'
CYCLE = r"dependency cycle detected: ([^\n]+)"


def _match(view: View, pattern: str) -> re.Match[str] | None:
    return re.search(pattern, view.facts.said, re.IGNORECASE)


def _told(match: re.Match[str]) -> Evidence:
    return Evidence("probe", "compose's words about the file", match[0].strip())


def _found(rule: str, where: Object, symptom: str, seen: list[Evidence], fix: Fix, severity: Severity = Severity.FAULT) -> Finding:
    return finding(rule, TITLES[rule], where, symptom, seen, fix=fix, severity=severity)


def undefined(view: View) -> Iterator[Finding]:
    match = _match(view, UNDEFINED)
    if match is not None:
        service, kind, name = match.groups()
        yield _found("CMP-03", Object("build", name), f"{service} cannot be made", [_told(match)],
                     Fix(f"correct the name, or add {name} below {kind}s: at the top level of the file"))  # fmt: skip


def unset(view: View) -> Iterator[Finding]:
    match = _match(view, UNSET)
    if match is not None:
        yield _found("CMP-04", Object("build", match[1]), f"{match[1]} is taken as empty", [_told(match)],
                     Fix(f"set {match[1]} in .env beside the file (not in env_file:, which containers see), or give a default: "
                         f"${{{match[1]}:-value}}"), Severity.RISK)  # fmt: skip


def external(view: View) -> Iterator[Finding]:
    match = _match(view, EXTERNAL)
    if match is None:
        return
    kind, name = (match[1] or "network").lower(), match[2]
    known = [item.name for item in view.networks] if kind == "network" else [str(item.get("Name")) for item in view.facts.volumes]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, 1)
    seen = [Evidence("api", f"GET /{kind}s", f"no {kind} called {name}", near[0] if near else "it")]
    text = f"did you mean {near[0]}? Else create it" if near else "create it"
    yield _found("CMP-05", Object(kind, name), "the project is not started", seen,
                 Fix(text, [f"docker {kind} create {name}"], [f"docker {kind} rm {name}"], machine=True))  # fmt: skip


def orphans(view: View) -> Iterator[Finding]:
    match = _match(view, ORPHANS)
    if match is None:
        return
    names = re.split(r"[,\s]+", match[1].strip())
    here = [item for item in view.containers if item.name in names and item.labels.get(_PROJECT)]
    if here:
        seen = [Evidence("api", f"label {_PROJECT} of {item.name}", item.labels[_PROJECT]) for item in here[:5]]
        remove = [f"docker rm -f {item.name}" for item in here]
        yield _found("CMP-06", here[0].object, f"{', '.join(item.name for item in here)} stays although no service is called so", seen,
                     Fix("bring the project up with --remove-orphans, if nobody needs them", remove), Severity.RISK)  # fmt: skip


def by_hand(view: View) -> Iterator[Finding]:
    match = _match(view, BY_HAND)
    if match is None:
        return
    kind, name = match[1].lower(), match[2]
    labels = next((item.document.get("Labels") or {} for item in view.networks if item.name == name), None)
    if kind == "volume":
        labels = next((item.get("Labels") or {} for item in view.facts.volumes if item.get("Name") == name), None)
    if labels is not None and _PROJECT not in labels:
        seen = [Evidence("api", f"labels of {kind} {name}", ", ".join(sorted(labels)) or "none", _PROJECT)]
        yield _found("CMP-07", Object(kind, name), "compose does not take it over", seen,
                     Fix(f"say external: true for it in the file, or remove it and let compose make it: docker {kind} rm {name}"),
                     Severity.RISK)  # fmt: skip


def circle(view: View) -> Iterator[Finding]:
    match = _match(view, CYCLE)
    if match is not None:
        yield _found("CMP-08", Object("build", "depends_on"), f"none of {match[1].strip()} can be first", [_told(match)],
                     Fix("take one depends_on out of the circle; let that service retry its connection instead"))  # fmt: skip


RULES = (
    Rule("CMP-03", TITLES["CMP-03"], "Names of networks, volumes and services are looked up in the same file.", undefined,
         messages=(r"refers to undefined", r"depends on undefined"), decides="the names at the top level of the file"),
    Rule("CMP-04", TITLES["CMP-04"], "Values come from the shell, then .env beside the file; env_file is for containers only.", unset,
         severity=Severity.RISK, messages=(r"variable is not set",), decides="the shell and .env, in this order"),
    Rule("CMP-05", TITLES["CMP-05"], "External objects are never made by compose.", external, ("networks", "volumes"),
         messages=(r"declared as external, but could not be found",), decides="docker network ls, docker volume ls"),
    Rule("CMP-06", TITLES["CMP-06"], "A renamed or removed service leaves its containers.", orphans, ("containers",),
         severity=Severity.RISK, messages=(r"found orphan containers",), decides="the labels of these containers"),
    Rule("CMP-07", TITLES["CMP-07"], "Compose touches only what carries its labels.", by_hand, ("networks", "volumes"),
         severity=Severity.RISK, messages=(r"was not created by compose", r"not created by Docker Compose"), decides="its labels"),
    Rule("CMP-08", TITLES["CMP-08"], "depends_on is an order, and a circle has none.", circle,
         messages=(r"dependency cycle detected",), decides="the path in the message"),
)  # fmt: skip
