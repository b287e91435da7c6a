"""``python -m bench.faults --engine dockerd --out FILE``: inject every fault, ask the doctor, score; hosts without a fault too.

``--page FILE...`` prints docs/doctor-scores.md from such results. A case whose probe does not behave is void and counts
for nothing; it is listed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.faults import healthy
from bench.faults.baseline import by_message, by_warnings
from bench.faults.case import Case, Verdict, diagnose, run_case
from bench.faults.lab import Lab
from dockyard.doctor.finding import Severity

FAMILIES = ("net", "start", "limits", "ports", "host", "registry")
LOOKALIKES = {
    "no such file or directory": ("CTR-04", "CTR-05", "CTR-06", "CTR-20", "CTR-03"),
    "exec format error": ("CTR-08", "CTR-09/no-shebang", "CTR-09/bom", "CTR-09/empty"),
    "permission denied": ("CTR-02/mode", "CTR-02/directory", "CTR-10", "SEC-01"),
    "exit 137": ("RES-01", "CTR-11"),
    "operation not permitted": ("SEC-04/ping", "SEC-04/chown", "SEC-04/mount", "SEC-09", "STO-08"),
    "no way out": ("NET-01", "NET-01/bridge", "NET-03/rule", "NET-03/user", "NET-03/nft-policy", "NET-03/replies", "NET-04",
                   "NET-05", "NET-10/nomaster", "NET-10/veth-down", "NET-10/bridge-down", "NET-08"),
    "published port does not answer": ("PUB-04", "PUB-05", "PUB-12/user", "PUB-12/forward"),
    "port is taken": ("PUB-01", "PUB-02", "PUB-03"),
    "name does not resolve": ("DNS-01", "DNS-03", "DNS-05", "DNS-10", "NET-15"),
    "x509": ("REG-01", "REG-03/other-name", "REG-03/common-name-only", "REG-04", "REG-05/extension", "REG-05/directory",
             "TIM-01", "TIM-02"),
    "unauthorized": ("REG-09", "REG-10", "REG-12"),
    "image cannot be pulled": ("IMG-01", "IMG-02", "IMG-03", "IMG-05", "IMG-11", "REG-02", "REG-06/nobody", "REG-06/filtered"),
    "unhealthy": ("CTR-17/no-tool", "CTR-17/wrong-port", "CTR-18"),
    "restarts again and again": ("CTR-16", "CMP-10", "NET-15"),
}  # fmt: skip


def load(families: Iterable[str]) -> list[Case]:
    return [case for name in families for case in importlib.import_module(f"bench.faults.cases_{name}").CASES]


def row(case: Case, verdict: Verdict, seconds: float, baselines: dict[str, bool]) -> dict[str, Any]:
    return {
        "case": case.label, "fault": case.id, "valid": verdict.valid, "reason": verdict.reason, "rank": verdict.rank,
        "second": verdict.rank_second, "pair": bool(case.second[0]), "false": verdict.false, "cured": verdict.cured,
        "undone": verdict.undone, "seconds": round(verdict.seconds, 3), "took": round(seconds, 1), **baselines,
    }  # fmt: skip


def run_cases(lab: Lab, cases: list[Case], *, cure: bool) -> list[dict[str, Any]]:
    rows = []
    for number, case in enumerate(cases, 1):
        if lab.kind not in case.engines:
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
        rows.append(row(case, verdict, time.monotonic() - start, named))
        mark = "void" if not verdict.valid else "ok" if verdict.rank == 1 and not verdict.false else "MISS"
        print(f"{number:3}/{len(cases)} {mark:4} {case.label:40} {verdict.reason}", file=sys.stderr, flush=True)
    return rows


def snapshot(lab: Lab) -> str:
    """What a read-only run must leave as it is, without what moves by itself: counters, link states, IPv6 detection."""
    return lab.sh("nft -s list ruleset; ip -o link | sed 's/<[^>]*>//; s/ state [A-Z]*//'; ip -4 -o addr; ip route; "
                  "ip neigh show nud permanent; "
                  "sysctl -a -r 'net.ipv4.(ip_forward|conf)' 2>/dev/null; cut -d' ' -f4-6 /proc/self/mountinfo; "
                  "ls -la /etc/docker")  # fmt: skip


def run_healthy(lab: Lab, count: int) -> list[dict[str, Any]]:
    rows = []
    for seed in range(count):
        try:
            oddities = healthy.populate(lab, seed)
            before, start = snapshot(lab), time.monotonic()
            report = diagnose(lab)
            spent = time.monotonic() - start
            alarms = [f"{item.id} {item.object}" for item in report.findings if item.severity is Severity.FAULT]
            rows.append({"seed": seed, "oddities": oddities, "alarms": alarms, "seconds": round(spent, 3),
                         "untouched": snapshot(lab) == before})  # fmt: skip
            print(f"healthy {seed + 1}/{count} {alarms or ''}", file=sys.stderr, flush=True)
        finally:
            healthy.clean(lab)
    return rows


def page(results: list[dict[str, Any]]) -> str:
    lines = [
        "# How well the doctor does", "",
        "Generated by `python -m bench.faults --page`; how to run it is in [bench/faults](../bench/faults/README.md).",
        "Each fault is injected for real in a throw-away host with a private engine; a case counts only when its probe",
        "passes before, fails after the injection, and passes again after undo.", "",
        "| | " + " | ".join(result["engine"] for result in results) + " |",
        "|---" * (len(results) + 1) + "|",
    ]  # fmt: skip
    table = [score(result) for result in results]
    for name in table[0]:
        lines.append(f"| {name} | " + " | ".join(item[name] for item in table) + " |")
    for result in results:
        lines += ["", f"## Every case on {result['engine']}", "", result["machine"], "",
                  "| case | rank | false | cured | undone | by message | seconds |", "|---|---|---|---|---|---|---|"]  # fmt: skip
        for item in result["cases"]:
            rank = f"{item['rank']} and {item['second']}" if item["pair"] else str(item["rank"])
            cells = [item["case"], rank if item["valid"] else f"void: {item['reason']}", ", ".join(item["false"]),
                     _said(item["cured"]), _said(item["undone"]), _said(item["message"] or None), f"{item['seconds']:.2f}"]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _said(value: bool | None) -> str:
    return {True: "yes", False: "NO", None: ""}[value]


def score(result: dict[str, Any]) -> dict[str, str]:
    valid = [item for item in result["cases"] if item["valid"]]
    single, pairs = [i for i in valid if not i["pair"]], [i for i in valid if i["pair"]]
    alike = {label: [i for i in single if i["case"] in names] for label, names in LOOKALIKES.items()}
    groups = [sum(i["rank"] == 1 for i in rows) / len(rows) for rows in alike.values() if rows]
    machine = [i for i in single if i["cured"] is not None]
    times = sorted(i["seconds"] for i in valid) or [0.0]
    hosts = result["healthy"]
    return {
        "single faults, valid cases": f"{len(single)} (void: {sum(not i['valid'] for i in result['cases'])})",
        "rank 1 (target 0.95)": _share(sum(i["rank"] == 1 for i in single), len(single)),
        "rank 1 to 3": _share(sum(0 < i["rank"] <= 3 for i in single), len(single)),
        "precision: true among the faults named": _share(
            sum(i["rank"] > 0 for i in single), sum((i["rank"] > 0) + len(i["false"]) for i in single)),
        "look-alikes, mean over groups (target 0.90)": f"{statistics.mean(groups):.2f} of {len(groups)} groups" if groups else "",
        "pairs, both named (target 0.75)": _share(sum(i["rank"] > 0 and i["second"] > 0 for i in pairs), len(pairs)),
        "cures that work, of those for a machine (0.95)": _share(sum(i["cured"] is True for i in machine), len(machine)),
        "undo that works": _share(sum(i["undone"] is True for i in machine), len(machine)),
        "healthy hosts with a false alarm (at most 1 in 200)": f"{sum(bool(h['alarms']) for h in hosts)} of {len(hosts)}",
        "hosts left untouched": _share(sum(h["untouched"] for h in hosts), len(hosts)),
        "seconds to a diagnosis, median and 95 %": f"{statistics.median(times):.2f}, {times[int(len(times) * 0.95)]:.2f}",
        "baseline: message matching, rank 1": _share(sum(i["message"] for i in single), len(single)),
        "baseline: a new warning of docker info": _share(sum(i["warnings"] for i in single), len(single)),
    }  # fmt: skip


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f} ({part} of {whole})" if whole else "none"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--engine", choices=("dockerd", "dockyard"), default="dockerd")
    parser.add_argument("--families", default=",".join(FAMILIES), help="which cases (default: all)")
    parser.add_argument("--pairs", action="store_true", help="masked pairs too")
    parser.add_argument("--healthy", type=int, default=0, metavar="N", help="so many healthy hosts too")
    parser.add_argument("--no-cure", action="store_true", help="do not apply the cures")
    parser.add_argument("--out", default="", help="write the results here as JSON")
    parser.add_argument("--page", nargs="+", default=[], metavar="FILE", help="print the page of these results")
    options = parser.parse_args()
    if options.page:
        print(page([json.loads(Path(name).read_text()) for name in options.page]), end="")
        return 0
    if os.geteuid():
        parser.error("needs root: it makes namespaces and starts engines")
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        lab = Lab(Path(place) / "lab", kind=options.engine)
        try:
            lab.start()
            version = str(lab.client.request("GET", "/version")["Version"])
            rows = run_cases(lab, load(filter(None, options.families.split(","))), cure=not options.no_cure)
            if options.pairs:
                rows += run_cases(lab, load(["pairs"]), cure=False)
            hosts = run_healthy(lab, options.healthy)
        finally:
            lab.stop()
    result = {"engine": f"{options.engine} {version}", "machine": _machine(), "cases": rows, "healthy": hosts}
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=1))
    for name, value in score(result).items():
        print(f"{name:55} {value}")
    return 0


def _machine() -> str:
    kernel = platform.release().partition("-")[0]
    return f"Linux {kernel} {platform.machine()}, {os.cpu_count()} processors, {time.strftime('%Y-%m-%d')}."


if __name__ == "__main__":
    sys.exit(main())
