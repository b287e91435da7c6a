"""``nft -j list ruleset`` into the firewall model (libnftables-json(5)). Covers what Docker, Dockyard, netavark,
firewalld and people's own tables use: meta, payload, ct, fib, sets and verdict maps; the rest is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dockyard.doctor.firewall.model import (
    Chain,
    Match,
    Packet,
    Rule,
    Ruleset,
    Verdict,
    interface_matches,
    network,
    unknown,
    within,
)  # fmt: skip

_COMPAT = {"filter", "nat", "mangle", "raw", "security"}
_PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}


def read_nft(objects: list[dict[str, Any]], ruleset: Ruleset, *, skip_compat: bool) -> None:
    """Add nft tables. ``skip_compat``: the tables of iptables-nft come better from iptables-save (their matches are
    opaque in JSON), so they are left out when that text was read."""
    sets: dict[tuple[str, str, str], Any] = {}
    rules: list[dict[str, Any]] = []
    for entry in objects:
        if "chain" in entry:
            _add_chain(entry["chain"], ruleset, skip_compat)
        elif "set" in entry or "map" in entry:
            item = entry.get("set") or entry.get("map") or {}
            sets[item.get("family", ""), item.get("table", ""), item.get("name", "")] = item.get("elem", [])
        elif "rule" in entry:
            rules.append(entry["rule"])
    for item in rules:
        family = item.get("family", "")
        chain = ruleset.chains.get(("nft", family, item.get("table", ""), item.get("chain", "")))
        if chain is not None:
            scope = {name: elements for (fam, table, name), elements in sets.items() if (fam, table) == (
                family, chain.table)}  # fmt: skip
            chain.rules.append(_rule(item, scope))


def _add_chain(item: dict[str, Any], ruleset: Ruleset, skip_compat: bool) -> None:
    family, table = item.get("family", ""), item.get("table", "")
    if family not in ("ip", "inet") or (skip_compat and family == "ip" and table in _COMPAT):
        return
    priority = item.get("prio", 0)
    ruleset.add(
        Chain(
            "nft", family, table, item.get("name", ""),
            kind=item.get("type", ""),
            hook=item.get("hook", ""),
            priority=priority if isinstance(priority, int) else _PRIORITIES.get(priority, 0),
            policy=item.get("policy", "accept") if item.get("hook") else "return",
        )
    )  # fmt: skip


def _rule(item: dict[str, Any], sets: dict[str, Any]) -> Rule:
    matches: list[Match] = []
    verdict, packets = Verdict("none"), None
    for statement in item.get("expr", []):
        kind, value = _statement(statement)
        if kind == "match":
            matches.append(_match(value, sets))
        elif kind == "counter" and isinstance(value, dict):
            packets = value.get("packets")
        elif kind in ("accept", "drop", "return", "reject", "masquerade"):
            verdict = Verdict(kind)
        elif kind in ("jump", "goto"):
            verdict = Verdict(kind, value.get("target", ""))
        elif kind in ("dnat", "snat", "redirect"):
            verdict = Verdict(kind, _nat_target(value))
        elif kind == "vmap":
            matches, verdict = [*matches, unknown], Verdict("vmap")
        elif kind == "xt":
            matches.append(unknown)
    rule = Rule(_text(item), tuple(matches), verdict, packets, str(item.get("handle", "")))
    vmap = next((entry["vmap"] for entry in item.get("expr", []) if "vmap" in entry), None)
    return _expand_vmap(rule, vmap, sets) if vmap is not None else rule


def _statement(statement: dict[str, Any]) -> tuple[str, Any]:
    return next(iter(statement.items()), ("", None))


@dataclass(frozen=True, slots=True)
class VerdictMap(Verdict):
    """A verdict looked up in a map by a key of the packet."""

    choose: Callable[[Packet], Verdict | None] = lambda packet: None


def _expand_vmap(rule: Rule, vmap: dict[str, Any], sets: dict[str, Any]) -> Rule:
    elements = vmap.get("data")
    if isinstance(elements, str):
        elements = sets.get(elements.lstrip("@"), [])
    elif isinstance(elements, dict):
        elements = elements.get("set", [])

    def choose(packet: Packet) -> Verdict | None:
        for element in elements or []:
            key, value = element[0], element[1]
            key = key.get("elem", {}).get("val", key) if isinstance(key, dict) else key
            if _equals(vmap.get("key"), key, packet, sets):
                kind, target = next(iter(value.items()))
                return Verdict(kind, (target or {}).get("target", "") if isinstance(target, dict) else "")
        return None

    return Rule(rule.text, rule.matches[:-1], VerdictMap("vmap", choose=choose), rule.packets, rule.handle)


def _match(value: dict[str, Any], sets: dict[str, Any]) -> Match:
    left, right, operator = value.get("left"), value.get("right"), value.get("op", "==")

    def match(packet: Packet) -> bool | None:
        result = _equals(left, right, packet, sets)
        return result if operator in ("==", "in") or result is None else not result if operator == "!=" else None

    return match


def _equals(left: Any, right: Any, packet: Packet, sets: dict[str, Any]) -> bool | None:
    if isinstance(left, dict) and "concat" in left:
        return _concat(left["concat"], right, packet, sets)
    actual = _value(left, packet)
    if actual is None:
        return None
    return _holds(actual, right, sets)


def _concat(keys: list[Any], right: Any, packet: Packet, sets: dict[str, Any]) -> bool | None:
    if isinstance(right, str) and right.startswith("@"):
        rows = sets.get(right[1:], [])
        results = [_concat(keys, row, packet, sets) for row in rows]
        return True if True in results else None if None in results else False
    if isinstance(right, dict) and "elem" in right:
        right = right["elem"].get("val")
    parts = right.get("concat") if isinstance(right, dict) else None
    if parts is None or len(parts) != len(keys):
        return None
    results = [_equals(key, part, packet, sets) for key, part in zip(keys, parts, strict=True)]
    return False if False in results else None if None in results else True


def _value(left: Any, packet: Packet) -> str | int | list[str] | None:
    """The packet's value of an nft expression; None when the model does not know it."""
    if not isinstance(left, dict):
        return None
    kind, spec = next(iter(left.items()))
    key = spec.get("key") if isinstance(spec, dict) else None
    if kind == "meta":
        known: dict[str, str | int | list[str]] = {
            "iifname": packet.iif, "oifname": packet.oif, "iif": packet.iif, "oif": packet.oif,
            "l4proto": packet.proto, "nfproto": "ipv4", "protocol": "ip",
        }  # fmt: skip
        return known.get(str(key))
    if kind == "payload":
        field, proto = spec.get("field"), spec.get("protocol")
        if proto == "ip":
            return {"saddr": packet.source, "daddr": packet.destination, "protocol": packet.proto}.get(field)
        if proto in ("th", "tcp", "udp"):
            if proto not in ("th", packet.proto):
                return ""
            return {"dport": packet.dport, "sport": packet.sport}.get(field)
    if kind == "ct":
        if key == "state":
            return packet.state
        if key == "status":
            return ["dnat"] if packet.dnat else []
    if kind == "fib" and spec.get("result") == "type" and "daddr" in spec.get("flags", []):
        return "local" if packet.local else "unicast"
    return None


def _holds(actual: str | int | list[str], right: Any, sets: dict[str, Any]) -> bool | None:
    if isinstance(right, str) and right.startswith("@"):
        right = {"set": sets.get(right[1:], [])}
    if isinstance(right, list):
        right = {"set": right}
    if isinstance(right, dict):
        if "set" in right:
            results = [_holds(actual, item, sets) for item in right["set"]]
            return True if True in results else None if None in results else False
        if "elem" in right:
            return _holds(actual, right["elem"].get("val"), sets)
        if "prefix" in right:
            return within(str(actual), f"{right['prefix']['addr']}/{right['prefix']['len']}")
        if "range" in right:
            low, high = right["range"]
            return low <= actual <= high if isinstance(actual, int) and isinstance(low, int) else None
        return None
    if isinstance(actual, list):
        return right in actual
    if isinstance(actual, str) and isinstance(right, str):
        if network(right) is not None and network(actual) is not None:
            return within(actual, right)
        return interface_matches(right, actual) if right.endswith("*") else actual == right
    return bool(actual == right)


def _nat_target(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    address, port = value.get("addr", ""), value.get("port", "")
    if isinstance(address, dict) or isinstance(port, dict):
        return "?"  # chosen by a map at run time
    return f"{address}:{port}" if port else str(address)


def _text(item: dict[str, Any]) -> str:
    """What names a rule: its handle (`nft -a list chain` shows it), and what it does, short of its matches."""
    parts = []
    for statement in item.get("expr", []):
        kind, value = next(iter(statement.items()), ("", None))
        if kind in ("match", "counter"):
            continue
        where = (value or {}).get("target", "") if kind in ("jump", "goto") else _nat_target(value).replace("?", "by a map")
        parts.append(f"{kind} {where}".strip())
    return f"handle {item.get('handle')}: {', '.join(parts) or 'counts'}"
