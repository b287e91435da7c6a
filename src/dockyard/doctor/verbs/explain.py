"""`dockyard explain CODE | "MESSAGE"`: what an error can mean, and the observation that decides."""

from __future__ import annotations

import argparse
import os
import re
import textwrap

import msgspec

from dockyard.doctor.collect import collect
from dockyard.doctor.examine import examine
from dockyard.doctor.facts import Facts, Registry
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Finding, Report
from dockyard.doctor.report import render
from dockyard.doctor.rule import Rule

DESCRIPTION = "Explain a finding's code, or what an error message can mean and which observation decides."
EXIT_UNKNOWN = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", help="a code such as NET-03 or DY-NET-014, or an error message (and its command)")
    parser.add_argument("--static", action="store_true", help="only say what it can mean; do not look at this host")


def run(options: argparse.Namespace) -> int:
    text = " ".join(options.what)
    found = matching(text)
    by_code = re.fullmatch(r"[A-Z]{3}-\d\d|DY-.*", text.strip().upper()) is not None
    here = [] if options.static or by_code else observed(text, found, options.host)
    if options.json:
        import json

        keys = ("id", "title", "explain", "decides", "severity", "causes", "lookalikes")
        rows = [{key: getattr(rule, key) for key in keys} for rule in found]
        mine = {item.id: msgspec.to_builtins(item) for item in here}
        print(json.dumps([row | ({"here": mine[row["id"]]} if row["id"] in mine else {}) for row in rows], indent=2))
    elif not found:
        print(
            f"no fault is known for: {text}\nrun `dockyard doctor`: it compares the host with what should be, message or not"
        )
    elif re.fullmatch(r"[A-Z]{3}-\d\d", text.strip().upper()):
        print(page(found[0]))
    else:
        print(choices(text, found, decided=bool(here)))
        if here:
            print("\non this host:\n" + render(Report(here, [])), end="")
    return 0 if found else EXIT_UNKNOWN


def observed(text: str, rules: list[Rule], host: str = "") -> list[Finding]:
    """What this host shows of the faults that the message can mean; nothing where no engine answers."""
    from dockyard.client import Client

    facts = collect(Client.from_env(host=host), os.environ)
    if facts.engine.reach != "ok":
        return []
    return said_findings(msgspec.structs.replace(facts, said=text, registries=_registries(text, facts)), rules)


_REFERENCE = re.compile(r"\b(push|pull|run|to)\b:? +\[?((?:[\w-]+\.[\w.-]+|localhost|[\w.-]+:\d+)[\w.:-]*/[\w./:@-]+)")


def _registries(text: str, facts: Facts) -> list[Registry]:
    """The registry of the image that the message is about, asked."""
    from dockyard.doctor.collect.registry import read_registry

    match = _REFERENCE.search(text)
    return [read_registry(match[2].rstrip("]:"), facts, image=True, push=match[1] != "pull")] if match else []


def said_findings(facts: Facts, rules: list[Rule]) -> list[Finding]:
    """Findings of all rules that are among what the message can mean: one module's detector serves its look-alikes."""
    ids = {rule.id for rule in rules}
    return [item for item in examine(facts, all_rules()).findings if item.id in ids]


def matching(text: str) -> list[Rule]:
    """The rule of a code, else the rules whose patterns match the message, the most specific pattern first."""
    code = text.strip().upper()
    by_code = [rule for rule in all_rules() if rule.id == code]
    if by_code:
        return by_code
    if code.startswith("DY-"):
        return _of_error(code)
    scored = [(max(len(p) for p in rule.messages if re.search(p, text, re.IGNORECASE)), rule) for rule in all_rules()
              if rule.matches(text)]  # fmt: skip
    return [rule for _, rule in sorted(scored, key=lambda pair: -pair[0])]


def _of_error(code: str) -> list[Rule]:
    """An engine's error code names the check that confirms it."""
    import dockyard.client.errors  # noqa: F401 - declares its codes
    from dockyard.errors import CATALOGUE

    entry = CATALOGUE.get(code)
    return [rule for rule in all_rules() if entry is not None and rule.id == entry.check]


def page(rule: Rule) -> str:
    """The long form of one fault."""
    lines = [f"{rule.id}  {rule.title}", "", *textwrap.wrap(rule.explain, 100), ""]
    lines.append(f"decided by   {rule.decides or 'see the evidence of the finding'}")
    lines.append(f"severity     {rule.severity.value}")
    for name, ids in (("can cause", rule.causes), ("look-alikes", rule.lookalikes)):
        known = [other for other in all_rules() if other.id in ids]
        for index, other in enumerate(known):
            lines.append(f"{name if index == 0 else '':<13}{other.id} {other.title}")
    if rule.detect is None:
        lines.append("checked      together with its look-alikes, or only on request (trace, registry, build)")
    return "\n".join(lines)


def choices(text: str, found: list[Rule], *, decided: bool = False) -> str:
    """What a message can mean."""
    lines = [f'"{text}" can mean {len(found)} things; what decides:', ""]
    for rule in found:
        lines.append(f"  {rule.id:<8}{rule.title}")
        lines.append(f"          {rule.decides}")
    if not decided:
        lines += ["", "`dockyard doctor` makes these observations; `dockyard explain CODE` tells more."]
    return "\n".join(lines)
