"""Living with firewalld: our bridges are in its zone ``trusted``.

firewalld refuses what is forwarded between interfaces that no zone of its own knows, after all other tables have accepted
it: containers of one network then do not reach each other, and with an uplink outside the default zone not the world
either. Its table may be changed by itself only (it takes the kernel's owner flag since 2.1), so it is asked by its own
program. A bridge that the administrator has put into another zone stays there. What comes from outside is translated to
published ports and accepted by firewalld (``ct status dnat``); anything else is refused by it as before.

A reload forgets what was asked; the watcher sees its table change and asks again. Only firewalld's nftables back end.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

Json = dict[str, Any]
TABLE = "firewalld"
ZONE = "trusted"
PROGRAM = "firewall-cmd"
LIMIT = 20.0
"""Seconds for the program, which takes 0.4 and waits while firewalld starts."""
log = logging.getLogger(__name__)


def bound(table: Sequence[Json]) -> set[str]:
    """Interfaces that have a zone, given ``nft -j list table inet firewalld``. Pure."""
    found = set()
    for item in table:
        rule = item.get("rule")
        if rule is None or not (rule["chain"].startswith("filter_FORWARD") and rule["chain"].endswith("ZONES")):
            continue
        for step in rule["expr"]:
            match = step.get("match", {}) if isinstance(step, dict) else {}
            if match.get("left") == {"meta": {"key": "iifname"}} and isinstance(match["right"], str):
                found.add(match["right"])
    return found


def add(bridges: Iterable[str]) -> bool:
    """Whether firewalld took them."""
    return _ask([f"--zone={ZONE}", *(f"--add-interface={name}" for name in bridges)])


def remove(bridges: Iterable[str]) -> bool:
    return _ask([f"--zone={ZONE}", *(f"--remove-interface={name}" for name in bridges)])


def _ask(words: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            [PROGRAM, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=LIMIT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("firewalld may refuse what containers send: cannot run %s: %s", PROGRAM, error)
        return False
    if done.returncode != 0:
        log.warning("firewalld may refuse what containers send: %s: %s", " ".join((PROGRAM, *words)), done.stdout.strip())
    return done.returncode == 0
