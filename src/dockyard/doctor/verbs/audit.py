"""`dockyard audit`: containers that could take over the host, what each reaches, and what would do."""

from __future__ import annotations

import argparse
import os

import msgspec

from dockyard.client import Client
from dockyard.doctor.audit import audit
from dockyard.doctor.collect import collect
from dockyard.doctor.examine import check_name, examine, rank
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Report
from dockyard.doctor.report import render

DESCRIPTION = "Privileged and near-privileged containers, what each can reach on the host, and what would be enough."
AUDITED = {"INS-14", "PUB-08", "RES-06"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default="", help="one container")
    parser.add_argument("--from-bundle", default="", metavar="FILE", help="audit saved facts")


def run(options: argparse.Namespace) -> int:
    if options.from_bundle:
        from dockyard.doctor.bundle import load

        facts = load(options.from_bundle)
    else:
        facts = collect(Client.from_env(host=options.host), os.environ)
    check_name(facts, "container", options.name)
    checks = examine(facts, [rule for rule in all_rules() if rule.id in AUDITED])
    found = [item for item in [*audit(facts), *checks.findings] if options.name in ("", item.object.name)]
    report = Report(rank(found), checks.checks, missing=facts.missing)
    print(msgspec.json.encode(report).decode() if options.json else render(report, verbose=True), end="")
    return report.exit_code
