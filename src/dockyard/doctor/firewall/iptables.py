"""iptables-save text into the firewall model (iptables-save(8), iptables-extensions(8))."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise

from dockyard.doctor.firewall.model import (
    Chain,
    Match,
    Packet,
    Rule,
    Ruleset,
    Verdict,
    interface_matches,
    negate,
    unknown,
    within,
)  # fmt: skip

# Priorities of linux/netfilter_ipv4.h.
_PRIORITY = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_HOOK = {"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output",
         "POSTROUTING": "postrouting"}  # fmt: skip
_CHAIN = re.compile(r":(\S+) (\S+)(?: \[(\d+):\d+\])?")
_COUNTER = re.compile(r"\[(\d+):\d+\] ")
_SILENT = {"--comment", "--reject-with", "--log-prefix", "--log-level", "--to-ports", "--set-xmark", "--ctmark"}


def read_iptables(text: str, owner: str, ruleset: Ruleset, family: str = "ip") -> None:
    """Add the tables of one iptables-save output to ``ruleset``. Lines that make no sense are left out."""
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":") and (found := _CHAIN.match(line)):
            ruleset.add(_chain(owner, family, table, found))
        elif "-A " in line:
            counter = _COUNTER.match(line)
            packets = int(counter[1]) if counter else None
            try:
                words = shlex.split(line[line.index("-A ") :])
            except ValueError:
                continue
            chain = ruleset.chains.get((owner, family, table, words[1])) if len(words) > 1 else None
            if chain is not None:
                chain.rules.append(_rule(line[line.index("-A ") :], words[2:], packets))


def _chain(owner: str, family: str, table: str, found: re.Match[str]) -> Chain:
    name, policy, packets = found[1], found[2], found[3]
    hook = _HOOK.get(name, "")
    priority = _PRIORITY.get(table, 0)
    if table == "nat" and hook in ("postrouting", "input"):
        priority = 100
    return Chain(
        owner, family, table, name,
        kind="nat" if table == "nat" else "filter",
        hook=hook,
        priority=priority,
        policy=policy.lower() if hook else "return",
        policy_packets=int(packets) if packets and hook else None,
    )  # fmt: skip


def _rule(text: str, words: list[str], packets: int | None) -> Rule:
    matches: list[Match] = []
    verdict = Verdict("none")
    invert = False
    index = 0
    while index < len(words):
        word = words[index]
        value = words[index + 1] if index + 1 < len(words) else ""
        index += 1
        if word == "!":
            invert = True
            continue
        if word in ("-j", "-g"):
            verdict = _verdict(word, value, words[index + 1 :])
            break
        match, used = _match(word, value)
        index += used
        if match is not None:
            matches.append(negate(match) if invert else match)
            invert = False
    return Rule(text, tuple(matches), verdict, packets)


def _verdict(word: str, target: str, rest: list[str]) -> Verdict:
    if word == "-g":
        return Verdict("goto", target)
    simple = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return", "MASQUERADE": "masquerade"}
    if target in simple:
        return Verdict(simple[target])
    if target in ("DNAT", "SNAT", "REDIRECT"):
        options = dict(pairwise(rest))
        to = options.get("--to-destination") or options.get("--to-source") or options.get("--to-ports") or ""
        return Verdict(target.lower(), to)
    if target.isupper() and target in ("LOG", "MARK", "CONNMARK", "NFLOG", "TCPMSS", "CT", "TRACE", "NOTRACK", "TOS"):
        return Verdict("none", target)
    return Verdict("jump", target)


def _match(word: str, value: str) -> tuple[Match | None, int]:
    """The match of an option and how many further words it used."""
    simple = _SIMPLE.get(word)
    if simple is not None:
        return simple(value), 1
    if word in ("-m", "--match") or word in _SILENT:
        return None, 1
    if word.startswith("-") and value and not value.startswith("-"):
        return unknown, 1
    return (unknown, 0) if word.startswith("-") else (None, 0)


def ports(text: str) -> list[tuple[int, int]]:
    ranges = []
    for part in text.split(","):
        low, _, high = part.replace("-", ":").partition(":")
        if low.isdigit() or high.isdigit():
            ranges.append((int(low or 0), int(high or (low if ":" not in part.replace("-", ":") else 65535))))
    return ranges


def _dport(value: str) -> Match:
    ranges = ports(value)
    return lambda packet: any(low <= packet.dport <= high for low, high in ranges)


def _sport(value: str) -> Match:
    ranges = ports(value)
    return lambda packet: any(low <= packet.sport <= high for low, high in ranges)


def _state(value: str) -> Match:
    states = value.lower().split(",")

    def match(packet: Packet) -> bool | None:
        return packet.state in states or ("dnat" in states and packet.dnat)

    return match


def _type(value: str) -> Match:
    return (lambda packet: packet.local) if value == "LOCAL" else unknown


def _set_match(_: str) -> Match:
    return unknown


_SIMPLE = {
    "-i": lambda value: lambda packet: interface_matches(value, packet.iif),
    "-o": lambda value: lambda packet: interface_matches(value, packet.oif),
    "-s": lambda value: lambda packet: within(packet.source, value),
    "-d": lambda value: lambda packet: within(packet.destination, value),
    "-p": lambda value: lambda packet: value in ("all", packet.proto),
    "--dport": _dport, "--dports": _dport, "--sport": _sport, "--sports": _sport,
    "--ctstate": _state, "--state": _state,
    "--dst-type": _type,
    "--match-set": _set_match,
}  # fmt: skip
