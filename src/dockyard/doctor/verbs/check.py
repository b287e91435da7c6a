"""`dockyard doctor`: the host or one of its things; bundles, cures, watching."""

from __future__ import annotations

import argparse
import os
import sys

import msgspec

from dockyard.client import Client
from dockyard.doctor.collect import collect
from dockyard.doctor.examine import check_name, examine
from dockyard.doctor.facts import Facts
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Finding, Report
from dockyard.doctor.report import render
from dockyard.errors import InvalidParameter

DESCRIPTION = "Find what is wrong with this container host, why, and what cures it. Changes nothing unless told to."
SUBJECTS = ("container", "network", "image", "registry", "build", "bundle")
EXIT_HEALED, EXIT_NOT_HEALED = 0, 2


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", nargs="?", choices=SUBJECTS, help="look at one thing; `bundle` saves the facts")
    parser.add_argument("name", nargs="?", default="", help="its name; for bundle the file to write")
    parser.add_argument("--deep", action="store_true", help="also ask for disk usage, and more time for each section")
    parser.add_argument("--from-bundle", default="", metavar="FILE", help="examine saved facts instead of this host")
    parser.add_argument("--apply", default="", metavar="ID", help="apply this finding's cure, verify, or roll back")
    parser.add_argument("--yes", action="store_true", help="do not ask before applying")
    parser.add_argument("--silence", action="append", default=[], metavar="KEY", help="leave out ID or ID:kind:name")
    parser.add_argument("--watch", action="store_true", help="flight recorder: report changes until interrupted")
    parser.add_argument("--sarif", action="store_true", help="print SARIF 2.1.0")
    parser.add_argument("-v", "--verbose", action="store_true", help="advice too, and each check that could not run")


def run(options: argparse.Namespace) -> int:
    if options.subject in ("container", "network", "image", "registry", "build") and not options.name:
        raise InvalidParameter(f"cannot look at {options.subject}: give its name")
    if options.subject == "bundle":
        return _save(options)
    if options.watch:
        from dockyard.doctor.watch import watch

        return watch(Client.from_env(host=options.host))
    facts = gather(options)
    check_name(facts, options.subject or "", options.name)
    report = silenced(examine(facts, all_rules(), subject=subject_of(options)), options.silence)
    if options.apply:
        return _apply(options, facts, report)
    print(show(report, options), end="")
    return report.exit_code


def gather(options: argparse.Namespace) -> Facts:
    if options.from_bundle:
        from dockyard.doctor.bundle import load

        return load(options.from_bundle)
    if options.subject == "build":
        from dockyard.doctor.collect.build import build_facts

        return build_facts(options.name)
    client = Client.from_env(host=options.host)
    facts = collect(client, os.environ, deep=options.deep)
    if options.subject in ("registry", "image"):
        from dockyard.doctor.collect.registry import read_registry

        registry = read_registry(options.name, facts, image=options.subject == "image")
        return msgspec.structs.replace(facts, registries=[registry])
    return facts


def subject_of(options: argparse.Namespace) -> str:
    return f"{options.subject}:{options.name}" if options.subject else ""


def silenced(report: Report, keys: list[str]) -> Report:
    if not keys:
        return report
    kept = [item for item in report.findings if item.id not in keys and item.key not in keys]
    return msgspec.structs.replace(report, findings=kept)


def show(report: Report, options: argparse.Namespace) -> str:
    if options.sarif:
        from dockyard import __version__
        from dockyard.doctor.sarif import to_sarif

        return msgspec.json.format(msgspec.json.encode(to_sarif(report, __version__)), indent=2).decode() + "\n"
    if options.json:
        return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"
    return render(report, colour=sys.stdout.isatty(), verbose=options.verbose)


def _save(options: argparse.Namespace) -> int:
    from dockyard.doctor.bundle import save

    path = options.name or "dockyard-doctor.json.gz"
    size = save(collect(Client.from_env(host=options.host), os.environ, deep=True), path)
    print(f"{path}: {size} bytes, secrets stripped; examine it with: dockyard doctor --from-bundle {path}")
    return 0


def _apply(options: argparse.Namespace, facts: Facts, report: Report) -> int:
    from dockyard.doctor.cure import Runner, apply, choose

    if options.from_bundle:
        raise InvalidParameter("cannot apply a cure to a bundle")
    found = choose(report, options.apply)
    if not options.yes and not _agreed(found):
        return EXIT_NOT_HEALED
    outcome = apply(
        found,
        Runner(facts.engine.pid, facts.engine.host),
        lambda: examine(gather(options), all_rules(), subject=subject_of(options)),
    )
    if options.json:
        print(msgspec.json.encode(outcome).decode())
    else:
        for command in outcome.ran:
            print(f"  ran       {command}")
        print(
            f"{outcome.state}: {outcome.detail}" + (f"; undo kept in {outcome.undo_file}" if outcome.undo_file else "")
        )
    return EXIT_HEALED if outcome.state == "healed" else EXIT_NOT_HEALED


def _agreed(found: Finding) -> bool:
    assert found.fix is not None
    print(f"{found.id} {found.object}: {found.fix.text}", *found.fix.commands, sep="\n  ")
    if found.fix.risk:
        print(f"  risk: {found.fix.risk}")
    if not sys.stdin.isatty():
        print("not applied: no terminal to ask on (use --yes)")
        return False
    return input("apply? [y/N] ").strip().lower() in ("y", "yes")
