"""``chaos``: failure on purpose, with a check before, during and after it, and the times that it took."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
from typing import Any

from dockyard.cli.flags import Options, UsageError
from dockyard.cli.shell import Shell
from dockyard.compose import chaos as trouble
from dockyard.compose.canonical import duration
from dockyard.compose.faults import VERBS, Fault, Strength

MOST_SECONDS = 86_400
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}

FLAGS = {
    "chaos": """
    --abort-after N     Stop when so many checks in a row fail
    --check URL...      What must answer before, during and after
    --delay TIME        How late packets are (delay; default: 200ms)
    --duration TIME     How long (default: 5s)
    --jitter TIME       How much the delay varies (delay; default: 0ms)
    --json              Output the report as JSON
    --percent PERCENT   Packets of a hundred that get lost (loss; default 20)
    --rate RATE         Bits a second, as in 10mbit (bandwidth; default: 1mbit)
    --size N            MiB to fill (memory, disk; default: 64)
""",
}
EXAMPLES = {
    "chaos": "dockyard chaos kill --check http://127.0.0.1:8080/ shop-web-1\n"
    "dockyard chaos pause --duration 10s --abort-after 20 --check http://127.0.0.1:8080/ shop-db-1\n"
    "dockyard chaos delay --delay 300ms --jitter 100ms --check http://127.0.0.1:8080/ shop-db-1",
}


def chaos(shell: Shell, options: Options) -> int:
    """0 when the checks passed all the time or again at the end, 1 otherwise."""
    verb, *names = options.words
    if verb not in VERBS:
        known = "\n".join(f"  {name:<9} {told}" for name, told in VERBS.items())
        raise UsageError(f"unknown verb {verb!r}; there are\n{known}")
    if not names:
        raise UsageError("name a container")
    for url in options.all("check"):
        if not url.startswith("http://"):
            raise UsageError(f"--check {url}: only http:// can be checked")
    seconds, strength = _seconds(options, "duration", "5s"), _strength(options)
    fault = Fault(shell.client, verb, names, strength)
    signal.signal(signal.SIGTERM, _interrupted)
    report = trouble.run(fault, options.all("check"), seconds, options.number("abort-after"), shell.complain)
    if options.on("json"):
        shell.say(json.dumps({**dataclasses.asdict(report), "passed": report.passed}))
        return 0 if report.passed else 1
    shell.say(f"checks: {report.checks}, failed: {report.failed}")
    if report.failed:
        shell.say(f"first failure: {_told(report.detected)} after the injection")
        shell.say(f"steady again:  {_told(report.recovered)}")
    shell.say("passed" if report.passed else "failed")
    return 0 if report.passed else 1


def _interrupted(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _strength(options: Options) -> Strength:
    """Raises UsageError."""
    try:
        percent = float(options.text("percent", "20"))
    except ValueError:
        percent = -1.0
    if not 0 < percent <= 100:
        raise UsageError(f"--percent {options.text('percent')}: must be above 0 and at most 100")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)bit", options.text("rate", "1mbit").lower())
    bits = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 8_000 <= bits <= 1e12:
        raise UsageError(f"--rate {options.text('rate')}: such as 512kbit, 10mbit or 1gbit; 8kbit at least")
    return Strength(
        options.number("size", 64), _seconds(options, "delay", "200ms"), _seconds(options, "jitter", "0ms"), percent,
        int(bits / 8),
    )  # fmt: skip


def _seconds(options: Options, name: str, default: str) -> float:
    """Raises UsageError."""
    try:
        value = duration(options.text(name, default))
    except ValueError as wrong:
        raise UsageError(f"--{name}: {wrong}") from None
    if not 0 <= value <= MOST_SECONDS:
        raise UsageError(f"--{name}: at most {MOST_SECONDS} s")
    return value


def _told(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"
