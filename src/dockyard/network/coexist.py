"""Living with the tables of iptables: DOCKER-USER, and another's FORWARD policy. Pure.

dockerd, ufw and many administrators set the policy of ``ip filter FORWARD`` to drop. A drop anywhere is final, so our
accept in our own table does not help: packets to and from our bridges need an accept in that chain. We append two rules
per bridge at its end, behind DOCKER-USER and all other rules, so that only the policy is overridden and every rule of
the administrator's keeps its say. They are in the form that iptables prints (``-A FORWARD -i br -j ACCEPT``), and are
taken out when the policy is accept again or the bridge goes.

``DOCKER-USER`` is where administrators put their own rules about containers. Where iptables is installed it is there,
empty, and the first that FORWARD jumps to, as dockerd has it; rules in it are never touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Json = dict[str, Any]
USER_CHAIN = "DOCKER-USER"


def pass_policy(family: str, table: Sequence[Json], ours: Iterable[str], gone: Iterable[str] = ()) -> str:
    """What to run, given ``nft -j list table FAMILY filter``; "" if all is well or there is no such chain."""
    chain = _chain(table, "FORWARD")
    if chain is None:
        return ""
    rules = [item["rule"] for item in table if "rule" in item and item["rule"]["chain"] == "FORWARD"]
    present = {key: rule["handle"] for rule in rules if (key := _ours(rule))}
    wanted = [(way, bridge) for bridge in ours for way in ("iifname", "oifname")] if chain.get("policy") == "drop" else []
    removable = {*ours, *gone}
    text = "".join(
        f'add rule {family} filter FORWARD {way} "{bridge}" counter accept\n'
        for way, bridge in wanted
        if (way, bridge) not in present
    )
    return text + "".join(
        f"delete rule {family} filter FORWARD handle {handle}\n"
        for key, handle in present.items()
        if key not in wanted and key[1] in removable
    )


def user_chain(family: str, table: Sequence[Json]) -> str:
    """DOCKER-USER and the jump to it, where they are missing."""
    text = ""
    if _chain(table, "FORWARD") is None:
        text += f"add table {family} filter\n"
        text += f"add chain {family} filter FORWARD {{ type filter hook forward priority 0; policy accept; }}\n"
    if _chain(table, USER_CHAIN) is None:
        text += f"add chain {family} filter {USER_CHAIN}\n"
    if not _jumps(table):
        text += f"insert rule {family} filter FORWARD counter jump {USER_CHAIN}\n"
    return text


def without_user_chain(family: str, table: Sequence[Json]) -> str:
    """Takes away a DOCKER-USER that nobody uses, and a table that holds nothing then."""
    used = any("rule" in item and item["rule"]["chain"] == USER_CHAIN for item in table)
    if used or _chain(table, USER_CHAIN) is None:
        return ""
    text = "".join(f"delete rule {family} filter FORWARD handle {handle}\n" for handle in _jumps(table))
    text += f"delete chain {family} filter {USER_CHAIN}\n"
    others = [item for item in table if "chain" in item and item["chain"]["name"] not in {"FORWARD", USER_CHAIN}]
    rules = [item for item in table if "rule" in item and item["rule"]["handle"] not in _jumps(table)]
    forward = _chain(table, "FORWARD")
    if not others and not rules and forward is not None and forward.get("policy") == "accept":
        text += f"delete table {family} filter\n"
    return text


def _chain(table: Sequence[Json], name: str) -> Json | None:
    return next((item["chain"] for item in table if "chain" in item and item["chain"]["name"] == name), None)


def _jumps(table: Sequence[Json]) -> list[int]:
    return [
        item["rule"]["handle"]
        for item in table
        if "rule" in item and item["rule"]["chain"] == "FORWARD"
        and any(step.get("jump", {}).get("target") == USER_CHAIN for step in item["rule"]["expr"] if isinstance(step, dict))
    ]  # fmt: skip


def _ours(rule: Json) -> tuple[str, str] | None:
    """(direction, interface) of a rule that accepts all of one interface's packets, and matches nothing else."""
    steps = [item for item in rule.get("expr", ()) if "counter" not in item]
    if len(steps) != 2 or "match" not in steps[0] or "accept" not in steps[1]:
        return None
    match = steps[0]["match"]
    way = match["left"].get("meta", {}).get("key", "") if isinstance(match["left"], dict) else ""
    if way not in {"iifname", "oifname"} or match.get("op") != "==" or not isinstance(match["right"], str):
        return None
    return way, match["right"]
