"""All rule sets of one namespace into one Ruleset."""

from __future__ import annotations

from dockyard.doctor.facts import Firewall
from dockyard.doctor.firewall.iptables import read_iptables
from dockyard.doctor.firewall.model import Ruleset
from dockyard.doctor.firewall.nft import read_nft


def read_firewall(facts: Firewall) -> Ruleset:
    ruleset = Ruleset()
    if facts.iptables_legacy:
        read_iptables(facts.iptables_legacy, "iptables-legacy", ruleset)
    if facts.iptables_nft:
        read_iptables(facts.iptables_nft, "iptables-nft", ruleset)
    if facts.nft:
        read_nft(facts.nft, ruleset, skip_compat=facts.iptables_nft is not None)
    return ruleset
