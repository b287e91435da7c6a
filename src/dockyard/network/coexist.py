"""Living with another's FORWARD policy. Pure.

dockerd, ufw and many administrators set the policy of ``ip filter FORWARD`` to drop. A drop anywhere is final, so our
accept in our own table does not help: packets to and from our bridges need an accept in that chain. We append two rules
per bridge at its end, behind DOCKER-USER and all other rules, so that only the policy is overridden and every rule of
the administrator's keeps its say. They are in the form that iptables prints (``-A FORWARD -i br -j ACCEPT``), and are
taken out when the policy is accept again or the bridge goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Json = dict[str, Any]


def commands(family: str, chain: Sequence[Json], ours: Iterable[str], gone: Iterable[str] = ()) -> str:
    """What to run, given ``nft -j list chain FAMILY filter FORWARD``; "" if all is well or there is no such chain."""
    policy = next((item["chain"].get("policy") for item in chain if "chain" in item), None)
    if policy is None:
        return ""
    present = {key: item["rule"]["handle"] for item in chain if "rule" in item and (key := _ours(item["rule"]))}
    wanted = [(way, bridge) for bridge in ours for way in ("iifname", "oifname")] if policy == "drop" else []
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
