"""Firewalls at work: nftables, and none. (``iptables`` has the third.) In the room's namespace thread."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dockyard.kernel import nft
from dockyard.kernel.netlink import NetlinkError, NetlinkSocket
from dockyard.kernel.netlink_nft import NETLINK_NETFILTER, change_elements
from dockyard.kernel.nft import Nft, NftError
from dockyard.network import coexist, firewalld
from dockyard.network.errors import KERNEL, NO_FIREWALL
from dockyard.network.firewall import NAME, Element, Rules, packed
from dockyard.network.iptables import IptablesFirewall
from dockyard.network.model import LinkRule, Network, NetworkSettings, Published, Sandbox
from dockyard.network.ports import Firewall

_OWNER = re.compile(r'^\s*comment "([^"]*)"', re.MULTILINE)


class NoFirewall:
    """--iptables=false: the administrator's rules are all there is."""

    def add_network(self, network: Network) -> None:
        return None

    def remove_network(self, network: Network) -> None:
        return None

    def open(self, sandbox: Sandbox) -> None:
        return None

    def shut(self, container: str, published: Sequence[Published], links: Sequence[LinkRule]) -> None:
        return None

    def restore(self, networks: Sequence[Network], sandboxes: Sequence[Sandbox], uplinks: Sequence[str]) -> bool:
        return False

    def remove(self, networks: Sequence[Network]) -> None:
        return None

    def made(self, thread: int) -> bool:
        return False

    def watched(self) -> Mapping[str, bool]:
        return {}

    def admitting(self) -> int:
        return 0

    def close(self) -> None:
        return None


class NftFirewall:
    """nftables in the host's namespace, by one context that is kept: closing one after a transaction that deleted
    something waits for a grace period of the kernel (nft_rcv_nl_event in nf_tables_api.c; 13 ms here)."""

    def __init__(self, rules: Rules, *, user_chain: bool) -> None:
        """``user_chain``: keep DOCKER-USER in the tables of iptables, for administrators who have that program."""
        self._rules = rules
        self._user_chain = user_chain
        self._nft: Nft | None = None
        self._netlink: NetlinkSocket | None = None

    def add_network(self, network: Network) -> None:
        self._change(self._rules.network(network))
        self._pass_policy([network.bridge])

    def remove_network(self, network: Network) -> None:
        self._change(self._rules.network(network), gone=True)
        self._pass_policy([], [network.bridge])

    def open(self, sandbox: Sandbox) -> None:
        self._swap(self._rules.elements(sandbox), ())

    def shut(self, container: str, published: Sequence[Published], links: Sequence[LinkRule]) -> None:
        self._swap((), self._rules.elements(Sandbox(container, "", tuple(published), links=tuple(links))))

    def _swap(self, added: Sequence[Element], removed: Sequence[Element]) -> None:
        """The elements of one container, by a message of our own: no start waits for libnftables to read the tables."""
        if not (added or removed):
            return
        self._netlink = self._netlink or NetlinkSocket(NETLINK_NETFILTER)
        try:
            change_elements(
                self._netlink, self._rules.table, [packed(item) for item in added],
                [packed(item) for item in dict.fromkeys(removed)],
            )  # fmt: skip
        except NetlinkError as error:
            if error.errno == errno.ENOENT and not added:
                return  # The table is not there, so nothing is open; the watcher or the next start makes it again.
            raise KERNEL(what="change the firewall", cause=str(error)) from None

    def restore(self, networks: Sequence[Network], sandboxes: Sequence[Sandbox], uplinks: Sequence[str]) -> bool:
        rows: list[Element] = [row for network in networks for row in self._rules.network(network)]
        rows += [row for sandbox in sandboxes for row in self._rules.elements(sandbox)]
        rows += self._rules.uplinks(uplinks)
        unique = list(dict.fromkeys(rows))
        try:
            self._context().run(self._rules.whole(unique))
        except NftError:
            self._run(self._rules.whole(unique, anew=True))
        return self._pass_policy([network.bridge for network in networks])

    def remove(self, networks: Sequence[Network]) -> None:
        self._pass_policy([], [network.bridge for network in networks])
        text = "".join(coexist.without_user_chain(family, self._table(family, "filter")) for family in self._rules.families)
        self._run(text + self._rules.remove())

    def made(self, thread: int) -> bool:
        return os.path.exists(f"/proc/self/task/{thread}")

    def watched(self) -> Mapping[str, bool]:
        return {self._rules.table: True, "filter": False, firewalld.TABLE: False}

    def admitting(self) -> int:
        return self._rules.group if self._rules.guarded else 0

    def close(self) -> None:
        if self._nft is not None:
            self._nft.close()
        if self._netlink is not None:
            self._netlink.close()

    def _context(self) -> Nft:
        self._nft = self._nft or Nft()
        return self._nft

    def _run(self, commands: str) -> None:
        """One transaction. Raises System."""
        try:
            self._context().run(commands)
        except NftError as error:
            raise KERNEL(what="change the firewall", cause=str(error).splitlines()[0]) from None

    def _change(self, elements: Iterable[Element], *, gone: bool = False) -> None:
        rows = list(elements)
        if rows:
            self._run(self._rules.delete(rows) if gone else self._rules.add(rows))

    def _pass_policy(self, bridges: Sequence[str], gone: Sequence[str] = ()) -> bool:
        """See ``coexist`` and ``firewalld``. Tables of iptables-legacy, which nft does not show, are left alone."""
        changed = self._join_zone(bridges, gone)
        for family in self._rules.families:
            table = self._table(family, "filter")
            commands = coexist.pass_policy(family, table, bridges, gone)
            changed = changed or bool(commands)
            if self._user_chain and bridges:
                commands += coexist.user_chain(family, table)
            if commands:
                self._run(commands)
        return changed

    def _join_zone(self, bridges: Sequence[str], gone: Sequence[str]) -> bool:
        known = firewalld.bound(found) if (found := self._table("inet", firewalld.TABLE)) else None
        if known is None:
            return False
        if leaving := known.intersection(gone):
            firewalld.remove(sorted(leaving))
        strangers = [name for name in bridges if name not in known]
        return bool(strangers) and firewalld.add(strangers)

    def _table(self, family: str, name: str) -> list[coexist.Json]:
        """[] if there is none, or only one that nft cannot show."""
        try:
            return self._context().json(f"list table {family} {name}")
        except NftError:
            return []


def make(settings: NetworkSettings, table: str, owner: str) -> Firewall:
    """The best one that works here and that the administrator allows. Raises Unavailable."""
    if not settings.families:
        return NoFirewall()
    have_iptables = shutil.which("iptables") is not None
    if settings.firewall_backend in {"", "nftables"} and nft.available():
        rules = Rules(table, settings.families, settings.respect_host_firewall, settings.bridge_accept_fwmark, owner)
        return NftFirewall(rules, user_chain=have_iptables)
    if settings.firewall_backend == "nftables":
        raise NO_FIREWALL(cause="nftables does not answer on this host")
    if have_iptables:
        return IptablesFirewall(settings)
    raise NO_FIREWALL(cause="neither libnftables nor iptables is installed")


def free_table_name(engine: str, owner: str) -> str:
    """``dockyard``, or with the engine's own mark where another engine in this network namespace has that. A table whose
    engine's data root is gone, or was emptied and is ours now, is nobody's any more."""
    try:
        with Nft() as context:
            found = [item["table"] for item in context.json("list tables") if "table" in item]
            texts = [context.run(f"list table {item['family']} {NAME}") for item in found if item["name"] == NAME]
    except NftError:
        return NAME
    owners = {match[1] if (match := _OWNER.search(text)) else "" for text in texts}
    alive = any(not path or (path != owner and Path(path).exists()) for path in owners)
    return f"{NAME}_{engine[:8]}" if alive else NAME


__all__ = ["NftFirewall", "NoFirewall", "free_table_name", "make"]
