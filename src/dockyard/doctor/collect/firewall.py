"""The rule sets of a network namespace, as text and JSON of the tools that own the formats."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from dockyard.doctor.collect.namespaces import inside
from dockyard.doctor.facts import Firewall

TOOL_TIMEOUT = 5.0
MAX_OUTPUT = 64 * 1024 * 1024


def read_firewall_of(pid: int) -> tuple[Firewall, dict[str, str]]:
    """Rule sets of the namespace of ``pid`` and what could not be read."""
    return inside(pid, _read_here, TOOL_TIMEOUT * 3)


def _read_here() -> tuple[Firewall, dict[str, str]]:
    missing: dict[str, str] = {}
    nft = _json(_run("nft", missing, "nft", "-j", "list", "ruleset"), missing)
    compat = _run("iptables-nft", missing, "iptables-nft-save", "-c")
    legacy = _run("iptables-legacy", missing, "iptables-legacy-save", "-c")
    return Firewall(nft, compat, legacy), missing


def _run(section: str, missing: dict[str, str], *command: str) -> str | None:
    path = shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin")
    if path is None:
        missing[f"firewall.{section}"] = f"{command[0]} is not installed"
        return None
    try:
        done = subprocess.run([path, *command[1:]], capture_output=True, timeout=TOOL_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        missing[f"firewall.{section}"] = str(error)
        return None
    if done.returncode or len(done.stdout) > MAX_OUTPUT:
        missing[f"firewall.{section}"] = done.stderr.decode("utf-8", "replace").strip()[:200] or "refused"
        return None
    return done.stdout.decode("utf-8", "replace")


def _json(text: str | None, missing: dict[str, str]) -> list[dict[str, Any]] | None:
    if text is None:
        return None
    try:
        return list(json.loads(text or '{"nftables": []}')["nftables"])
    except (ValueError, KeyError, TypeError) as error:
        missing["firewall.nft"] = f"cannot read its JSON: {error}"
        return None
