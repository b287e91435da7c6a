"""Walk a packet through the base chains of a hook.

Every base chain of a hook must let a packet pass: an accept ends that chain only, a drop is final (nft(8), "accept").
In nat chains the first translation wins.
"""

from __future__ import annotations

from dataclasses import dataclass

from dockyard.doctor.firewall.model import Chain, Packet, Rule, Ruleset, Verdict
from dockyard.doctor.firewall.nft import VerdictMap

MAX_DEPTH = 16  # NFT_JUMP_STACK_SIZE


@dataclass(frozen=True, slots=True)
class Outcome:
    """``kind``: accept, drop, reject, perhaps (a rule not understood could drop it). The deciding chain and rule."""

    kind: str
    chain: Chain | None = None
    rule: Rule | None = None

    @property
    def passes(self) -> bool:
        return self.kind in ("accept", "perhaps")

    @property
    def place(self) -> str:
        if self.chain is None:
            return "no rule"
        if self.rule is None:
            return f"{self.chain.place}: policy {self.chain.policy}"
        return f"{self.chain.place}: {self.rule.text}"


def walk(ruleset: Ruleset, hook: str, packet: Packet) -> Outcome:
    """What the filter chains of ``hook`` do with ``packet``."""
    doubt: Outcome | None = None
    last = Outcome("accept")
    for chain in ruleset.base(hook, ("filter", "route")):
        outcome = _run(ruleset, chain, packet, 0) or Outcome(chain.policy, chain)
        if outcome.kind in ("drop", "reject"):
            return outcome
        if outcome.kind == "perhaps":
            doubt = doubt or outcome
        last = outcome
    return doubt or last


def _run(ruleset: Ruleset, chain: Chain, packet: Packet, depth: int) -> Outcome | None:
    """None: fell through to the caller (or the policy)."""
    doubt: Outcome | None = None
    if depth > MAX_DEPTH:
        return Outcome("perhaps", chain)
    for rule in chain.rules:
        matched = _matches(rule, packet)
        verdict = _choose(rule, packet)
        if matched is False or verdict is None:
            continue
        outcome = _apply(ruleset, chain, rule, verdict, packet, depth)
        if outcome is None:
            continue
        if outcome.kind == "return":
            if matched:
                return doubt
            continue
        if matched:
            return doubt if doubt and outcome.kind == "accept" else outcome
        if outcome.kind in ("drop", "reject"):
            doubt = doubt or Outcome("perhaps", outcome.chain, outcome.rule)
    return doubt


def _apply(ruleset: Ruleset, chain: Chain, rule: Rule, verdict: Verdict, packet: Packet, depth: int) -> Outcome | None:
    if verdict.kind in ("jump", "goto"):
        target = ruleset.get(chain, verdict.target)
        if target is None:
            return None  # a target module that only marks or counts
        inner = _run(ruleset, target, packet, depth + 1)
        return inner or (Outcome("return", chain, rule) if verdict.kind == "goto" else None)
    if verdict.kind in ("accept", "drop", "reject", "return"):
        return Outcome(verdict.kind, chain, rule)
    return None


def _matches(rule: Rule, packet: Packet) -> bool | None:
    result: bool | None = True
    for match in rule.matches:
        value = match(packet)
        if value is False:
            return False
        if value is None:
            result = None
    return result


def _choose(rule: Rule, packet: Packet) -> Verdict | None:
    if isinstance(rule.verdict, VerdictMap):
        chosen: Verdict | None = rule.verdict.choose(packet)
        return chosen
    return rule.verdict


def translate(ruleset: Ruleset, hook: str, packet: Packet) -> tuple[Verdict, Outcome] | None:
    """The address translation that the nat chains of ``hook`` give a new connection, and the rule that did it."""
    for chain in ruleset.base(hook, ("nat",)):
        found = _translate(ruleset, chain, packet, 0)
        if found is not None and found[0].kind in ("dnat", "snat", "masquerade", "redirect"):
            return found
    return None


def _translate(ruleset: Ruleset, chain: Chain, packet: Packet, depth: int) -> tuple[Verdict, Outcome] | None:
    if depth > MAX_DEPTH:
        return None
    for rule in chain.rules:
        if _matches(rule, packet) is not True:
            continue
        verdict = _choose(rule, packet)
        if verdict is None:
            continue
        if verdict.kind in ("jump", "goto"):
            target = ruleset.get(chain, verdict.target)
            inner = _translate(ruleset, target, packet, depth + 1) if target is not None else None
            if inner is not None and inner[0].kind != "return":
                return inner
        elif verdict.kind in ("dnat", "snat", "masquerade", "redirect", "accept", "return"):
            return verdict, Outcome(verdict.kind, chain, rule)
    return None
