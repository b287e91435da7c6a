"""`dockyard doctor`: the host, or one container, network, image, registry or build directory."""

from __future__ import annotations

import argparse
import os
import sys

import msgspec

from dockyard.client import Client
from dockyard.doctor.collect import collect
from dockyard.doctor.examine import examine
from dockyard.doctor.facts import Facts
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Report
from dockyard.doctor.report import render

DESCRIPTION = "Find what is wrong with this container host, why, and what cures it. Changes nothing unless told to."
SUBJECTS = ("container", "network", "image", "registry", "build", "bundle")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", nargs="?", choices=SUBJECTS, help="look at one thing; `bundle` saves the facts")
    parser.add_argument("name", nargs="?", default="", help="its name; for bundle the file to write")
    parser.add_argument("--deep", action="store_true", help="also probe with packets and walk big directories")
    parser.add_argument("--from-bundle", default="", metavar="FILE", help="examine saved facts instead of this host")
    parser.add_argument("--apply", default="", metavar="ID", help="apply this finding's cure, verify, or roll back")
    parser.add_argument("--yes", action="store_true", help="do not ask before applying")
    parser.add_argument("--silence", action="append", default=[], metavar="KEY", help="leave out ID or ID:kind:name")
    parser.add_argument("--watch", action="store_true", help="flight recorder: report changes until interrupted")
    parser.add_argument("--sarif", action="store_true", help="print SARIF 2.1.0")
    parser.add_argument("-v", "--verbose", action="store_true", help="advice too, and each check that could not run")


def run(options: argparse.Namespace) -> int:
    facts = gather(options)
    report = examine(facts, all_rules(), subject=subject_of(options))
    report = silenced(report, options.silence)
    print(show(report, options), end="")
    return report.exit_code


def gather(options: argparse.Namespace) -> Facts:
    client = Client.from_env(host=options.host)
    return collect(client, os.environ, deep=options.deep)


def subject_of(options: argparse.Namespace) -> str:
    return f"{options.subject}:{options.name}" if options.subject in ("container", "network") else ""


def silenced(report: Report, keys: list[str]) -> Report:
    if not keys:
        return report
    kept = [item for item in report.findings if item.id not in keys and item.key not in keys]
    return msgspec.structs.replace(report, findings=kept)


def show(report: Report, options: argparse.Namespace) -> str:
    if options.json:
        return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"
    return render(report, colour=sys.stdout.isatty(), verbose=options.verbose)
