"""``python -m bench.faults --engine dockerd --out FILE``: inject every fault, ask the doctor, score; hosts without a fault too.

``--page FILE...`` prints docs/doctor-scores.md from such results. A case whose probe does not behave is void and counts
for nothing; it is listed. ``--out`` is written after each case, so that a stopped run goes on; ``--part`` shares it out.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.faults import catalogue, healthy, speed
from bench.faults.baseline import by_message, by_warnings
from bench.faults.case import Case, Verdict, diagnose, run_case
from bench.faults.lab import Lab
from bench.faults.page import page, score
from dockyard.doctor.finding import Severity

FAMILIES = ("net", "start", "limits", "ports", "host", "registry", "refused", "audit", "build", "compose", "more")
def load(families: Iterable[str]) -> list[Case]:
    return [case for name in families for case in importlib.import_module(f"bench.faults.cases_{name}").CASES]


def row(case: Case, verdict: Verdict, seconds: float, baselines: dict[str, bool]) -> dict[str, Any]:
    return {
        "case": case.label, "fault": case.id, "valid": verdict.valid, "reason": verdict.reason, "rank": verdict.rank,
        "second": verdict.rank_second, "pair": bool(case.second[0]),
        "cascade": bool(case.folds), "folded": verdict.folded, "false": verdict.false, "cured": verdict.cured,
        "undone": verdict.undone, "seconds": round(verdict.seconds, 3), "took": round(seconds, 1),
        "cited": len(verdict.readings), "confirmed": sum(item.confirmed is True for item in verdict.readings),
        "refuted": [str(item) for item in verdict.readings if item.confirmed is not True], **baselines,
    }  # fmt: skip


def run_cases(lab: Lab, cases: list[Case], kept: Kept, *, cure: bool) -> None:
    for number, case in enumerate(cases, 1):
        if lab.kind not in case.engines or case.label in kept.labels:
            continue
        start, named = time.monotonic(), {"message": False, "warnings": False}
        try:
            before = by_warnings(lab)

            def look(lab: Lab, case: Case = case, before: set[str] = before, named: dict[str, bool] = named) -> Any:
                report = (case.diagnose or diagnose)(lab)
                named.update(message=by_message(lab, case), warnings=bool(by_warnings(lab) - before))
                return report

            verdict = run_case(lab, dataclasses.replace(case, diagnose=look), cure=cure)
        except Exception as error:  # noqa: BLE001 - one case must not end the run; it is void and said
            verdict = Verdict(case.label, False, f"{type(error).__name__}: {error}"[:200])
        kept.add("cases", row(case, verdict, time.monotonic() - start, named))
        first = verdict.rank == 1 or (case.second[0] and verdict.rank and verdict.rank_second)
        good = first and not verdict.false and (not case.folds or verdict.folded)
        mark = "void" if not verdict.valid else "ok" if good else "MISS"
        print(f"{number:3}/{len(cases)} {mark:4} {case.label:40} {verdict.reason}", file=sys.stderr, flush=True)
        if mark == "MISS" and verdict.report is not None:
            said = [f"{item.key} (folded: {', '.join(sorted({below.id for below in item.folded}))})" for item in verdict.report.findings]
            print(f"         named: {'; '.join(said) or 'nothing'}; wanted {case.id}:{case.object}", file=sys.stderr, flush=True)
        for item in verdict.readings:
            if item.confirmed is not True:
                print(f"         {item}", file=sys.stderr, flush=True)


class Kept:
    """Results so far, written after each case, so that a run that was stopped goes on where it was."""

    def __init__(self, path: str, engine: str, *, fresh: bool) -> None:
        self.path = Path(path) if path else None
        self.result: dict[str, Any] = {"engine": engine, "machine": _machine(), "cases": [], "healthy": [], "speed": {}}
        if self.path and self.path.exists() and not fresh:
            found = json.loads(self.path.read_text())
            if found["engine"] == engine:
                self.result = found

    @property
    def labels(self) -> set[str]:
        return {item["case"] for item in self.result["cases"]}

    @property
    def seeds(self) -> set[int]:
        return {item["seed"] for item in self.result["healthy"]}

    def add(self, key: str, item: dict[str, Any]) -> None:
        self.result[key].append(item)
        self.write()

    def write(self) -> None:
        if self.path:
            new = self.path.with_name(self.path.name + ".new")
            new.write_text(json.dumps(self.result, indent=1))
            new.replace(self.path)


def snapshot(lab: Lab) -> str:
    """What a read-only run must leave as it is, without what moves by itself: counters, link states, IPv6 detection."""
    return lab.sh("nft -s list ruleset; ip -o link | sed 's/<[^>]*>//; s/ state [A-Z]*//'; ip -4 -o addr; ip route; "
                  "ip neigh show nud permanent; "
                  "sysctl -a -r 'net.ipv4.(ip_forward|conf)' 2>/dev/null; cut -d' ' -f4-6 /proc/self/mountinfo; "
                  "ls -la /etc/docker")  # fmt: skip


def run_healthy(lab: Lab, seeds: Iterable[int], kept: Kept) -> None:
    for seed in seeds:
        if seed in kept.seeds:
            continue
        try:
            oddities = healthy.populate(lab, seed)
            before, start = snapshot(lab), time.monotonic()
            report = diagnose(lab)
            spent = time.monotonic() - start
            alarms = [f"{item.id} {item.object}" for item in report.findings if item.severity is Severity.FAULT]
            kept.add("healthy", {"seed": seed, "oddities": oddities, "alarms": alarms, "seconds": round(spent, 3),
                                 "untouched": snapshot(lab) == before})  # fmt: skip
            print(f"healthy {seed} {alarms or ''}", file=sys.stderr, flush=True)
        finally:
            healthy.clean(lab)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--engine", choices=("dockerd", "dockyard"), default="dockerd")
    parser.add_argument("--families", default=",".join(FAMILIES), help="which cases (default: all)")
    parser.add_argument("--only", default="", help="cases whose label begins so (several: A,B)")
    parser.add_argument("--pairs", action="store_true", help="masked pairs and cascades too")
    parser.add_argument("--healthy", type=int, default=0, metavar="N", help="so many healthy hosts too")
    parser.add_argument("--speed", type=int, default=0, metavar="N", help="measure quick, deep and trace with N containers too")
    parser.add_argument("--no-cure", action="store_true", help="do not apply the cures")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="the K-th of N parts; --page puts them together")
    parser.add_argument("--out", default="", help="write the results here as JSON; what is there already is not run again")
    parser.add_argument("--fresh", action="store_true", help="run what is there already, too")
    parser.add_argument("--catalogue", action="store_true", help="print docs/doctor-catalogue.md")
    parser.add_argument("--page", nargs="+", default=[], metavar="FILE", help="print the page of these results")
    options = parser.parse_args()
    if options.page:
        print(page([json.loads(Path(name).read_text()) for name in options.page]), end="")
        return 0
    if options.catalogue:
        print(catalogue.page(load([*FAMILIES, "pairs", "cascades"])), end="")
        return 0
    if os.geteuid():
        parser.error("needs root: it makes namespaces and starts engines")
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        lab = Lab(Path(place) / "lab", kind=options.engine)
        try:
            lab.start()
            kept = _run(lab, options)
        finally:
            lab.stop()
    for name, value in score(kept.result).items():
        print(f"{name:62} {value}")
    return 0


def _run(lab: Lab, options: argparse.Namespace) -> Kept:
    version = str(lab.client.request("GET", "/version")["Version"])
    kept = Kept(options.out, f"{options.engine} {version}", fresh=options.fresh)
    which, parts = (int(word) for word in options.part.split("/"))
    cases = load([*filter(None, options.families.split(",")), *(["pairs", "cascades"] if options.pairs else [])])
    cases = [case for case in cases if case.label.startswith(tuple(options.only.split(",")))][which - 1 :: parts]
    run_cases(lab, cases, kept, cure=not options.no_cure)
    run_healthy(lab, range(which - 1, options.healthy, parts), kept)
    if options.speed:
        kept.result["speed"] = speed.measure(lab, options.speed)
        kept.write()
    return kept


def _machine() -> str:
    kernel = platform.release().partition("-")[0]
    return f"Linux {kernel} {platform.machine()}, {os.cpu_count()} processors, {time.strftime('%Y-%m-%d')}."


if __name__ == "__main__":
    sys.exit(main())
