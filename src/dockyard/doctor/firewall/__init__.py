"""Firewalls as values: iptables (both back ends) and nftables read into one form, and a packet walked through it.

Pure: text and JSON in, verdicts out. A match that is not understood is `None` (unknown), never guessed: a packet that
could be dropped by such a rule ends as "perhaps", with the rule named.
"""

from dockyard.doctor.firewall.model import Chain, Packet, Rule, Ruleset, Verdict
from dockyard.doctor.firewall.read import read_firewall
from dockyard.doctor.firewall.simulate import Outcome, translate, walk

__all__ = ["Chain", "Outcome", "Packet", "Rule", "Ruleset", "Verdict", "read_firewall", "translate", "walk"]
