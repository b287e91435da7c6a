"""``chaos``: failure on purpose, with a check before, during and after it, and the times that it took."""

from __future__ import annotations

import dataclasses
import json

from dockyard.cli.flags import Options, UsageError
from dockyard.cli.shell import Shell
from dockyard.compose import chaos as trouble
from dockyard.compose.canonical import duration

FLAGS = {
    "chaos": """
    --abort-after N     Stop when so many checks in a row fail
    --check URL...      What must answer before, during and after
    --duration TIME     How long (default: 5s)
    --json              Output the report as JSON
    --size N            MiB to fill (memory, disk; default: 64)
""",
}
EXAMPLES = {
    "chaos": "dockyard chaos kill --check http://127.0.0.1:8080/ shop-web-1\n"
    "dockyard chaos pause --duration 10s --abort-after 20 --check http://127.0.0.1:8080/ shop-db-1",
}


def chaos(shell: Shell, options: Options) -> int:
    """0 when the checks passed all the time or again at the end, 1 otherwise."""
    verb, *names = options.words
    if verb not in trouble.VERBS and verb not in trouble.NO_NETEM:
        known = "\n".join(f"  {name:<8} {told}" for name, told in trouble.VERBS.items())
        raise UsageError(f"unknown verb {verb!r}; there are\n{known}")
    if not names:
        raise UsageError("name a container")
    for url in options.all("check"):
        if not url.startswith("http://"):
            raise UsageError(f"--check {url}: only http:// can be checked")
    try:
        seconds = duration(options.text("duration", "5s"))
    except ValueError as wrong:
        raise UsageError(str(wrong)) from None
    fault = trouble.Fault(shell.client, verb, names, options.number("size", 64))
    report = trouble.run(fault, options.all("check"), seconds, options.number("abort-after"), shell.complain)
    if options.on("json"):
        shell.say(json.dumps({**dataclasses.asdict(report), "passed": report.passed}))
        return 0 if report.passed else 1
    shell.say(f"checks: {report.checks}, failed: {report.failed}")
    if report.failed:
        shell.say(f"first failure: {_seconds(report.detected)} after the injection")
        shell.say(f"steady again:  {_seconds(report.recovered)}")
    shell.say("passed" if report.passed else "failed")
    return 0 if report.passed else 1


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"
