"""The catalogue of faults as a page: each row with its injector, detector and cure, or the reason why there is none.

``catalogue.tsv`` has the rows (id, how common: A every day, B regular, C occasional, cause). What exists is taken from the
code, so the page cannot claim more than there is: injectors from the cases, detectors from the rules. Only the reasons
are written by hand, below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.faults.case import Case
from dockyard.doctor.faults import FAMILIES, all_rules

ROOT = Path(__file__).parents[2]
ABSENT = {
    "TRU": "trust is not in the house",
    "CLU": "swarm and etcd are not in the house",
    "MHN": "networks over several hosts are not in the house",
}
# Rows without an injector, and why. Kernel facts were tried on Linux 6.18.
REASONS = {
    "INS-10": "this kernel has veth built in, so the failure cannot be made; detected by message and /lib/modules",
    "INS-17": "swarm is not in the house",
    "INS-18": "needs AppArmor, which this kernel lacks",
    "INS-19": "dockerd only, needs a second storage driver on one data root; not written",
    "INS-03": "detected; the injector needs a client context, not written",
    "INS-11": "not written: no detector beside the engine's own message",
    "IMG-08": "not written",
    "IMG-10": "not written: needs the engine's own blob store to be read",
    "IMG-14": "not written: stored logins are the client's",
    "REG-11": "not written: the token's signature is not checked by the doctor",
    "REG-13": "the registry's side; not written",
    "REG-14": "not written",
    "REG-15": "not written",
    "BLD-03": "detected from the Dockerfile; an injector needs a distribution's package archive, and none is in reach",
    "BLD-05": "not written",
    "CTR-12": "a lawful end: it is among the oddities of the healthy hosts, and nothing must be said",
    "CTR-15": "the code of CTR-04 to CTR-09, each of which is injected",
    "SEC-02": "needs SELinux in force, which this kernel has not",
    "SEC-03": "needs AppArmor, which this kernel lacks",
    "SEC-06": "not written: a rootless engine is needed",
    "SEC-16": "not written",
    "SEC-17": "not written: a rootless engine is needed",
    "STO-06": "needs 10 GiB of build cache; detected by /system/df",
    "STO-07": "not written: it takes a trend",
    "STO-09": "needs an XFS made without ftype, which mkfs no longer makes",
    "STO-10": "not written",
    "STO-11": "since Linux 3.18 a mount held elsewhere no longer keeps its directory busy (detach_mounts)",
    "STO-17": "needs data of drivers that no engine here writes",
    "STO-18": "not written: needs the engine's own layer store to be read",
    "STO-19": "not written",
    "NET-16": "lawful (icc=false): among the healthy hosts' oddities; trace names it",
    "NET-20": "nf_conntrack_max can be written only in the machine's own namespace; detected",
    "NET-22": "gc_thresh3 exists only in the machine's own namespace; detected",
    "NET-25": "not written",
    "NET-26": "a kernel bug that cannot be made at will",
    "DNS-02": "the host's /etc/resolv.conf would have to be a dangling link, and the lab shares /etc; detected",
    "DNS-08": "needs an image with musl, and none is in reach",
    "PUB-07": "lawful (published on loopback by choice): among the healthy hosts' oddities; trace names it",
    "PUB-10": "detected beside NET-23; injector not written",
    "RES-02": "running the whole machine out of memory would hurt its other users; detected by the kernel's line",
    "RES-06": "fs.nr_open of this machine is below the value and is not a namespace's; detected",
    "RES-12": "needs a boot option",
    "RES-14": "needs a controller that is missing; detected by GET /info",
    "TIM-04": "needs a 32-bit ARM host",
    "CFG-01": "the caller's Python environment, not the host",
    "CFG-02": "the caller's Python environment, not the host",
    "CFG-03": "the caller's tool, not the host",
    "CFG-04": "the caller's tool, not the host",
    "CFG-05": "the caller's tool, not the host",
}


def rows() -> list[tuple[str, str, str]]:
    text = Path(__file__).with_name("catalogue.tsv").read_text()
    return [(one, mark, cause) for one, mark, cause in (line.split("\t") for line in text.splitlines())]


def yielded() -> set[str]:
    """Ids that code gives to a finding, by the sources of the rules and of the audit."""
    doctor = ROOT / "src" / "dockyard" / "doctor"
    texts = [path.read_text() for family in FAMILIES for path in (doctor / "faults" / family).glob("*.py")]
    texts.append((doctor / "audit.py").read_text())
    bodies = [re.sub(r"(?s)^RULES = .*", "", text, flags=re.MULTILINE) for text in texts]
    return {found for body in bodies for found in re.findall(r'"([A-Z]{3}-\d\d)"', body)}


def line(row: tuple[str, str, str], cases: list[Case], found: set[str], explained: set[str]) -> str:
    key, mark, cause = row
    mine = [case for case in cases if case.id == key and not case.second[0] and not case.folds]
    engines = sorted({engine for case in mine for engine in case.engines})
    both = ["dockerd", "dockyard"]
    injector = f"{len(mine)} ({' and '.join(engines)})" if mine and engines != both else str(len(mine)) if mine else ""
    detector = "finding" if key in found else "explain" if key in explained else ""
    why = "" if mine else ABSENT.get(key[:3]) or REASONS.get(key, "")
    return f"| {key} | {mark} | {cause} | {injector} | {detector} | {why} |"


def counts(mark: str, cases: list[Case], found: set[str]) -> str:
    wanted = [row for row in rows() if row[1] == mark]
    here = [row for row in wanted if row[0][:3] not in ABSENT]
    done = [row for row in here if any(case.id == row[0] for case in cases)]
    seen = [row for row in here if row[0] in found]
    gone = len(wanted) - len(here)
    return f"| {mark} | {len(wanted)} | {gone} | {len(done)} of {len(here)} | {len(seen)} of {len(here)} |"


def page(cases: list[Case]) -> str:
    found, explained = yielded(), {rule.id for rule in all_rules()}
    text = [
        "# The catalogue, row by row", "",
        "Generated by `python -m bench.faults --catalogue`. A row counts as done only with an injector that is validated in",
        "the benchmark ([scores](doctor-scores.md)) and a detector that names it. *finding*: the doctor names it on a host;",
        "*explain*: `dockyard explain` knows its messages and what decides, no more. A: every day, B: regular, C: occasional.",
        "", "| | rows | of parts not in the house | with injector | with a finding |", "|---|---|---|---|---|",
        *(counts(mark, cases, found) for mark in "ABC"), "",
        "| row | | cause | injectors | detector | why no injector |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    order: Iterator[tuple[str, str, str]] = (row for mark in "ABC" for row in rows() if row[1] == mark)
    return "\n".join([*text, *(line(row, cases, found, explained) for row in order)]) + "\n"


def unexplained(cases: list[Case]) -> list[str]:
    """Rows that have neither injector nor reason: there must be none."""
    injected: set[Any] = {case.id for case in cases}
    return [key for key, _, _ in rows() if key not in injected and key[:3] not in ABSENT and key not in REASONS]
